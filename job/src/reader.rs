//! Reads one input file as a stream of records and failures.
//!
//! Owns the rule that every input record ends in exactly one of the two, and what makes a row a record: its text,
//! its id, its other fields. How rows lie in a file is in `lines` and `table`. Memory is bounded by one row,
//! whatever the file: a longer row is skipped without being held and becomes a failure.
//!
//! A row is found before it is understood: who only counts rows, as for the shards that another coordinator does, pays for little more
//! than finding line ends.

mod fields;
mod lines;
mod table;

use std::io::{self, Read};

use serde_json::Map;

use crate::format::InputFormat;
use crate::record::{FailureCode, Record, RecordFailure, RecordSource};
use crate::{Compression, JobError};
use fields::{Fields, NoText};

/// Fields that a failure names at most.
const MAX_FIELDS_NAMED: usize = 8;

/// Characters of a field's name that a failure shows at most.
const MAX_NAME_CHARS: usize = 32;

/// What of a record is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderOptions {
    /// Field or column that holds the text. Lines of a `.txt` file are their own text.
    pub text_field: String,
    /// Field or column that holds the id; `None`: `id`, else `custom_id`, else file and line.
    pub id_field: Option<String>,
    /// Format of the file; `None`: told from its name.
    pub format: Option<InputFormat>,
    /// Keeps all fields but the id's.
    pub keep_fields: bool,
    /// A longer text is a failure. Bytes of UTF-8.
    pub max_text_bytes: usize,
}

impl ReaderOptions {
    /// A row with more bytes is a failure and never held in memory. JSON escapes one byte of text as six at most
    /// (`\u0041`), so an allowed text always fits, with room for other fields.
    fn max_row_bytes(&self) -> usize {
        self.max_text_bytes.saturating_mul(8).saturating_add(64 * 1024)
    }
}

/// Rows of one file, in order. Implementations differ in how a row is delimited and what its fields are.
trait RowReader: Send {
    /// The next row; `None` at the end of the file.
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff>;
}

/// Why the rest of a file cannot be read.
struct BrokenOff {
    /// Where reading stopped, from 1.
    line: u64,
    error: io::Error,
}

/// A row that was found, but not looked into.
struct Row<'row> {
    line: u64,
    /// What it weighs in a shard: its bytes without delimiters, 0 if they are not held.
    num_bytes: u64,
    content: RowContent<'row>,
}

enum RowContent<'row> {
    /// A line that should be a JSON object.
    Json(&'row [u8]),
    /// A line that is a text.
    Text(&'row [u8]),
    /// The cells of a table's row.
    Cells(table::Cells<'row>),
    /// There is nothing to look into.
    Fault(Fault),
}

/// What is wrong with a row or record.
struct Fault {
    code: FailureCode,
    message: String,
}

impl Fault {
    fn new(code: FailureCode, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into() }
    }

    fn row_too_long(what: &str, max_row_bytes: usize) -> Fault {
        Fault::new(
            FailureCode::TextTooLong,
            format!("{what} is longer than {max_row_bytes} bytes, the most read at this `max_text_bytes`"),
        )
    }
}

/// The records and failures of one file, in file order.
pub struct RecordReader {
    shape: Shape,
    rows: Box<dyn RowReader>,
    ended: bool,
}

/// What makes a row a record.
struct Shape {
    uri: String,
    options: ReaderOptions,
    format: InputFormat,
}

/// A record that was found and can be read or passed over.
pub struct FoundRecord<'reader> {
    shape: &'reader Shape,
    row: Row<'reader>,
}

impl RecordReader {
    /// Reads `input`, the raw bytes of the file that the listing names `uri`. Format and compression are told
    /// from the name, unless the options force a format.
    ///
    /// # Errors
    /// [`JobError::UnknownFormat`]. A broken file is no error here: it yields a failure.
    pub fn new(
        uri: &str,
        input: Box<dyn Read + Send>,
        options: &ReaderOptions,
    ) -> Result<RecordReader, JobError> {
        let (format, compression) = InputFormat::of(uri, options.format)?;
        let rows = open_rows(format, compression, input, options)
            .unwrap_or_else(|error| Box::new(Broken(Some(error))));
        let shape = Shape { uri: uri.to_owned(), options: options.clone(), format };
        Ok(RecordReader { shape, rows, ended: false })
    }

    /// Finds the next record; `None` at the end of the file.
    pub fn find_next(&mut self) -> Option<FoundRecord<'_>> {
        if self.ended {
            return None;
        }
        let row = match self.rows.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => {
                self.ended = true;
                return None;
            }
            Err(BrokenOff { line, error }) => {
                self.ended = true;
                let message = format!("reading broke here, the rest of the file was not read: {error}");
                let fault = Fault::new(FailureCode::InputTruncated, message);
                Row { line, num_bytes: 0, content: RowContent::Fault(fault) }
            }
        };
        Some(FoundRecord { shape: &self.shape, row })
    }
}

impl Iterator for RecordReader {
    type Item = Result<Record, RecordFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.find_next()?.read())
    }
}

impl FoundRecord<'_> {
    /// What the record weighs in a shard: the bytes of its row, uncompressed.
    pub fn num_bytes(&self) -> u64 {
        self.row.num_bytes
    }

    /// Looks into it.
    ///
    /// # Errors
    /// Why it is no record.
    pub fn read(self) -> Result<Record, RecordFailure> {
        self.shape.record(self.row)
    }
}

