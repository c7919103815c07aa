//! Parquet files out: parts, and collected files.
//!
//! This file pins every setting that affects the bytes, so that other defaults in another version of the
//! library change nothing.

use std::io;
use std::mem;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use baton_generation::QualityColumns;
use baton_quality::Signals;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};

use super::{JSON_COLUMN, KEPT_AS_JSON, KEPT_FIELDS_KEY};
use crate::compression::Sink;
use crate::kept::{KeepFields, KeptFields};
use crate::output::rounded;
use crate::part::{RowError, RowWriter, WriteOptions};
use crate::{Alternative, OutputRow, RecordFailure, RecordSource};

/// The writer's name in each file, with the version of the layout.
const CREATED_BY: &str = "baton version 1.0.0 (build 1)";
const ZSTD_LEVEL: i32 = 3;
/// Rows that become pages together.
const BATCH_ROWS: usize = 1024;
const ROW_GROUP_ROWS: usize = 128 << 10;
/// Encoded bytes, in memory until the group is written.
const ROW_GROUP_NUM_BYTES: usize = 64 << 20;
const PAGE_NUM_BYTES: usize = 1 << 20;
const PAGE_ROWS: usize = 20_000;

/// Writes rows in batches.
pub(super) struct RowBatches<'w> {
    writer: ArrowWriter<Sink<'w>>,
    options: WriteOptions,
    schema: SchemaRef,
    waiting: Vec<Entry>,
}

/// The written content of a record.
enum Entry {
    Row(OutputRow),
    Failed(RecordFailure),
}

impl Entry {
    fn row(&self) -> Option<&OutputRow> {
        match self {
            Entry::Row(row) => Some(row),
            Entry::Failed(_) => None,
        }
    }

    fn failure(&self) -> Option<&RecordFailure> {
        match self {
            Entry::Row(_) => None,
            Entry::Failed(failure) => Some(failure),
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            Entry::Row(row) => Some(&row.id),
            Entry::Failed(failure) => failure.id.as_deref(),
        }
    }

    fn source(&self) -> Option<&RecordSource> {
        match self {
            Entry::Row(row) => row.origin.as_ref(),
            Entry::Failed(failure) => Some(&failure.source),
        }
    }
}

