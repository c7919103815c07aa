//! Whole files in, records and failures out.

mod tables;
mod whole_files;

use std::io::{Cursor, Read, Write};

use super::*;

fn options() -> ReaderOptions {
    ReaderOptions {
        text_field: "text".into(),
        id_field: None,
        language_fields: LanguageFields::default(),
        glossary_field: None,
        format: None,
        separator: None,
        keep: KeepFields::No,
        batch: BatchOptions::default(),
        max_text_bytes: 1000,
    }
}

type Items = Vec<Result<Record, RecordFailure>>;

/// All that a reader gives, and how it ended.
fn drain(mut reader: RecordReader) -> (Items, Result<(), InputFailure>) {
    let mut items = Vec::new();
    loop {
        match reader.find_next() {
            Ok(Some(found)) => items.push(found.read()),
            Ok(None) => return (items, Ok(())),
            Err(failure) => {
                assert!(reader.find_next().unwrap().is_none(), "a failure ends the file");
                return (items, Err(failure));
            }
        }
    }
}

fn reader(uri: &str, input: impl Read + Send + 'static, options: &ReaderOptions) -> RecordReader {
    RecordReader::new(uri, InputSource::Stream(Box::new(input)), options).unwrap()
}

fn read_to_failure(uri: &str, bytes: &[u8]) -> (Items, InputFailure) {
    let (items, end) = drain(reader(uri, Cursor::new(bytes.to_vec()), &options()));
    (items, end.unwrap_err())
}

fn read_with(uri: &str, bytes: &[u8], options: &ReaderOptions) -> Items {
    let (items, end) = drain(reader(uri, Cursor::new(bytes.to_vec()), options));
    end.unwrap();
    items
}

/// Each item in one line: `line id text` or `line !code`.
fn summary(items: &Items) -> Vec<String> {
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
fn fields_name_the_languages_of_a_record_and_an_empty_one_names_none() {
    let language_fields = LanguageFields { source: Some("from.code".into()), target: Some("to".into()) };
    let options = ReaderOptions { language_fields, ..options() };
    let lines = [
        r#"{"text":"a","from":{"code":"pt"},"to":"de"}"#,
        r#"{"text":"a","from":"pt","to":null}"#,
        r#"{"text":"a","to":" it "}"#,
        r#"{"text":"a","to":""}"#,
        r#"{"text":"a","to":7}"#,
    ];
    let languages = |items: Items| -> Vec<Result<[Option<String>; 2], String>> {
        let of_record = |record: Record| [record.languages.source, record.languages.target];
        items.into_iter().map(|item| item.map(of_record).map_err(|failure| failure.message)).collect()
    };
    let named =
        |source: Option<&str>, target: Option<&str>| Ok([source, target].map(|code| code.map(str::to_owned)));
    assert_eq!(
        languages(read_with("a.jsonl", lines.join("\n").as_bytes(), &options)),
        [
            named(Some("pt"), Some("de")),
            named(None, None),
            named(None, Some("it")),
            named(None, None),
            Err("field `to` is a number, expected a string".to_owned()),
        ]
    );
    let table = languages(read_with("a.csv", b"text,to\na,de\na,\n", &options));
    assert_eq!(table, [named(None, Some("de")), named(None, None)]);
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
fn the_last_of_repeated_fields_counts() {
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
        let mut reader = reader(uri, Cursor::new(text), &options());
        let mut found = Vec::new();
        while let Some(record) = reader.find_next().unwrap() {
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
    let options = ReaderOptions { keep: KeepFields::AsJson, ..options() };
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
        let (items, end) = drain(reader(uri, EndlessLine { num_bytes_left: 1 << 28 }, &options()));
        end.unwrap();
        assert_eq!(summary(&items), ["1 !text_too_long"]);
    }
    let endless = Cursor::new("text\n\"").chain(EndlessLine { num_bytes_left: 1 << 28 });
    let (items, end) = drain(reader("a.csv", endless, &options()));
    end.unwrap();
    assert_eq!(summary(&items), ["2 !invalid_row"]);
}

#[test]
fn every_text_line_is_a_record_a_blank_one_too() {
    assert_eq!(
        read("a.txt", b"\xef\xbb\xbfone\r\n\n two\n\xff\nthree"),
        ["1 a.txt:1 one", "2 a.txt:2 ", "3 a.txt:3  two", "4 !invalid_utf8", "5 a.txt:5 three"]
    );
    assert_eq!(read("a.txt", b""), [""; 0]);
}
