//! CSV and TSV: quotes, headers, separators and rows that cannot be read.

use super::*;

#[test]
fn csv_cells_may_be_quoted_and_hold_line_breaks() {
    let bytes = "\u{feff}id,text\r\n1,\"a, \"\"b\"\"\nc\"\r\n\r\n\n2,d\r\n3,\"e\r\nf\"\n4,g";
    assert_eq!(read("a.csv", bytes.as_bytes()), ["2 1 a, \"b\"\nc", "6 2 d", "7 3 e\r\nf", "9 4 g"]);
}

#[test]
fn a_quote_that_is_never_closed_costs_its_row_and_no_other() {
    assert_eq!(
        read("a.csv", b"id,text\n1,a\n2,\"b\n3,c\n4,d\n"),
        ["2 1 a", "3 !invalid_row", "4 3 c", "5 4 d"]
    );
    assert_eq!(read("a.csv", b"id,text\n1,\"closed\""), ["2 1 closed"]);
    assert_eq!(read("a.csv", b"id,text\n1,\"open"), ["2 !invalid_row"]);
}

#[test]
fn text_after_a_closing_quote_costs_its_row_and_the_next_line_is_read() {
    let swallowing = b"id,text\n1,\"A small library\n2,Another tool\n3,\"Third tool\"\n4,Fourth tool\n";
    assert_eq!(
        read("a.csv", swallowing),
        ["2 !invalid_row", "3 2 Another tool", "4 3 Third tool", "5 4 Fourth tool"]
    );
    assert_eq!(read("a.csv", b"id,text\n1,\"a\"b\n2,c\n"), ["2 !invalid_row", "3 2 c"]);
    assert_eq!(read("a.csv", b"id,text\r\n1,\"a\"b\r\n2,c\r\n"), ["2 !invalid_row", "3 2 c"]);
}

#[test]
fn a_row_too_long_to_be_kept_is_passed_over_to_its_end_even_where_its_quotes_are_wrong() {
    let long = "x".repeat(options().max_row_bytes() + 1);
    let bytes = format!("id,text\n1,\"a\n{long}\nb\"c\n2,d\n");
    assert_eq!(read("a.csv", bytes.as_bytes()), ["2 !invalid_row", "5 2 d"]);
}

#[test]
fn a_row_of_other_columns_says_how_many_lines_it_takes() {
    let message = failure("a.csv", b"id,text\n1,\"a\n2,b\",c\n", &options()).message;
    assert!(message.contains("the row has 3 columns on its 2 lines, the header has 2"), "{message}");
}

#[test]
fn an_invalid_header_is_one_failure_of_the_input() {
    let long = format!("id,{}\n1,a\n2,b\n", "x".repeat(options().max_row_bytes()));
    for (bytes, problem) in [
        (b"id,\"text\n1,a\n".as_slice(), "its header, line 1, opens a quote that is never closed"),
        (long.as_bytes(), "is longer than"),
        (b"id,\"te\"xt\n1,a\n", "text after a closing quote"),
        (b"id,te\xffxt\n1,a\n", "not UTF-8"),
        (b"text,id,text\n1,a,b\n", "names two columns `text`, the 1. and the 3."),
    ] {
        let (items, failure) = read_to_failure("a.csv", bytes);
        assert!(items.is_empty() && failure.is_final());
        assert!(failure.to_string().contains(problem), "{failure}");
    }
}

#[test]
fn two_columns_of_one_name_are_remarked_on_unless_one_of_them_would_be_lost() {
    let text = "text,x,x\na,b,c\n";
    let mut twice = reader("a.csv", Cursor::new(text), &options());
    assert!(twice.find_next().unwrap().is_some());
    assert_eq!(twice.remarks(), ["its header, line 1, names two columns `x`, the 2. and the 3."]);
    let keeping = ReaderOptions { keep: KeepFields::AsJson, ..options() };
    assert!(drain(reader("a.csv", Cursor::new(text), &keeping)).1.is_err());
}

#[test]
fn any_one_byte_may_separate_cells_and_a_first_line_may_say_which() {
    let with = |separator: &str, text: &str| {
        let separator = Some(separator.parse().unwrap());
        summary(&read_with("a.csv", text.as_bytes(), &ReaderOptions { separator, ..options() }))
    };
    assert_eq!(with(";", "id;text\n1;\"a;b\"\n"), ["2 1 a;b"]);
    assert_eq!(with("|", "id|text\n1|a,b\n"), ["2 1 a,b"]);
    assert_eq!(with("tab", "id\ttext\n1\ta,b\n"), ["2 1 a,b"]);
    assert_eq!(with("|", "sep=;\nid|text\n1|a\n"), ["3 1 a"]);
    assert_eq!(read("a.csv", "\u{feff}sep=;\r\nid;text\r\n1;a\r\n".as_bytes()), ["3 1 a"]);
    assert_eq!(read("a.csv", b"sep=,text\n1,a\n"), ["2 a.csv:2 a"]);
}

#[test]
fn a_quoted_header_after_a_byte_order_mark_is_understood() {
    assert_eq!(read("a.csv", "\u{feff}\"id\",\"text\"\n1,x\n".as_bytes()), ["2 1 x"]);
}

#[test]
fn every_bad_csv_row_is_one_failure_at_its_line() {
    let long = "x".repeat(options().max_row_bytes() + 1);
    let bytes = [
        b"id,text\n1,a,b\n2\n3,\xff\n4,\n".as_slice(),
        format!("5,{long}\n6,\"{long}\n{long}\"\n7,ok\n").as_bytes(),
    ]
    .concat();
    assert_eq!(
        read("a.csv", &bytes),
        [
            "2 !invalid_row",
            "3 !invalid_row",
            "4 !invalid_utf8",
            "5 !empty_text",
            "6 !text_too_long",
            "7 !text_too_long",
            "9 7 ok",
        ]
    );
}

#[test]
fn a_row_with_very_many_cells_is_a_failure_and_the_next_one_is_read() {
    let bytes = format!("text\n{}\nok\n", ",".repeat(20_000));
    assert_eq!(read("a.csv", bytes.as_bytes()), ["2 !text_too_long", "3 a.csv:3 ok"]);
}

#[test]
fn a_table_without_the_text_column_fails_row_by_row() {
    assert_eq!(read("a.csv", b"id,body\n1,a\n2,b\n"), ["2 !missing_field", "3 !missing_field"]);
    assert_eq!(read("a.csv", b"id,text\n"), [""; 0]);
    assert_eq!(read("a.csv", b""), [""; 0]);
}

#[test]
fn a_missing_field_is_reported_with_the_names_of_others_and_a_hint_for_a_lone_column() {
    let many: String = (0..10).map(|index| format!("\"k{index}\":1,")).collect();
    let message = failure("a.jsonl", format!("{{{many}\"last\":1}}").as_bytes(), &options()).message;
    assert!(message.contains("`k7`, 3 more;") && !message.contains("k8"), "{message}");
    let message = failure("a.csv", b"id;text\n1;a\n", &options()).message;
    assert!(message.contains("found: `id;text`; is the separator a comma?"), "{message}");
    let long = "long name ".repeat(9);
    let message = failure("a.csv", format!("{long}\nx\n").as_bytes(), &options()).message;
    assert!(!message.contains(&long), "{message}");
}

#[test]
fn a_quote_in_tsv_is_an_ordinary_character() {
    assert_eq!(read("a.tsv", b"text\tid\n\"open\t1\nshut\"\t2\n"), ["2 1 \"open", "3 2 shut\""]);
}