impl<'w> RowBatches<'w> {
    pub(super) fn new(output: Sink<'w>, options: &WriteOptions) -> io::Result<RowBatches<'w>> {
        let schema = Arc::new(Schema::new(fields(options)));
        let kept = match &options.keep {
            KeepFields::No => None,
            KeepFields::AsJson => Some(KEPT_AS_JSON.to_owned()),
            KeepFields::AsColumns(columns) => {
                Some(serde_json::to_string(&columns.names().collect::<Vec<_>>())?)
            }
        };
        let metadata = kept.map(|kept| vec![KeyValue::new(KEPT_FIELDS_KEY.to_owned(), kept)]);
        let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(unwritten)?;
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(level))
            .set_write_batch_size(BATCH_ROWS)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_NUM_BYTES))
            .set_data_page_size_limit(PAGE_NUM_BYTES)
            .set_dictionary_page_size_limit(PAGE_NUM_BYTES)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_key_value_metadata(metadata)
            .build();
        let writer =
            ArrowWriter::try_new(output, Arc::clone(&schema), Some(properties)).map_err(unwritten)?;
        Ok(RowBatches { writer, options: options.clone(), schema, waiting: Vec::new() })
    }

    fn add(&mut self, entry: Entry) -> Result<(), RowError> {
        self.waiting.push(entry);
        if self.waiting.len() == BATCH_ROWS { Ok(self.write_waiting()?) } else { Ok(()) }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let entries = mem::take(&mut self.waiting);
        let columns = self.columns(&entries).map_err(io::Error::other)?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(io::Error::other)?;
        self.writer.write(&batch).map_err(unwritten)
    }

    /// The columns of [`fields`], in that order.
    fn columns(&self, entries: &[Entry]) -> Result<Vec<ArrayRef>, ArrowError> {
        let number = |get: fn(&OutputRow) -> u32| -> ArrayRef {
            let numbers = entries.iter().map(|entry| entry.row().map(|row| i64::from(get(row))));
            Arc::new(numbers.collect::<Int64Array>())
        };
        let mut columns: Vec<ArrayRef> = vec![
            text_column(entries, Entry::id),
            text_column(entries, |entry| entry.row().map(|row| row.output.as_str())),
            Arc::new(
                entries
                    .iter()
                    .map(|entry| entry.row().map(|row| rounded(row.score)))
                    .collect::<Float64Array>(),
            ),
            number(|row| row.prompt_tokens),
            number(|row| row.llm_prompt_tokens),
            number(|row| row.output_tokens),
            text_column(entries, |entry| entry.row().map(|row| row.finish_reason.as_str())),
            Arc::new(warnings(entries)?),
        ];
        if self.options.quality != QualityColumns::None {
            let quality = entries.iter().map(|entry| entry.row().and_then(|row| row.quality));
            columns.push(Arc::new(quality.collect::<Float64Array>()));
        }
        if self.options.quality == QualityColumns::Signals {
            columns.push(Arc::new(signals(entries)?));
        }
        if self.options.has_tier {
            columns.push(text_column(entries, |entry| entry.row().and_then(|row| row.tier.as_deref())));
        }
        if self.options.has_alternatives {
            columns.push(Arc::new(alternatives(entries)?));
        }
        if self.options.has_origin {
            columns.push(text_column(entries, |entry| entry.source().map(|source| source.uri.as_str())));
            let lines = entries.iter().map(|entry| entry.source().map(|source| source.line as i64));
            columns.push(Arc::new(lines.collect::<Int64Array>()));
        }
        if self.options.has_errors {
            columns.push(text_column(entries, |entry| entry.failure().map(|failure| failure.code.as_str())));
            columns
                .push(text_column(entries, |entry| entry.failure().map(|failure| failure.message.as_str())));
        }
        columns.extend(self.kept_columns(entries)?);
        Ok(columns)
    }

    fn kept_columns(&self, entries: &[Entry]) -> Result<Vec<ArrayRef>, ArrowError> {
        let columns = match &self.options.keep {
            KeepFields::No => return Ok(Vec::new()),
            KeepFields::AsJson => {
                let objects = entries.iter().map(|entry| match &entry.row()?.fields {
                    KeptFields::Json(object) if object.is_empty() => None,
                    fields => Some(serde_json::to_string(fields)),
                });
                let objects = objects.map(Option::transpose).collect::<Result<StringArray, _>>();
                return match objects {
                    Ok(objects) => Ok(vec![Arc::new(objects)]),
                    Err(error) => Err(ArrowError::JsonError(error.to_string())),
                };
            }
            KeepFields::AsColumns(columns) => columns,
        };
        let kept: Result<Vec<&Bytes>, ArrowError> = entries
            .iter()
            .filter_map(Entry::row)
            .map(|row| match &row.fields {
                KeptFields::Columns(kept) => Ok(kept),
                KeptFields::Json(_) => {
                    Err(ArrowError::SchemaError(format!("record {} came without its columns", row.id)))
                }
            })
            .collect();
        let mut kept = columns.decode(kept?)?.into_iter();
        let nulls =
            columns.schema().fields().iter().map(|field| arrow_array::new_null_array(field.data_type(), 1));
        let nulls = columns.row(nulls.collect())?;
        let rows = entries
            .iter()
            .map(|entry| entry.row().and_then(|_| kept.next()).unwrap_or_else(|| nulls.clone()));
        let rows: Vec<RecordBatch> = rows.collect();
        Ok(concat_batches(columns.schema(), &rows)?.columns().to_vec())
    }
}

impl RowWriter for RowBatches<'_> {
    fn write_row(&mut self, row: &OutputRow) -> Result<(), RowError> {
        if !row.alternatives.is_empty() && !self.options.has_alternatives {
            let problem = "it has several outputs, and the job was to have one";
            return Err(RowError::NotInThisFormat { id: row.id.clone(), problem });
        }
        self.add(Entry::Row(row.clone()))
    }

    fn write_failure(&mut self, failure: &RecordFailure) -> Result<(), RowError> {
        self.add(Entry::Failed(failure.clone()))
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.write_waiting()?;
        }
        self.writer.into_inner().map_err(unwritten)?.finish()
    }
}

/// The columns of a file. Rows of failed records have nulls, even in columns without nulls otherwise.
fn fields(options: &WriteOptions) -> Vec<Field> {
    let nullable = options.has_errors;
    let text = |name: &str| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str| Field::new(name, DataType::Int64, nullable);
    let list = |name: &str, item: Field| Field::new(name, DataType::List(Arc::new(item)), nullable);
    let mut fields = vec![
        text("id"),
        text("output"),
        Field::new("score", DataType::Float64, nullable),
        number("prompt_tokens"),
        number("llm_prompt_tokens"),
        number("output_tokens"),
        text("finish_reason"),
        list("warnings", warning_field()),
    ];
    if options.quality != QualityColumns::None {
        fields.push(Field::new("quality", DataType::Float64, true)); // a copied text has none
    }
    if options.quality == QualityColumns::Signals {
        fields.push(Field::new("signals", DataType::Struct(signal_fields()), true));
    }
    if options.has_tier {
        fields.push(text("tier"));
    }
    if options.has_alternatives {
        fields.push(list("alternatives", alternative_field()));
    }
    if options.has_origin {
        fields.extend([text("input"), number("line")]);
    }
    if options.has_errors {
        fields.extend([text("error"), text("message")]);
    }
    match &options.keep {
        KeepFields::No => {}
        KeepFields::AsJson => fields.push(Field::new(JSON_COLUMN, DataType::Utf8, true)),
        KeepFields::AsColumns(columns) => {
            for kept in columns.schema().fields() {
                let is_taken = fields.iter().any(|field| field.name() == kept.name());
                let name = if is_taken { format!("fields.{}", kept.name()) } else { kept.name().clone() };
                fields.push(Field::clone(kept).with_name(name));
            }
        }
    }
    fields
}

