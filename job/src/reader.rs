//! Reads one input file as a stream of records and failures.
//!
//! Owns the rule that every input record ends in exactly one of the two, and what makes a row a record: its text,
//! its id, its other fields. How rows lie in a file is in `lines` and `table`. Memory is bounded by one row,
//! whatever the file: a longer row is skipped without being held and becomes a failure.

mod lines;
mod table;

use std::io::{self, Read};

use serde_json::{Map, Value};

use crate::format::InputFormat;
use crate::record::{FailureCode, Record, RecordFailure, RecordSource};
use crate::{Compression, JobError};

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
    /// Keeps the other fields.
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
    fn next_row(&mut self) -> io::Result<Option<Row>>;

    /// The line at which reading stopped after an error, from 1.
    fn line(&self) -> u64;
}

/// A row as its format sees it.
struct Row {
    line: u64,
    fields: Result<Map<String, Value>, Fault>,
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
    uri: String,
    options: ReaderOptions,
    format: InputFormat,
    rows: Box<dyn RowReader>,
    ended: bool,
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
        Ok(RecordReader { uri: uri.to_owned(), options: options.clone(), format, rows, ended: false })
    }

    fn failure(&self, line: u64, id: Option<String>, fault: Fault) -> RecordFailure {
        let source = RecordSource { uri: self.uri.clone(), line };
        RecordFailure { source, id, code: fault.code, message: fault.message }
    }

    fn record(&self, row: Row) -> Result<Record, RecordFailure> {
        let mut fields = row.fields.map_err(|fault| self.failure(row.line, None, fault))?;
        let (id, id_field) =
            self.id(&fields, row.line).map_err(|fault| self.failure(row.line, None, fault))?;
        let text = match self.take_text(&mut fields) {
            Ok(text) => text,
            Err(fault) => return Err(self.failure(row.line, Some(id), fault)),
        };
        if let Some(name) = id_field {
            fields.shift_remove(name);
        }
        Ok(Record {
            index_in_shard: 0,
            id,
            source: RecordSource { uri: self.uri.clone(), line: row.line },
            text,
            fields: if self.options.keep_fields { fields } else { Map::new() },
        })
    }

    /// The id, and the field that holds it, if one does.
    fn id(&self, fields: &Map<String, Value>, line: u64) -> Result<(String, Option<&str>), Fault> {
        if let Some(name) = &self.options.id_field {
            let value =
                fields.get(name).ok_or_else(|| self.missing_field(name, "id_field", "--id-field", fields))?;
            let id = id_of(value).ok_or_else(|| wrong_type(name, value, "a string or a number"))?;
            return Ok((id, Some(name)));
        }
        for name in ["id", "custom_id"] {
            if let Some(id) = fields.get(name).and_then(id_of) {
                return Ok((id, Some(name)));
            }
        }
        Ok((format!("{}:{line}", self.uri), None))
    }

    fn take_text(&self, fields: &mut Map<String, Value>) -> Result<String, Fault> {
        let ReaderOptions { text_field, max_text_bytes, .. } = &self.options;
        let text = match fields.shift_remove(text_field) {
            Some(Value::String(text)) => text,
            Some(value) => return Err(wrong_type(text_field, &value, "a string")),
            None => return Err(self.missing_field(text_field, "text_field", "--text-field", fields)),
        };
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
    fn missing_field(&self, name: &str, option: &str, flag: &str, fields: &Map<String, Value>) -> Fault {
        let mut present: Vec<String> =
            fields.keys().take(MAX_FIELDS_NAMED).map(|key| format!("`{}`", abridged(key))).collect();
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

impl Iterator for RecordReader {
    type Item = Result<Record, RecordFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.rows.next_row() {
            Ok(Some(row)) => Some(self.record(row)),
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                let fault = Fault::new(
                    FailureCode::InputTruncated,
                    format!("reading broke here, the rest of the file was not read: {error}"),
                );
                Some(Err(self.failure(self.rows.line(), None, fault)))
            }
        }
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
        InputFormat::Txt => Box::new(lines::TextLines::new(input, max_row_bytes, &options.text_field)),
        InputFormat::Csv => Box::new(table::Table::csv(input, max_row_bytes)),
        InputFormat::Tsv => Box::new(table::Table::tsv(input, max_row_bytes)),
    })
}

/// A file that broke before its first row.
struct Broken(Option<io::Error>);

impl RowReader for Broken {
    fn next_row(&mut self) -> io::Result<Option<Row>> {
        self.0.take().map_or(Ok(None), Err)
    }

    fn line(&self) -> u64 {
        1
    }
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
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

fn wrong_type(name: &str, value: &Value, expected: &str) -> Fault {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
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
