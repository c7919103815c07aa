//! The corpus of every run, as JSONL and as Parquet: thousands of short records, and some broken lines.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Records that can be translated.
pub(crate) const NUM_GOOD: usize = 2_400;
/// Lines that must become error rows.
pub(crate) const NUM_BAD: usize = 24;
/// Records in a shard at most.
pub(crate) const RECORDS_PER_SHARD: usize = 12;
/// Parts of a complete job. Every line counts, good or bad.
pub(crate) const NUM_PARTS: usize = (NUM_GOOD + NUM_BAD).div_ceil(RECORDS_PER_SHARD);

const WORDS: [&str; 10] =
    ["archive", "of", "small", "tools", "reads", "mail", "and", "writes", "logs", "quickly"];
/// Longer than the bundle's longest prompt: refused by the encoder, one record at a time.
const TOO_LONG: usize = 200;

/// The file format of a run's corpus and parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    Jsonl,
    /// Parquet, with typed columns that the parts keep.
    Parquet,
}

impl Files {
    pub(crate) const ALL: [Files; 2] = [Files::Jsonl, Files::Parquet];

    /// The job's name for the format of its parts, and the name of the corpus's directory.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Files::Jsonl => "jsonl",
            Files::Parquet => "parquet",
        }
    }

    /// The bytes of the corpus.
    pub(crate) fn corpus(self) -> Vec<u8> {
        match self {
            Files::Jsonl => jsonl().into_bytes(),
            Files::Parquet => parquet(),
        }
    }
}

/// The lines of every second pair of shards, as JSONL: a job over them cuts the same shards.
pub(crate) fn half() -> String {
    let corpus = jsonl();
    let is_in_half = |(number, _): &(usize, &str)| (number / (2 * RECORDS_PER_SHARD)).is_multiple_of(2);
    corpus.split_inclusive('\n').enumerate().filter(is_in_half).map(|(_, line)| line).collect()
}

/// The corpus as JSONL. Good records have the ids `r0`, `r1`, ...; every hundredth of them is followed by a
/// bad line.
fn jsonl() -> String {
    let mut lines = String::new();
    for index in 0..NUM_GOOD {
        lines.push_str(&format!("{{\"id\":\"r{index}\",\"text\":\"{}\"}}\n", text(index)));
        if index % (NUM_GOOD / NUM_BAD) == 50 {
            lines.push_str(&bad_line(index));
        }
    }
    lines
}

/// The same records as Parquet, in several row groups; bad rows have no text, or a text that is too long.
fn parquet() -> Vec<u8> {
    let mut rows: Vec<(String, Option<String>, i64)> = Vec::new();
    for index in 0..NUM_GOOD {
        rows.push((format!("r{index}"), Some(text(index)), index as i64));
        if index % (NUM_GOOD / NUM_BAD) == 50 {
            rows.push((format!("b{index}"), (index % 2 == 0).then(|| "x".repeat(TOO_LONG)), -1));
        }
    }
    let ids = StringArray::from_iter_values(rows.iter().map(|(id, _, _)| id));
    let texts: StringArray = rows.iter().map(|(_, text, _)| text.as_deref()).collect();
    let numbers = Int64Array::from_iter_values(rows.iter().map(|(_, _, number)| *number));
    let columns: [(&str, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("text", Arc::new(texts)), ("number", Arc::new(numbers))];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(500)).build();
    let mut file = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).expect("plain columns");
    writer.write(&batch).expect("memory takes them");
    writer.close().expect("memory takes them");
    file
}

fn text(index: usize) -> String {
    let words: Vec<&str> =
        (0..1 + index * 7 % 9).map(|word| WORDS[(index + word * word) % WORDS.len()]).collect();
    format!("{} {index}", words.join(" "))
}

/// The ids of the records that succeed.
pub(crate) fn good_ids() -> impl Iterator<Item = String> {
    (0..NUM_GOOD).map(|index| format!("r{index}"))
}

fn bad_line(index: usize) -> String {
    match index % 3 {
        0 => format!("{{\"id\":\"b{index}\",\"text\":\"{}\"}}\n", "x".repeat(TOO_LONG)),
        1 => format!("{{\"id\":\"b{index}\",\"wrong_field\":\"\"}}\n"),
        _ => "this is no JSON\n".to_owned(),
    }
}