fn text_column<'e>(entries: &'e [Entry], get: impl Fn(&'e Entry) -> Option<&'e str>) -> ArrayRef {
    Arc::new(entries.iter().map(get).collect::<StringArray>())
}

fn warning_field() -> Field {
    Field::new("element", DataType::Utf8, false)
}

fn alternative_field() -> Field {
    Field::new("element", DataType::Struct(alternative_fields()), false)
}

fn alternative_fields() -> Fields {
    Fields::from(vec![
        Field::new("output", DataType::Utf8, false),
        Field::new("score", DataType::Float64, false),
        Field::new("output_tokens", DataType::Int64, false),
        Field::new("finish_reason", DataType::Utf8, false),
    ])
}

fn warnings(entries: &[Entry]) -> Result<ListArray, ArrowError> {
    let of_entry = |entry: &Entry| entry.row().map_or(0, |row| row.warnings.len());
    let lens = OffsetBuffer::from_lengths(entries.iter().map(of_entry));
    let all = entries.iter().filter_map(Entry::row).flat_map(|row| &row.warnings);
    let values = StringArray::from_iter_values(all);
    ListArray::try_new(Arc::new(warning_field()), lens, Arc::new(values), None)
}

fn signal_fields() -> Fields {
    let number = |name: &str| Field::new(name, DataType::Float64, false);
    let count = |name: &str| Field::new(name, DataType::Int64, false);
    Fields::from(vec![
        number("mean_logprob"),
        number("worst_logprob"),
        number("length_ratio"),
        number("repetition"),
        number("copied"),
        number("language"),
        count("warnings"),
        Field::new("cut", DataType::Boolean, false),
        count("source_words"),
    ])
}

/// Nulls where an entry has none.
fn signals(entries: &[Entry]) -> Result<StructArray, ArrowError> {
    let all: Vec<Option<&Signals>> =
        entries.iter().map(|entry| entry.row().and_then(|row| row.signals.as_deref())).collect();
    let number = |get: fn(&Signals) -> f64| -> ArrayRef {
        let numbers = all.iter().map(|signals| signals.map(get).unwrap_or_default());
        Arc::new(Float64Array::from_iter_values(numbers))
    };
    let count = |get: fn(&Signals) -> u32| -> ArrayRef {
        let counts = all.iter().map(|signals| i64::from(signals.map(get).unwrap_or_default()));
        Arc::new(Int64Array::from_iter_values(counts))
    };
    let is_cut = all.iter().map(|signals| Some(signals.is_some_and(|signals| signals.cut)));
    let columns: Vec<ArrayRef> = vec![
        number(|signals| signals.mean_logprob),
        number(|signals| signals.worst_logprob),
        number(|signals| signals.length_ratio),
        number(|signals| signals.repetition),
        number(|signals| signals.copied),
        number(|signals| signals.language),
        count(|signals| signals.warnings),
        Arc::new(is_cut.collect::<BooleanArray>()),
        count(|signals| signals.source_words),
    ];
    let nulls: NullBuffer = all.iter().map(Option::is_some).collect();
    StructArray::try_new(signal_fields(), columns, Some(nulls))
}

fn alternatives(entries: &[Entry]) -> Result<ListArray, ArrowError> {
    let of_entry = |entry: &Entry| entry.row().map_or(0, |row| row.alternatives.len());
    let lens = OffsetBuffer::from_lengths(entries.iter().map(of_entry));
    let all: Vec<&Alternative> =
        entries.iter().filter_map(Entry::row).flat_map(|row| &row.alternatives).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all.iter().map(|one| &one.output))),
        Arc::new(Float64Array::from_iter_values(all.iter().map(|one| rounded(one.score)))),
        Arc::new(Int64Array::from_iter_values(all.iter().map(|one| i64::from(one.output_tokens)))),
        Arc::new(StringArray::from_iter_values(all.iter().map(|one| one.finish_reason.as_str()))),
    ];
    let values = StructArray::try_new(alternative_fields(), columns, None)?;
    ListArray::try_new(Arc::new(alternative_field()), lens, Arc::new(values), None)
}

fn unwritten(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        other => io::Error::other(other),
    }
}
