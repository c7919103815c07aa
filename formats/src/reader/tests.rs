//! Whole files in, records and failures out.

use std::io::{Cursor, Read, Write};

use super::*;

fn options() -> ReaderOptions {
    ReaderOptions {
        text_field: "text".into(),
        id_field: None,
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
fn zeros_after_a_gzip_file_are_padding_and_other_bytes_are_not() {
    let padded = [gzip(b"one\n"), vec![0; 100_000]].concat();
    assert_eq!(read("a.txt.gz", &padded), ["1 a.txt.gz:1 one"]);
    let padded_within = [gzip(b"one\n"), vec![0; 512], gzip(b"two\n"), vec![0; 1]].concat();
    assert_eq!(read("a.txt.gz", &padded_within), ["1 a.txt.gz:1 one", "2 a.txt.gz:2 two"]);
    let (items, failure) = read_to_failure("a.txt.gz", &[gzip(b"one\n"), b"rest".to_vec()].concat());
    assert_eq!(summary(&items), ["1 a.txt.gz:1 one"]);
    assert!(failure.to_string().contains("other bytes follow its gzip data"), "{failure}");
}

#[test]
fn an_archive_that_is_cut_or_corrupt_is_a_failure_of_the_input_that_says_how_much_was_read() {
    let lines: String =
        (0..20_000).map(|index| format!("line {index} {}\n", index * 7919 % 10_007)).collect();
    for (uri, whole) in
        [("a.txt.gz", gzip(lines.as_bytes())), ("a.txt.zst", zstd::encode_all(lines.as_bytes(), 3).unwrap())]
    {
        let (items, failure) = read_to_failure(uri, &whole[..whole.len() - 10]);
        assert!(!items.is_empty() && items.iter().all(Result::is_ok), "{uri}");
        assert_eq!((failure.rows_read, failure.line), (items.len() as u64, items.len() as u64 + 1), "{uri}");
        assert!(failure.is_final() && failure.num_bytes_read > 0);
        let message = failure.to_string();
        assert!(message.contains("data ends too early: the file is cut off"), "{message}");
        assert!(message.contains(&format!("its first {} rows", items.len())), "{message}");

        let mut corrupt = whole.clone();
        corrupt[whole.len() / 2] ^= 0x55;
        corrupt[whole.len() / 2 + 1] ^= 0x55;
        let (_, failure) = read_to_failure(uri, &corrupt);
        assert!(failure.is_final() && failure.to_string().contains("data is corrupt"), "{failure}");
    }
}

#[test]
fn a_file_with_the_wrong_name_for_its_content_is_a_failure_of_the_input() {
    for (uri, bytes, problem) in [
        ("a.txt.gz", b"plain text".as_slice(), "it is named `.gz`, but it is not compressed"),
        ("a.csv.zst", b"plain text", "it is named `.zst`, but it is not compressed"),
        ("a.jsonl.gz", b"PK\x03\x04....", "it is a zip archive"),
        ("a.jsonl.zst", b"\x1f\x8b\x08\0", "it is a gzip file"),
        ("a.jsonl.gz", b"\x1f\x8b", "cut off"),
        ("a.jsonl.gz", b"", "it is empty"),
        ("a.jsonl", b"\x1f\x8b\x08\0", "it is a gzip file, but its name does not say so: name it `.gz`"),
        ("a.csv", b"PK\x03\x04....", "it is a zip archive, not a text file"),
        ("a.txt", b"i\0d\0", "no text: 2 of its first 4 bytes are NUL"),
    ] {
        let (items, failure) = read_to_failure(uri, bytes);
        assert!(items.is_empty() && failure.is_final(), "{uri}");
        let message = failure.to_string();
        assert!(message.starts_with(&format!("{uri} cannot be read: ")), "{message}");
        assert!(message.contains(problem) && message.ends_with("no row of it was read"), "{message}");
    }
}

/// Gives some bytes and then fails as a place does.
struct BreakingOff(Cursor<Vec<u8>>);

impl Read for BreakingOff {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            num_bytes => Ok(num_bytes),
        }
    }
}

#[test]
fn a_place_that_fails_is_told_from_content_that_is_broken() {
    for (uri, bytes) in [("a.txt", b"one\ntwo\n".to_vec()), ("a.txt.gz", gzip(b"one\ntwo\n")[..20].to_vec())]
    {
        let (_, end) = drain(reader(uri, BreakingOff(Cursor::new(bytes)), &options()));
        let failure = end.unwrap_err();
        let InputFailureCause::Source(error) = &failure.cause else { panic!("{uri}: {failure}") };
        assert_eq!((error.kind(), failure.is_final()), (io::ErrorKind::ConnectionReset, false), "{uri}");
    }
}

#[test]
fn utf16_with_a_byte_order_mark_is_read() {
    let text = "\u{feff}id,text\r\n1,perch\u{e9} \u{1f389}\r\n";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read("a.csv", &bytes), ["2 1 perch\u{e9} \u{1f389}"]);
}

#[test]
fn a_nul_byte_fails_its_row_alone() {
    let text = "x".repeat(200);
    let bytes = format!("{text}\na\0b\n{text}\n");
    assert_eq!(read("a.txt", bytes.as_bytes())[1], "2 !invalid_row");
}

#[test]
fn a_path_names_a_field_inside_another() {
    let options = ReaderOptions {
        text_field: "doc.body.0.text".into(),
        id_field: Some("meta.key".into()),
        ..options()
    };
    let line = br#"{"doc":{"body":[{"text":"x\u00e9"}]},"meta":{"key":7}}"#;
    assert_eq!(summary(&read_with("a.jsonl", line, &options)), ["1 7 x\u{e9}"]);
    let dotted = ReaderOptions { text_field: "a.b".into(), ..self::options() };
    let lines = b"{\"a.b\":\"plain\",\"a\":{\"b\":\"inner\"}}\n{\"a\":{\"b\":\"inner\"}}\n{\"a\":1}\n";
    assert_eq!(
        summary(&read_with("a.jsonl", lines, &dotted)),
        ["1 a.jsonl:1 plain", "2 a.jsonl:2 inner", "3 !missing_field"]
    );
}

#[test]
fn half_a_surrogate_pair_is_named_with_its_column() {
    let message = failure("a.jsonl", br#"{"id":1,"text":"a\ud83d!"}"#, &options()).message;
    assert!(message.starts_with("column 18 has \\ud83d, half of a surrogate pair"), "{message}");
    let bad = read_with("a.jsonl", br#"{"te\ude00xt":"a"}"#, &options());
    assert!(bad[0].as_ref().unwrap_err().message.starts_with("column 5 has"), "{bad:?}");
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
fn the_sizes_of_reads_make_no_difference() {
    let files = [
        ("a.jsonl", "\u{feff}{\"text\":\"é\"}\r\n\n{\"text\":\"b\"}"),
        ("a.csv", "\u{feff}\"text\",id\r\n\"a\r\nb\",1\r\n\r\nc,2\r\n"),
        ("a.tsv", "text\tid\na\t1\n\nb\t2"),
        ("a.txt", "a\r\n\r\nb"),
    ];
    for (uri, text) in files {
        let trickle = Trickle { bytes: Cursor::new(text.as_bytes().to_vec()), interrupt: false };
        let (trickled, end) = drain(reader(uri, trickle, &options()));
        end.unwrap();
        assert_eq!(summary(&trickled), read(uri, text.as_bytes()), "{uri}");
    }
}
