//! The documents agree with the table of formats.

use baton_formats::Format;

#[test]
fn the_reference_has_the_table_of_formats() {
    let reference = include_str!("../../docs/reference/formats.md");
    assert!(reference.contains(&Format::markdown_table()), "write this table:\n{}", Format::markdown_table());
}
