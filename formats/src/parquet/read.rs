//! Parquet files in: the rows of inputs, and those of parts.

use std::io::{self, Read};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use serde_json::{Map, Value};

use super::chunks::Chunks;
use super::{JSON_COLUMN, KEPT_AS_JSON, KEPT_FIELDS_KEY, reading};
use crate::columns::{Cell, ColumnRow};
use crate::kept::{KeepFields, KeptColumns, KeptFields};
use crate::part::PartReader;
use crate::row::{BrokenOff, Fault, Row, RowContent, RowReader, broken_content};
use crate::signature::{SIGNATURE_NUM_BYTES, Signature};
use crate::{OutputRow, RangedRead, ReaderOptions};

/// Rows decoded at a time. Their strings share the memory of their pages, so a batch costs little more
/// than the pages of its columns.
const BATCH_ROWS: usize = 256;

/// Rows of an input.
struct Rows {
    batches: ParquetRecordBatchReader,
    batch: RecordBatch,
    /// In the batch.
    next_row: usize,
    /// Rows of the file that were returned.
    num_rows_given: u64,
    /// Rows of the file, by its footer.
    num_rows: u64,
    names: Vec<String>,
    columns: KeptColumns,
    max_row_bytes: usize,
}

/// Opens an input.
pub(super) fn open(input: Box<dyn RangedRead>, options: &ReaderOptions) -> io::Result<Box<dyn RowReader>> {
    check_signature(&*input)?;
    let chunks = Chunks::new(input);
    let rows = reading(move || {
        let metadata = metadata(&chunks)?;
        let fields = metadata.schema().fields();
        let is_read = |field: &FieldRef| options.keep.keeps_any() || names_field(options, field.name());
        let roots = (0..).zip(fields).filter(|(_, field)| is_read(field)).map(|(place, _)| place);
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let leaves: Vec<usize> =
            (0..metadata.parquet_schema().num_columns()).filter(|&leaf| mask.leaf_included(leaf)).collect();
        let groups = metadata.metadata().row_groups();
        let ranges =
            groups.iter().flat_map(|group| leaves.iter().map(|&leaf| group.column(leaf).byte_range()));
        chunks.expect(ranges.map(|(start, num_bytes)| (start, start + num_bytes)), leaves.len());
        let names = fields.iter().map(|field| field.name().clone()).collect();
        let columns = KeptColumns::new(fields.iter().map(|field| &**field));
        let num_rows = groups.iter().map(|group| group.num_rows().unsigned_abs()).sum();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, metadata);
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
        Ok(Rows {
            batch: RecordBatch::new_empty(batches.schema()),
            batches,
            next_row: 0,
            num_rows_given: 0,
            num_rows,
            names,
            columns,
            max_row_bytes: options.max_row_bytes(),
        })
    })?;
    Ok(Box::new(rows))
}

/// Whether the options name this column, or a part of it.
fn names_field(options: &ReaderOptions, column: &str) -> bool {
    let is_meant = |name: &str| name == column || name.split('.').next() == Some(column);
    let glossary = options.glossary_field.as_deref();
    options.record_fields().into_iter().chain(glossary).any(is_meant)
}

fn check_signature(input: &dyn RangedRead) -> io::Result<()> {
    let mut head = [0; SIGNATURE_NUM_BYTES];
    let num_bytes = input.num_bytes().min(SIGNATURE_NUM_BYTES as u64) as usize;
    input.read_at(0, &mut head[..num_bytes])?;
    match Signature::of(&head[..num_bytes]) {
        Signature::Parquet => Ok(()),
        _ if head.starts_with(b"PARE") => {
            Err(broken_content("its footer is encrypted, and encrypted Parquet files are not read"))
        }
        Signature::Other => Err(broken_content("it is not a Parquet file: it does not begin with PAR1")),
        other => Err(broken_content(format!("it is not a Parquet file, it is {other}"))),
    }
}

/// The footer, with types that are cheap to read: strings as views of their pages.
fn metadata(chunks: &Chunks) -> Result<ArrowReaderMetadata, ParquetError> {
    let as_written = ArrowReaderMetadata::load(chunks, ArrowReaderOptions::new()).or_else(|_| {
        ArrowReaderMetadata::load(chunks, ArrowReaderOptions::new().with_skip_arrow_metadata(true))
    })?;
    let fields: Vec<FieldRef> = as_written.schema().fields().iter().map(with_views).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, as_written.schema().metadata().clone()));
    let options = ArrowReaderOptions::new().with_schema(schema);
    ArrowReaderMetadata::try_new(Arc::clone(as_written.metadata()), options).or_else(|_| {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true); // has no dictionaries
        ArrowReaderMetadata::try_new(Arc::clone(as_written.metadata()), options)
    })
}

fn with_views(field: &FieldRef) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(type_with_views(field.data_type())))
}

fn type_with_views(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Dictionary(_, values) => type_with_views(values),
        DataType::List(item) => DataType::List(with_views(item)),
        DataType::LargeList(item) => DataType::LargeList(with_views(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(with_views(item), *len),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_views).collect()),
        DataType::Map(entries, is_sorted) => DataType::Map(with_views(entries), *is_sorted),
        other => other.clone(),
    }
}

