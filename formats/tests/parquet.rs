//! Parquet files of other libraries, written by `scripts/parquet_fixtures.py`; damaged files; and large
//! files in little memory.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use baton_formats::{
    BatchOptions, CheckError, FailureCode, FinishReason, InputFailure, InputFailureCause, InputSource,
    KeepFields, KeptColumns, LanguageFields, OutputRow, PartFormat, PartOptions, RangedRead, ReaderOptions,
    Record, RecordFailure, RecordReader, RowFile, check_fields,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

/// Files that have the columns of `expected.json`, or some of them.
const WRITERS: [&str; 8] = [
    "pyarrow-v1-snappy",
    "pyarrow-v2-zstd",
    "pyarrow-gzip",
    "pandas",
    "polars",
    "duckdb",
    "fastparquet",
    "spark-snappy",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(path(&format!("{name}.parquet"))).unwrap()
}

fn options(keep: KeepFields) -> ReaderOptions {
    ReaderOptions {
        text_field: "text".into(),
        id_field: None,
        language_fields: LanguageFields::default(),
        glossary_field: None,
        format: None,
        separator: None,
        keep,
        batch: BatchOptions::default(),
        max_text_bytes: 100_000,
    }
}

/// A file in memory.
struct InMemory(Vec<u8>);

impl RangedRead for InMemory {
    fn num_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = start as usize;
        let bytes = self.0.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

fn source(bytes: Vec<u8>) -> InputSource {
    InputSource::Ranged(Box::new(InMemory(bytes)))
}

type Items = Vec<Result<Record, RecordFailure>>;

fn read(bytes: Vec<u8>, options: &ReaderOptions) -> (Items, Result<(), InputFailure>) {
    let mut reader = RecordReader::new("a.parquet", source(bytes), options).unwrap();
    let mut items = Vec::new();
    loop {
        match reader.find_next() {
            Ok(Some(found)) => items.push(found.read()),
            Ok(None) => return (items, Ok(())),
            Err(failure) => return (items, Err(failure)),
        }
    }
}

fn read_whole(bytes: Vec<u8>, options: &ReaderOptions) -> Items {
    let (items, end) = read(bytes, options);
    end.unwrap();
    items
}

fn columns(name: &str) -> KeptColumns {
    check_fields("a.parquet", source(fixture(name)), &options(KeepFields::AsJson)).unwrap().unwrap()
}

fn expected() -> Vec<Map<String, Value>> {
    serde_json::from_slice(&std::fs::read(path("expected.json")).unwrap()).unwrap()
}

/// A time as text, without trailing zeros and without the zone, which is always UTC.
fn moment(value: &Value) -> &str {
    value.as_str().unwrap().trim_end_matches('Z').trim_end_matches('0')
}

fn object(record: &Record) -> Map<String, Value> {
    serde_json::from_value(serde_json::to_value(&record.fields).unwrap()).unwrap()
}

#[test]
fn files_of_every_writer_give_the_rows_that_were_written() {
    let rows = expected();
    for name in WRITERS {
        let items = read_whole(fixture(name), &options(KeepFields::AsJson));
        assert_eq!(items.len(), rows.len(), "{name}");
        for (number, (item, row)) in items.iter().zip(&rows).enumerate() {
            let place = format!("{name}, row {}", number + 1);
            let record = match (item, &row["text"]) {
                (Err(failure), Value::Null) => {
                    assert_eq!(failure.code, FailureCode::WrongType, "{place}");
                    assert_eq!(failure.message, "field `text` is null, expected a string", "{place}");
                    assert_eq!(failure.id, Some(row["id"].to_string()), "{place}");
                    assert_eq!(failure.source.line, number as u64 + 1, "{place}");
                    continue;
                }
                (item, _) => item.as_ref().unwrap(),
            };
            assert_eq!(
                (&record.id, &record.text[..]),
                (&row["id"].to_string(), row["text"].as_str().unwrap())
            );
            let mut fields = object(record);
            let when = fields.remove("when").unwrap();
            assert_eq!(moment(&when), moment(&row["when"]), "{place}");
            fields.remove("key"); // the index of pandas
            assert!(fields.contains_key("score") && !fields.contains_key("id"), "{place}");
            for (column, value) in fields {
                assert_eq!(value, row[&column], "{place}, {column}");
            }
        }
    }
}

#[test]
fn typed_columns_reach_a_part_with_their_types_and_values() {
    for name in WRITERS.into_iter().chain(["pyarrow-kinds-lz4"]) {
        let kept = columns(name);
        let as_json = read_whole(fixture(name), &options(KeepFields::AsJson));
        let as_columns = read_whole(fixture(name), &options(KeepFields::AsColumns(kept.clone())));
        let parts = PartOptions {
            format: "parquet".parse().unwrap(),
            keep: KeepFields::AsColumns(kept.clone()),
            ..PartOptions::default()
        };
        let records: Vec<&Record> = as_columns.iter().flatten().collect();
        let rows: Vec<OutputRow> = records.iter().map(|record| output_row(record)).collect();
        let part = parts.part(&rows).unwrap();
        assert!(part == parts.part(&rows).unwrap(), "{name}: the same rows make the same bytes");

        let typed = check_fields(
            "part.parquet",
            source(part.clone()),
            &ReaderOptions { text_field: "output".into(), ..options(KeepFields::AsJson) },
        );
        let typed = typed.unwrap().unwrap();
        assert_eq!(typed.merged(&kept).unwrap(), typed, "{name}: names and types are those of the input");

        let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
        std::fs::write(file.path(), &part).unwrap();
        let found: Vec<Map<String, Value>> =
            RowFile::open(file.path()).unwrap().map(|row| row.unwrap().1).collect();
        let wanted: Vec<Map<String, Value>> = as_json.iter().flatten().map(object).collect();
        assert_eq!(found.len(), wanted.len(), "{name}");
        for (found, wanted) in found.iter().zip(&wanted) {
            for (column, value) in wanted {
                let taken = found.get(&format!("fields.{column}"));
                assert_eq!(taken.unwrap_or(&found[column]), value, "{name}, {column}");
            }
        }

        let read: Vec<OutputRow> = parts
            .format
            .reader(Box::new(io::Cursor::new(part.clone())))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(parts.part(&read).unwrap() == part, "{name}: what was read makes the same part");
    }
}

fn output_row(record: &Record) -> OutputRow {
    OutputRow {
        id: record.id.clone(),
        output: record.text.to_uppercase(),
        score: -0.25,
        prompt_tokens: 3,
        llm_prompt_tokens: 0,
        output_tokens: 2,
        finish_reason: FinishReason::Stop,
        warnings: Vec::new(),
        quality: None,
        signals: None,
        tier: None,
        alternatives: Vec::new(),
        origin: None,
        fields: record.fields.clone(),
    }
}

#[test]
fn every_kind_of_string_is_a_text_and_other_types_have_a_form_in_json() {
    let items = read_whole(fixture("pyarrow-kinds-lz4"), &options(KeepFields::AsJson));
    let record = items[12].as_ref().unwrap();
    assert_eq!((record.id.as_str(), &expected()[12]["text"]), ("12", &Value::from(record.text.clone())));
    let fields = object(record);
    let field = |name: &str| fields[name].to_string().trim_matches('"').to_owned();
    assert_eq!(field("view"), record.text);
    assert_eq!((field("price").as_str(), field("day").as_str()), ("1.500", "2026-03-02"));
    assert!(field("when").starts_with("2026-03-02T"), "{}", field("when"));
    assert_eq!((field("counts"), field("vector")), (r#"{"k":12}"#.into(), "[1.5,12.0]".into()));
    assert_eq!((field("nothing"), field("even")), ("null".into(), "true".into()));
    for text_field in ["view", "raw"] {
        let options = ReaderOptions { text_field: text_field.into(), ..options(KeepFields::No) };
        let items = read_whole(fixture("pyarrow-kinds-lz4"), &options);
        assert_eq!(items[12].as_ref().unwrap().text, record.text, "{text_field}");
    }
}

#[test]
fn a_path_names_a_field_of_a_struct_an_item_of_a_list_or_a_value_of_a_map() {
    let rows = expected();
    for name in ["pyarrow-v2-zstd", "pandas", "polars", "duckdb", "spark-snappy"] {
        let options = ReaderOptions {
            text_field: "doc.body".into(),
            id_field: Some("doc.page".into()),
            ..options(KeepFields::No)
        };
        let record = read_whole(fixture(name), &options)[25].as_ref().unwrap().clone();
        let doc = &rows[25]["doc"];
        assert_eq!(
            (record.id, record.text.as_str()),
            (doc["page"].to_string(), doc["body"].as_str().unwrap())
        );
    }
    let tags = ReaderOptions { text_field: "tags.1".into(), ..options(KeepFields::No) };
    let items = read_whole(fixture("duckdb"), &tags);
    assert_eq!(items[2].as_ref().unwrap().text, "t1");
    assert_eq!(items[1].as_ref().unwrap_err().code, FailureCode::MissingField, "there is one item only");
    let counts = ReaderOptions { id_field: Some("counts.k".into()), ..options(KeepFields::No) };
    assert_eq!(read_whole(fixture("pyarrow-kinds-lz4"), &counts)[9].as_ref().unwrap().id, "9");
}

#[test]
fn a_wrong_column_is_named_with_all_columns_that_there_are() {
    let look = |text_field: &str, name: &str| {
        let options = ReaderOptions { text_field: text_field.into(), ..options(KeepFields::No) };
        check_fields("a.parquet", source(fixture(name)), &options)
    };
    let Err(CheckError::Field(wrong)) = look("body", "duckdb") else { panic!("there is no such column") };
    let columns = ["doc", "id", "lang", "score", "tags", "text", "when"].map(|name| format!("`{name}`"));
    assert_eq!(wrong.found, columns);
    assert!(matches!(look("doc.title", "duckdb"), Err(CheckError::Field(_))));
    look("doc.body", "duckdb").unwrap();
    look("text", "pyarrow-no-rows").unwrap();
    assert_eq!(read_whole(fixture("pyarrow-no-rows"), &options(KeepFields::No)).len(), 0);
}

#[test]
fn a_file_that_is_no_parquet_file_or_is_cut_off_is_a_failure_of_the_input() {
    let failure = |bytes: Vec<u8>| match read(bytes, &options(KeepFields::No)) {
        (items, Err(InputFailure { cause: InputFailureCause::Content(message), .. })) => {
            (items.len(), message)
        }
        (items, end) => panic!("{} rows, {end:?}", items.len()),
    };
    for (bytes, piece) in [
        (Vec::new(), "it is not a Parquet file, it is empty"),
        (b"{\"text\":\"x\"}\n".to_vec(), "it does not begin with PAR1"),
        (vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0], "it is not a Parquet file, it is a gzip file"),
        (b"PARE....PARE".to_vec(), "encrypted"),
        (b"PAR1".to_vec(), "its Parquet data"),
    ] {
        let (num_rows, message) = failure(bytes);
        assert!(num_rows == 0 && message.contains(piece), "{message}");
    }
    let whole = fixture("pyarrow-v1-snappy");
    for num_bytes in (4..whole.len()).step_by(whole.len() / 40) {
        assert_eq!(failure(whole[..num_bytes].to_vec()).0, 0, "without its footer nothing of it is known");
    }
}

#[test]
fn damage_anywhere_ends_in_rows_or_in_a_failure_of_the_input() {
    for name in ["pyarrow-v1-snappy", "duckdb", "spark-snappy"] {
        let whole = fixture(name);
        for place in (4..whole.len()).step_by(97) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            let (items, end) = read(bytes, &options(KeepFields::AsJson));
            if let Err(failure) = end {
                assert!(matches!(failure.cause, InputFailureCause::Content(_)), "{failure}");
                assert_eq!(failure.rows_read, items.len() as u64);
            }
        }
    }
}

#[test]
fn pages_with_checksums_do_not_give_other_rows_once_they_are_damaged() {
    let name = "pyarrow-v2-zstd";
    let whole = fixture(name);
    let rows = read_whole(whole.clone(), &options(KeepFields::AsJson));
    let footer_len = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
    let mut num_found = 0;
    for place in (4..whole.len() - 8 - footer_len).step_by(13) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        match read(bytes, &options(KeepFields::AsJson)) {
            (items, Ok(())) => assert!(items == rows, "byte {place} changed rows unseen"),
            (_, Err(_)) => num_found += 1,
        }
    }
    assert!(num_found > 100, "{num_found}");
}