impl Shape {
    fn failure(&self, line: u64, id: Option<String>, fault: Fault) -> RecordFailure {
        let source = RecordSource { uri: self.uri.clone(), line };
        RecordFailure { source, id, code: fault.code, message: fault.message }
    }

    fn record(&self, row: Row<'_>) -> Result<Record, RecordFailure> {
        let line = row.line;
        let ReaderOptions { text_field, keep_fields, .. } = &self.options;
        let fields = Fields::of(row, text_field).map_err(|fault| self.failure(line, None, fault))?;
        let (id, id_field) = self.id(&fields, line).map_err(|fault| self.failure(line, None, fault))?;
        let kept = |text| match keep_fields {
            true => Ok((text, fields.all_but(id_field)?)),
            false => Ok((text, Map::new())),
        };
        match self.text(&fields).and_then(kept) {
            Ok((text, fields)) => {
                let source = RecordSource { uri: self.uri.clone(), line };
                Ok(Record { index_in_shard: 0, id, source, text, fields })
            }
            Err(fault) => Err(self.failure(line, Some(id), fault)),
        }
    }

    /// The id, and the field that holds it, if one does.
    fn id(&self, fields: &Fields<'_>, line: u64) -> Result<(String, Option<&str>), Fault> {
        if let Some(name) = &self.options.id_field {
            let value =
                fields.get(name).ok_or_else(|| self.missing_field(name, "id_field", "--id-field", fields))?;
            return match value.to_id() {
                Ok(id) => Ok((id, Some(name))),
                Err(NoText::Type(found)) => Err(wrong_type(name, found, "a string or a number")),
                Err(NoText::Invalid(fault)) => Err(fault),
            };
        }
        for name in ["id", "custom_id"] {
            match fields.get(name).map(fields::FieldValue::to_id) {
                Some(Ok(id)) => return Ok((id, Some(name))),
                Some(Err(NoText::Invalid(fault))) => return Err(fault),
                Some(Err(NoText::Type(_))) | None => {}
            }
        }
        Ok((format!("{}:{line}", self.uri), None))
    }

    fn text(&self, fields: &Fields<'_>) -> Result<String, Fault> {
        let ReaderOptions { text_field, max_text_bytes, .. } = &self.options;
        let value = fields
            .get(text_field)
            .ok_or_else(|| self.missing_field(text_field, "text_field", "--text-field", fields))?;
        let text = value.to_text().map_err(|error| match error {
            NoText::Type(found) => wrong_type(text_field, found, "a string"),
            NoText::Invalid(fault) => fault,
        })?;
        if text.len() > *max_text_bytes {
            return Err(Fault::new(
                FailureCode::TextTooLong,
                format!("the text has {} bytes; `max_text_bytes` is {max_text_bytes}", text.len()),
            ));
        }
        if text.trim().is_empty() {
            return Err(Fault::new(FailureCode::EmptyText, "the text is empty or only white space"));
        }
        Ok(text)
    }

    /// Says which fields there are, by name alone, and how to name the right one.
    fn missing_field(&self, name: &str, option: &str, flag: &str, fields: &Fields<'_>) -> Fault {
        let mut present: Vec<String> =
            fields.names().take(MAX_FIELDS_NAMED).map(|key| format!("`{}`", abridged(key))).collect();
        if fields.len() > MAX_FIELDS_NAMED {
            present.push(format!("{} more", fields.len() - MAX_FIELDS_NAMED));
        }
        let found = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
        let hint = match self.format {
            InputFormat::Csv if fields.len() == 1 => "; is the separator a comma?",
            InputFormat::Tsv if fields.len() == 1 => "; is the separator a tab?",
            _ => "",
        };
        let message = format!("no field `{name}`, found: {found}{hint}; name it with {flag} or `{option}`");
        Fault::new(FailureCode::MissingField, message)
    }
}

fn open_rows(
    format: InputFormat,
    compression: Compression,
    input: Box<dyn Read + Send>,
    options: &ReaderOptions,
) -> io::Result<Box<dyn RowReader>> {
    let input = compression.decode(input)?;
    let max_row_bytes = options.max_row_bytes();
    Ok(match format {
        InputFormat::Jsonl => Box::new(lines::JsonLines::new(input, max_row_bytes)),
        InputFormat::Txt => Box::new(lines::TextLines::new(input, max_row_bytes)),
        InputFormat::Csv => Box::new(table::Table::csv(input, max_row_bytes)),
        InputFormat::Tsv => Box::new(table::Table::tsv(input, max_row_bytes)),
    })
}

/// A file that broke before its first row.
struct Broken(Option<io::Error>);

impl RowReader for Broken {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        self.0.take().map_or(Ok(None), |error| Err(BrokenOff { line: 1, error }))
    }
}

/// A field's name as one short line: a table without a header has texts for names.
fn abridged(name: &str) -> String {
    let mut shown: String = name.chars().take(MAX_NAME_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

fn wrong_type(name: &str, found: &str, expected: &str) -> Fault {
    Fault::new(FailureCode::WrongType, format!("field `{name}` is {found}, expected {expected}"))
}

fn invalid_utf8(what: &str, error: std::str::Utf8Error) -> Fault {
    Fault::new(
        FailureCode::InvalidUtf8,
        format!("{what} is not UTF-8 from byte {} on", error.valid_up_to() + 1),
    )
}

#[cfg(test)]
mod tests;
