//! The number of requests to read a file, and the rows of failed records in a collected file.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_generation::QualityColumns;
use baton_quality::Signals;
use bytes::Bytes;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::schema::printer::print_schema;
use serde_json::{Map, json};

use super::chunks::Chunks;
use super::*;
use crate::{
    FailureCode, FinishReason, KeepFields, KeptFields, OutputRow, PartFormat, RangedRead, RecordFailure,
    RecordSource, WriteOptions,
};

/// Counts reads and their bytes. Each byte is the lowest byte of its position.
struct Counting {
    num_bytes: u64,
    reads: Arc<(AtomicU64, AtomicU64)>,
}

impl RangedRead for Counting {
    fn num_bytes(&self) -> u64 {
        self.num_bytes
    }

    fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.0.fetch_add(1, Ordering::Relaxed);
        self.reads.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        (start..).zip(buffer).for_each(|(place, byte)| *byte = place as u8);
        Ok(())
    }
}

#[test]
fn pages_of_several_columns_in_turns_cost_few_requests_and_no_byte_twice() {
    let reads = Arc::default();
    let chunks = Chunks::new(Box::new(Counting { num_bytes: 6 << 20, reads: Arc::clone(&reads) }));
    let ranges = [(4, 2 << 20), (2 << 20, 4 << 20)];
    chunks.expect(ranges.into_iter(), 2);
    const PAGE: u64 = 1000;
    for page in 0..2000 {
        for (start, _) in ranges {
            let place = start + page * PAGE;
            let mut header = [0; 16];
            chunks.get_read(place).unwrap().read_exact(&mut header).unwrap();
            assert_eq!(header[..2], [place as u8, (place + 1) as u8]);
            let body = chunks.get_bytes(place + 16, PAGE as usize - 16).unwrap();
            assert!((place + 16..).zip(&body).all(|(place, byte)| *byte == place as u8));
        }
    }
    let (num_reads, num_bytes) = (reads.0.load(Ordering::Relaxed), reads.1.load(Ordering::Relaxed));
    assert!(num_reads < 20 && num_bytes < 5 << 20, "{num_reads} reads of {num_bytes} bytes");
    assert_eq!(chunks.get_bytes(0, 3 << 20).unwrap().len(), 3 << 20, "a page may be larger than a window");
    assert!(chunks.get_bytes(5 << 20, 2 << 20).is_err(), "the file ends before");
}

fn row(id: &str) -> OutputRow {
    let fields = Map::from_iter([("lang".to_owned(), json!("en"))]);
    OutputRow {
        id: id.into(),
        output: "uno".into(),
        score: -0.123_456,
        prompt_tokens: 3,
        llm_prompt_tokens: 0,
        output_tokens: 2,
        finish_reason: FinishReason::Stop,
        warnings: Vec::new(),
        quality: None,
        signals: None,
        tier: None,
        alternatives: Vec::new(),
        origin: Some(RecordSource { uri: "a.jsonl".into(), line: 7 }),
        fields: KeptFields::Json(fields),
    }
}

#[test]
fn a_collected_file_has_nulls_where_a_record_failed() {
    let failure = RecordFailure {
        source: RecordSource { uri: "a.jsonl".into(), line: 8 },
        id: None,
        code: FailureCode::InvalidJson,
        message: "not JSON".into(),
    };
    let options = WriteOptions {
        has_origin: true,
        has_errors: true,
        keep: KeepFields::AsJson,
        ..WriteOptions::default()
    };
    let mut file = Vec::new();
    let format = PartFormat::of_file("all.parquet", None).unwrap();
    let mut writer = format.writer(Box::new(&mut file), &options).unwrap();
    writer.write_row(&row("a")).unwrap();
    writer.write_failure(&failure).unwrap();
    writer.finish().unwrap();

    // The reader of rows shares no code with the reader of columns.
    let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
    let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    assert_eq!(
        rows,
        [
            "{id: \"a\", output: \"uno\", score: -1.235E-1, prompt_tokens: 3, llm_prompt_tokens: 0, \
             output_tokens: 2, finish_reason: \"stop\", warnings: [], input: \"a.jsonl\", line: 7, \
             error: null, message: null, fields: \"{\"lang\":\"en\"}\"}",
            "{id: null, output: null, score: null, prompt_tokens: null, llm_prompt_tokens: null, \
             output_tokens: null, finish_reason: null, warnings: [], input: \"a.jsonl\", line: 8, \
             error: \"invalid_json\", message: \"not JSON\", fields: null}",
        ]
    );
}

#[test]
fn a_part_keeps_quality_and_signals_and_their_absence_and_tiers() {
    let signals = Signals {
        mean_logprob: -0.25,
        worst_logprob: -2.5,
        length_ratio: 1.125,
        repetition: 0.0,
        copied: 0.5,
        language: 0.75,
        warnings: 2,
        cut: true,
        source_words: 7,
    };
    let rows = [OutputRow { quality: Some(0.875), signals: Some(Box::new(signals)), ..row("a") }, row("b")];
    let tier = Some("slm".to_owned());
    let rows =
        rows.map(|row| OutputRow { origin: None, fields: KeptFields::default(), tier: tier.clone(), ..row });
    let format = PartFormat::of_file("a.parquet", None).unwrap();
    let quality = QualityColumns::Signals;
    let options = WriteOptions { quality, has_tier: true, ..WriteOptions::default() };
    let part = format.part(&rows, &options).unwrap();
    let read: Vec<OutputRow> =
        format.reader(Box::new(std::io::Cursor::new(part))).unwrap().map(Result::unwrap).collect();
    for (read, row) in read.iter().zip(&rows) {
        assert_eq!((read.quality, &read.signals), (row.quality, &row.signals));
    }
    assert_eq!(read.len(), 2);
}

#[test]
fn a_part_without_rows_has_its_columns_and_names_no_version_of_its_writer() {
    let part = PartFormat::of_file("a.parquet", None).unwrap().part([], &WriteOptions::default()).unwrap();
    let reader = SerializedFileReader::new(Bytes::from(part)).unwrap();
    let metadata = reader.metadata().file_metadata();
    assert_eq!((metadata.num_rows(), metadata.created_by()), (0, Some("baton version 1.0.0 (build 1)")));
    let mut schema = Vec::new();
    print_schema(&mut schema, metadata.schema());
    let schema = String::from_utf8(schema).unwrap();
    for column in
        ["REQUIRED BYTE_ARRAY id (STRING);", "REQUIRED DOUBLE score;", "REQUIRED INT64 prompt_tokens;"]
    {
        assert!(schema.contains(column), "{schema}");
    }
}

#[test]
fn a_row_that_was_not_announced_is_refused_by_record() {
    let format = PartFormat::of_file("a.parquet", None).unwrap();
    let alternative = crate::Alternative {
        output: "due".into(),
        score: -1.0,
        output_tokens: 1,
        finish_reason: FinishReason::Stop,
    };
    let row = OutputRow { alternatives: vec![alternative], ..row("a") };
    let error = format.part([&row], &WriteOptions::default()).unwrap_err().to_string();
    assert!(
        error.starts_with("record a cannot be written in this format: it has several outputs"),
        "{error}"
    );
    let options = WriteOptions { has_alternatives: true, ..WriteOptions::default() };
    let part = format.part([&row], &options).unwrap();
    let read: Vec<OutputRow> =
        format.reader(Box::new(io::Cursor::new(part))).unwrap().map(Result::unwrap).collect();
    assert_eq!(read[0].alternatives, row.alternatives);
}