#[test]
fn a_disk_that_fails_is_no_damage() {
    struct Failing(InMemory);
    impl RangedRead for Failing {
        fn num_bytes(&self) -> u64 {
            self.0.num_bytes()
        }

        fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
            match (8..self.num_bytes() / 2).contains(&start) {
                true => Err(io::Error::other("the disk")),
                false => self.0.read_at(start, buffer),
            }
        }
    }
    let failing = InputSource::Ranged(Box::new(Failing(InMemory(fixture("duckdb")))));
    let mut reader = RecordReader::new("a.parquet", failing, &options(KeepFields::AsJson)).unwrap();
    let failure = loop {
        match reader.find_next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the disk fails"),
            Err(failure) => break failure,
        }
    };
    let InputFailureCause::Source(error) = failure.cause else { panic!("{failure}") };
    assert_eq!(error.to_string(), "the disk");
}

/// One row group of `num_rows` texts, each of 8 KiB; pages of a megabyte. Zeros compress well.
fn large_file(num_rows: usize, distinct: usize) -> Vec<u8> {
    let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_dictionary_enabled(distinct < num_rows)
        .set_dictionary_page_size_limit(32 << 20)
        .build();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, Arc::clone(&schema), Some(properties)).unwrap();
    for start in (0..num_rows).step_by(256) {
        let texts = (start..start + 256).map(|row| format!("{:08192}", row % distinct));
        let texts = StringArray::from_iter_values(texts);
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).unwrap()).unwrap();
    }
    writer.close().unwrap();
    file
}

