//! Archives, encodings and places: a file that cannot be read to its end fails as a whole.

use super::*;

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
