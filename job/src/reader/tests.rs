//! Whole files in, records and failures out.

use std::io::{Cursor, Write};

use super::*;

fn options() -> ReaderOptions {
    ReaderOptions {
        text_field: "text".into(),
        id_field: None,
        format: None,
        keep_fields: false,
        max_text_bytes: 1000,
    }
}

fn read_with(uri: &str, bytes: &[u8], options: &ReaderOptions) -> Vec<Result<Record, RecordFailure>> {
    RecordReader::new(uri, Box::new(Cursor::new(bytes.to_vec())), options).unwrap().collect()
}

/// Each item in one line: `line id text` or `line !code`.
fn summary(items: &[Result<Record, RecordFailure>]) -> Vec<String> {
    let one = |item: &Result<Record, RecordFailure>| match item {
        Ok(record) => format!("{} {} {}", record.source.line, record.id, record.text),
        Err(failure) => format!("{} !{}", failure.source.line, failure.code),
    };
    items.iter().map(one).collect()
}

fn read(uri: &str, bytes: &[u8]) -> Vec<String> {
    summary(&read_with(uri, bytes, &options()))
}

fn failure(uri: &str, bytes: &[u8], options: &ReaderOptions) -> RecordFailure {
    let mut items = read_with(uri, bytes, options);
    assert_eq!(items.len(), 1, "{:?}", summary(&items));
    items.remove(0).unwrap_err()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn jsonl_lines_are_records_and_blank_lines_are_not() {
    let bytes = "{\"id\":\"x\",\"text\":\"one\"}\n\n  \r\n{\"custom_id\":7,\"text\":\"two\"}\r\n{\"id\":null,\"text\":\" three \"}";
    assert_eq!(read("a.jsonl", bytes.as_bytes()), ["1 x one", "4 7 two", "5 a.jsonl:5  three "]);
}

#[test]
fn every_bad_jsonl_line_is_one_failure_at_its_line() {
    let bytes = b"{\"text\":\n[1]\n{\"id\":\"a\"}\n{\"text\":3}\n{\"text\":\" \\n\"}\n{\"text\":\"\xff\"}\n{\"text\":\"\\ud800\"}\n{\"text\":\"ok\"}\n";
    assert_eq!(
        read("a.jsonl", bytes),
        [
            "1 !invalid_json",
            "2 !wrong_type",
            "3 !missing_field",
            "4 !wrong_type",
            "5 !empty_text",
            "6 !invalid_utf8",
            "7 !invalid_json",
            "8 a.jsonl:8 ok",
        ]
    );
}

#[test]
fn a_failure_keeps_the_id_and_never_quotes_the_text() {
    let cases = [
        (r#"{"id":"x","text":["secret"]}"#, Some("x"), "field `text` is an array, expected a string"),
        (
            r#"{"id":"x","body":"secret"}"#,
            Some("x"),
            "no field `text`, found: `id`, `body`; name it with --text-field or `text_field`",
        ),
        (r#""secret""#, None, "the line is JSON but not an object"),
        (r#"{"text":"secret" "x"}"#, None, "not JSON at column 18: expected `,` or `}`"),
    ];
    for (line, id, message) in cases {
        let failure = failure("a.jsonl", line.as_bytes(), &options());
        assert_eq!((failure.id.as_deref(), failure.message.as_str()), (id, message));
    }
}

#[test]
fn an_id_field_that_was_asked_for_must_be_there() {
    let options = ReaderOptions { id_field: Some("key".into()), ..options() };
    assert_eq!(failure("a.jsonl", b"{\"id\":1,\"text\":\"x\"}", &options).code, FailureCode::MissingField);
    assert_eq!(failure("a.jsonl", b"{\"key\":[],\"text\":\"x\"}", &options).code, FailureCode::WrongType);
    assert_eq!(summary(&read_with("a.jsonl", b"{\"key\":1.5,\"text\":\"x\"}", &options)), ["1 1.5 x"]);
}

#[test]
fn a_numeric_id_keeps_its_digits() {
    for id in ["9007199254740993", "123456789012345678901234567890", "1.10", "-0", "1e400"] {
        let line = format!("{{\"id\":{id},\"text\":\"x\"}}");
        assert_eq!(read("a.jsonl", line.as_bytes()), [format!("1 {id} x")]);
    }
}

#[test]
fn of_a_repeated_field_the_last_counts() {
    assert_eq!(read("a.jsonl", br#"{"text":"a","id":1,"text":"b","id":2}"#), ["1 2 b"]);
}

#[test]
fn a_record_can_be_passed_over_and_weighs_its_row() {
    let files = [
        ("a.jsonl", "{\"text\":\n\n{\"text\":\"x\"}", vec![8, 12]),
        ("a.txt", "abc\r\n\nd\n", vec![3, 0, 1]),
        ("a.csv", "id,text\n1,\"a\"\"b\"\n2\n", vec![4, 1]),
    ];
    for (uri, text, expected) in files {
        let mut reader = RecordReader::new(uri, Box::new(Cursor::new(text)), &options()).unwrap();
        let mut found = Vec::new();
        while let Some(record) = reader.find_next() {
            found.push(record.num_bytes());
        }
        assert_eq!(found, expected, "{uri}");
    }
}

#[test]
fn the_text_field_may_serve_as_the_id() {
    let options = ReaderOptions { text_field: "id".into(), ..options() };
    assert_eq!(summary(&read_with("a.jsonl", b"{\"id\":\"x\"}", &options)), ["1 x x"]);
}

#[test]
fn all_fields_but_the_id_are_kept_in_order_when_asked_for() {
    let options = ReaderOptions { keep_fields: true, ..options() };
    let items = read_with("a.jsonl", br#"{"z":1,"id":"x","text":"t","a":{"b":null}}"#, &options);
    let record = items[0].as_ref().unwrap();
    assert_eq!(serde_json::to_string(&record.fields).unwrap(), r#"{"z":1,"text":"t","a":{"b":null}}"#);
    assert_eq!(record.payload_num_bytes(), 1 + 1 + 33);
}

#[test]
fn a_text_over_the_limit_and_a_line_over_the_hard_limit_are_failures() {
    let hard_limit = options().max_row_bytes();
    let text_over = format!("{{\"text\":\"{}\"}}", "x".repeat(1001));
    let just_fits = format!("{{\"text\":\"x\"{}}}", " ".repeat(hard_limit - 12));
    let line_over = format!("{{\"text\":\"x\"{}}}", " ".repeat(hard_limit - 11));
    let bytes = format!("{text_over}\n{just_fits}\n{line_over}\n{{\"text\":\"ok\"}}\n{line_over}");
    assert_eq!(
        read("a.jsonl", bytes.as_bytes()),
        ["1 !text_too_long", "2 a.jsonl:2 x", "3 !text_too_long", "4 a.jsonl:4 ok", "5 !text_too_long"]
    );
}

/// A line without an end, longer than memory.
struct EndlessLine {
    num_bytes_left: u64,
}

impl Read for EndlessLine {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.num_bytes_left).unwrap());
        buffer[..len].fill(b'x');
        self.num_bytes_left -= len as u64;
        Ok(len)
    }
}

#[test]
fn an_endless_line_is_skipped_without_being_held() {
    for uri in ["a.jsonl", "a.txt"] {
        let input = Box::new(EndlessLine { num_bytes_left: 1 << 28 });
        let mut reader = RecordReader::new(uri, input, &options()).unwrap();
        assert_eq!(reader.next().unwrap().unwrap_err().code, FailureCode::TextTooLong);
        assert!(reader.next().is_none());
    }
    let input = Box::new(Cursor::new("text\n\"").chain(EndlessLine { num_bytes_left: 1 << 28 }));
    let mut reader = RecordReader::new("a.csv", input, &options()).unwrap();
    let failure = reader.next().unwrap().unwrap_err();
    assert_eq!((failure.code, failure.source.line), (FailureCode::InvalidRow, 2));
    assert!(reader.next().is_none());
}

#[test]
fn every_text_line_is_a_record_and_a_blank_one_an_empty_text() {
    assert_eq!(
        read("a.txt", b"\xef\xbb\xbfone\r\n\n two\n\xff\nthree"),
        ["1 a.txt:1 one", "2 !empty_text", "3 a.txt:3  two", "4 !invalid_utf8", "5 a.txt:5 three"]
    );
    assert_eq!(read("a.txt", b""), [""; 0]);
}

#[test]
fn csv_cells_may_be_quoted_and_hold_line_breaks() {
    let bytes = "\u{feff}id,text\r\n1,\"a, \"\"b\"\"\nc\"\r\n\r\n\n2,d\r\n3,\"e\r\nf\"\n4,g";
    assert_eq!(read("a.csv", bytes.as_bytes()), ["2 1 a, \"b\"\nc", "6 2 d", "7 3 e\r\nf", "9 4 g"]);
}

#[test]
fn a_quote_that_is_never_closed_does_not_pass_for_a_text() {
    assert_eq!(read("a.csv", b"id,text\n1,a\n2,\"b\n3,c\n4,d\n"), ["2 1 a", "3 !invalid_row"]);
    assert_eq!(read("a.csv", b"id,text\n1,\"closed\""), ["2 1 closed"]);
}

#[test]
fn a_broken_header_fails_at_its_line_and_so_does_every_row() {
    assert_eq!(read("a.csv", b"id,\"text\n1,a\n"), ["1 !invalid_row"]);
    let bytes = format!("id,{}\n1,a\n2,b\n", "x".repeat(options().max_row_bytes()));
    assert_eq!(read("a.csv", bytes.as_bytes()), ["1 !text_too_long", "2 !invalid_row", "3 !invalid_row"]);
}

#[test]
fn a_quoted_header_behind_a_byte_order_mark_is_understood() {
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

#[test]
fn compressed_files_may_have_many_members() {
    let (first, second) = (b"one\ntw".as_slice(), b"o\nthree\n".as_slice());
    let expected = ["1 a.txt:1 one", "2 a.txt:2 two", "3 a.txt:3 three"].map(String::from);
    let gzipped = [gzip(first), gzip(second)].concat();
    assert_eq!(read("a.txt.gz", &gzipped), expected.clone().map(|line| line.replace("a.txt", "a.txt.gz")));
    let zstd = [zstd::encode_all(first, 3).unwrap(), zstd::encode_all(second, 3).unwrap()].concat();
    assert_eq!(read("a.txt.zst", &zstd), expected.map(|line| line.replace("a.txt", "a.txt.zst")));
}

#[test]
fn a_truncated_archive_keeps_what_was_read_and_ends_in_one_failure() {
    let lines: String =
        (0..20_000).map(|index| format!("line {index} {}\n", index * 7919 % 10_007)).collect();
    for (uri, whole) in
        [("a.txt.gz", gzip(lines.as_bytes())), ("a.txt.zst", zstd::encode_all(lines.as_bytes(), 3).unwrap())]
    {
        let items = read_with(uri, &whole[..whole.len() - 10], &options());
        let (last, kept) = items.split_last().unwrap();
        assert!(!kept.is_empty() && kept.iter().all(Result::is_ok), "{uri}");
        let failure = last.as_ref().unwrap_err();
        assert_eq!(
            (failure.code, failure.source.line),
            (FailureCode::InputTruncated, kept.len() as u64 + 1),
            "{uri}"
        );
    }
}

#[test]
fn what_is_no_archive_at_all_is_one_failure() {
    for (uri, bytes) in
        [("a.txt.gz", b"plain text".as_slice()), ("a.csv.zst", b"plain text"), ("a.jsonl.gz", b"\x1f\x8b")]
    {
        let failure = failure(uri, bytes, &options());
        assert_eq!((failure.code, failure.source.line), (FailureCode::InputTruncated, 1), "{uri}");
    }
}

/// Yields one byte at a time, interrupted before each.
struct Trickle {
    bytes: Cursor<Vec<u8>>,
    interrupt: bool,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            Err(io::ErrorKind::Interrupted.into())
        } else {
            self.bytes.read(&mut buffer[..1])
        }
    }
}

#[test]
fn how_bytes_arrive_makes_no_difference() {
    let files = [
        ("a.jsonl", "\u{feff}{\"text\":\"é\"}\r\n\n{\"text\":\"b\"}"),
        ("a.csv", "\u{feff}\"text\",id\r\n\"a\r\nb\",1\r\n\r\nc,2\r\n"),
        ("a.tsv", "text\tid\na\t1\n\nb\t2"),
        ("a.txt", "a\r\n\r\nb"),
    ];
    for (uri, text) in files {
        let trickle = Trickle { bytes: Cursor::new(text.as_bytes().to_vec()), interrupt: false };
        let trickled: Vec<_> = RecordReader::new(uri, Box::new(trickle), &options()).unwrap().collect();
        assert_eq!(summary(&trickled), read(uri, text.as_bytes()), "{uri}");
    }
}