#[test]
fn a_large_row_group_is_read_in_little_memory() {
    const NUM_ROWS: usize = 8192; // 64 MiB
    for distinct in [NUM_ROWS, 100] {
        let file = large_file(NUM_ROWS, distinct);
        let in_file = file.len() as u64;
        let mut num_rows = 0;
        let info = allocation_counter::measure(|| {
            let mut reader = RecordReader::new("a.parquet", source(file), &options(KeepFields::No)).unwrap();
            while let Some(found) = reader.find_next().unwrap() {
                num_rows += usize::from(found.read().unwrap().text.len() == 8192);
            }
        });
        assert_eq!(num_rows, NUM_ROWS);
        let max = info.bytes_max - in_file.min(info.bytes_max);
        assert!(max < 24 << 20, "{max} bytes at once with {distinct} texts");
    }
}

#[test]
fn a_row_that_is_too_long_is_a_failure_and_those_around_it_are_records() {
    let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]));
    let texts =
        StringArray::from(vec![Some("one".to_owned()), Some("x".repeat(900_000)), Some("three".into())]);
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let items = read_whole(file, &options(KeepFields::No));
    let codes: Vec<Option<FailureCode>> =
        items.iter().map(|item| item.as_ref().err().map(|failure| failure.code)).collect();
    assert_eq!(codes, [None, Some(FailureCode::TextTooLong), None]);
}

