//! `docs/reference/generation.md` has the table of options that the schema gives.
//!
//! `BATON_WRITE_DOCS=1 cargo test -p baton-generation --test documentation` writes it.

use std::path::Path;

use baton_generation::options_table;

const BEGIN: &str = "<!-- options: from generation/src/schema.rs -->\n";
const END: &str = "<!-- options: end -->\n";

#[test]
fn the_table_in_the_documentation_is_that_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/generation.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the mark where the table begins");
    let (table, after) = rest.split_once(END).expect("the page has the mark where the table ends");
    if std::env::var_os("BATON_WRITE_DOCS").is_some() {
        std::fs::write(&path, [before, BEGIN, &options_table(), END, after].concat()).unwrap();
        return;
    }
    assert!(
        table == options_table(),
        "docs/reference/generation.md and generation/src/schema.rs differ; to write the table, run\n\
         BATON_WRITE_DOCS=1 cargo test -p baton-generation --test documentation"
    );
}