impl Rows {
    /// Decodes rows until one is available; false at the end of the file.
    fn advance(&mut self) -> io::Result<bool> {
        while self.next_row == self.batch.num_rows() {
            self.next_row = 0;
            match reading(|| Ok(self.batches.next().transpose()?))? {
                Some(batch) => self.batch = batch,
                None if self.num_rows_given == self.num_rows => return Ok(false),
                None => {
                    let (found, announced) = (self.num_rows_given, self.num_rows);
                    let problem = format!("its footer announces {announced} rows, and it has {found}");
                    return Err(broken_content(problem));
                }
            }
        }
        Ok(true)
    }
}

impl RowReader for Rows {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        let line = self.num_rows_given + 1;
        if !self.advance().map_err(|error| BrokenOff { line, error })? {
            return Ok(None);
        }
        self.num_rows_given = line;
        let columns = ColumnRow { batch: &self.batch, row: self.next_row, names: &self.names };
        self.next_row += 1;
        let num_bytes = columns.num_bytes();
        if num_bytes > self.max_row_bytes as u64 {
            let fault = Fault::row_too_long("the row", self.max_row_bytes);
            return Ok(Some(Row { line, num_bytes: 0, content: RowContent::Fault(fault) }));
        }
        Ok(Some(Row { line, num_bytes, content: RowContent::Columns(columns) }))
    }

    fn columns(&self) -> Option<KeptColumns> {
        Some(self.columns.clone())
    }
}

/// The rows of a part, which fits into memory.
pub(super) fn part(mut input: Box<dyn Read + Send>) -> io::Result<PartReader> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let builder = reading(|| ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)))?;
    let entries = builder.metadata().file_metadata().key_value_metadata();
    let is_kept = |entry: &&KeyValue| entry.key == KEPT_FIELDS_KEY;
    let kept = entries.and_then(|entries| entries.iter().find(is_kept)?.value.clone());
    let names: Vec<String> = match kept.as_deref() {
        None | Some(KEPT_AS_JSON) => Vec::new(),
        Some(names) => serde_json::from_str(names)?,
    };
    let fields = builder.schema().fields().clone();
    let num_own = fields.len().saturating_sub(names.len());
    let kept_fields: Vec<Field> = fields[num_own..]
        .iter()
        .zip(&names)
        .map(|(field, name)| Field::clone(field).with_name(name))
        .collect();
    let keep = match kept.as_deref() {
        None => KeepFields::No,
        Some(KEPT_AS_JSON) => KeepFields::AsJson,
        Some(_) => KeepFields::AsColumns(KeptColumns::new(&kept_fields)),
    };
    let mut batches = reading(|| builder.with_batch_size(BATCH_ROWS).build())?;
    let rows_of = {
        let keep = keep.clone();
        move |batch: io::Result<RecordBatch>| -> Vec<io::Result<OutputRow>> {
            match batch {
                Ok(batch) => {
                    (0..batch.num_rows()).map(|row| output_row(&batch, row, num_own, &keep)).collect()
                }
                Err(error) => vec![Err(error)],
            }
        }
    };
    let batches = std::iter::from_fn(move || reading(|| Ok(batches.next().transpose()?)).transpose());
    Ok(PartReader { keep, rows: Box::new(batches.flat_map(rows_of)) })
}

/// The row of a part; its columns after the first `num_own` are kept fields.
fn output_row(batch: &RecordBatch, row: usize, num_own: usize, keep: &KeepFields) -> io::Result<OutputRow> {
    let invalid =
        |error: &dyn std::fmt::Display| broken_content(format!("row {} is no output row: {error}", row + 1));
    let schema = batch.schema_ref();
    let cells = schema.fields().iter().zip(batch.columns()).map(|(field, array)| Cell { field, array, row });
    let mut object = Map::new();
    for cell in cells.clone().take(num_own) {
        let mut value = cell.to_json().map_err(|error| invalid(&error))?;
        if *keep == KeepFields::AsJson && cell.field.name() == JSON_COLUMN {
            let text = value.as_str().unwrap_or("{}");
            value = serde_json::from_str(text).map_err(|error| invalid(&error))?;
        }
        object.insert(cell.field.name().clone(), value);
    }
    let output: OutputRow = serde_json::from_value(Value::Object(object)).map_err(|error| invalid(&error))?;
    let KeepFields::AsColumns(columns) = keep else { return Ok(output) };
    let types = columns.schema().fields().iter().map(|field| field.data_type());
    let values: Result<Vec<ArrayRef>, ArrowError> =
        cells.skip(num_own).zip(types).map(|(cell, data_type)| cell.cast(data_type)).collect();
    let kept = values.and_then(|values| columns.row(values)).and_then(|row| columns.encode(&row));
    Ok(OutputRow { fields: KeptFields::Columns(kept.map_err(|error| invalid(&error))?), ..output })
}