#[test]
fn rows_of_a_local_file_are_read_in_any_format() {
    let directory = tempfile::tempdir().unwrap();
    let rows = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        RowFile::open(&path)
            .unwrap()
            .map(|row| row.map(|(line, fields)| (line, Value::from(fields))))
            .collect::<Result<Vec<_>, _>>()
    };
    let expected = vec![(2, serde_json::json!({ "id": "1", "text": "a" }))];
    assert_eq!(rows("a.csv", b"id,text\n1,a\n").unwrap(), expected);
    assert_eq!(rows("a.jsonl", b"\n{\"id\":\"1\",\"text\":\"a\"}\n").unwrap(), expected);
    assert_eq!(rows("without-suffix", b"\n{\"id\":\"1\",\"text\":\"a\"}\n").unwrap(), expected);
    assert_eq!(rows("a.jsonl.zst", b"").unwrap(), []);
    assert_eq!(rows("a.parquet", &fixture("duckdb")).unwrap().len(), 60);
    let error = rows("b.jsonl", b"{}\n[1]\n").unwrap_err().to_string();
    assert!(error.ends_with("b.jsonl:2: the line is JSON but not an object"), "{error}");
    assert!(rows("b.parquet", b"PAR1").is_err());
}

/// The committed file has every column of a part, and shows whether another version of the library writes
/// other bytes. `BATON_WRITE_FIXTURES=1` writes the file anew, and `scripts/parquet_fixtures.py check` reads
/// it with other libraries.
#[test]
fn the_bytes_of_a_part_are_those_that_were_written_before() {
    let kept = columns("pyarrow-v2-zstd");
    let records = read_whole(fixture("pyarrow-v2-zstd"), &options(KeepFields::AsColumns(kept.clone())));
    let parts = PartOptions {
        format: "parquet".parse().unwrap(),
        has_origin: true,
        has_alternatives: true,
        keep: KeepFields::AsColumns(kept),
        ..PartOptions::default()
    };
    let rows: Vec<OutputRow> = records
        .iter()
        .flatten()
        .map(|record| OutputRow {
            origin: Some(record.source.clone()),
            warnings: if record.source.line % 9 == 1 { vec!["name".into()] } else { Vec::new() },
            alternatives: vec![baton_formats::Alternative {
                output: record.text.to_lowercase(),
                score: -0.5,
                output_tokens: 4,
                finish_reason: FinishReason::Length,
            }],
            ..output_row(record)
        })
        .collect();
    let part = parts.part(&rows).unwrap();
    let file = path("part.parquet");
    if std::env::var_os("BATON_WRITE_FIXTURES").is_some() {
        std::fs::write(&file, &part).unwrap();
    }
    assert!(part == std::fs::read(&file).unwrap(), "the writer makes other bytes; see BATON_WRITE_FIXTURES");
    let format = PartFormat::of_file("part.parquet", None).unwrap();
    let read: Vec<OutputRow> =
        format.reader(Box::new(io::Cursor::new(part.clone()))).unwrap().map(Result::unwrap).collect();
    assert!(parts.part(&read).unwrap() == part);
}
