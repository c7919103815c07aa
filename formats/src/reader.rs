//! Reads one input file as a stream of records and failures.
//!
//! Owns two rules: every row ends as exactly one of the two, and a record has a text, an id and other fields.
//! How rows lie in a file is up to each format. Memory is bounded by one row of any file: a longer row is
//! skipped without being held and becomes a failure.
//!
//! A row is found first and parsed later. A caller that only counts rows, as for shards that another
//! coordinator processes, pays for little more than finding line ends.

use std::io;
use std::sync::Arc;

use baton_generation::LanguageChoice;
use serde_json::{Map, Value};

use crate::batch::{BatchOptions, request};
use crate::columns::may_be_id;
use crate::fields::{FieldValue, Fields, NULL, NoText};
use crate::gauge::Gauge;
use crate::kept::{KeepFields, KeptColumns, KeptFields};
use crate::record::{FailureCode, Record, RecordFailure, RecordSource};
use crate::row::{BrokenOff, Fault, Opener, Row, RowContent, RowReader};
use crate::terms::terms_of;
use crate::text::open_text;
use crate::{Compression, Format, FormatError, InputFailure, InputFailureCause, InputSource, Separator};

/// Fields that a failure names at most.
const MAX_FIELDS_NAMED: usize = 8;

/// The fields for a record's id, unless the job names one.
const ID_FIELDS: [&str; 2] = ["id", "custom_id"];

/// Characters of a field's name that a failure shows at most.
const MAX_NAME_CHARS: usize = 32;

/// The parts of a record that the caller wants.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderOptions {
    /// Field or column that holds the text, by name or path (`a.b`). Lines of a `.txt` file are their own
    /// text.
    pub text_field: String,
    /// Field or column that holds the id; `None`: `id`, else `custom_id`, else file and line.
    pub id_field: Option<String>,
    /// Fields or columns with the codes of a record's languages.
    pub language_fields: LanguageFields,
    /// Field or column with a record's own glossary, if there is one.
    pub glossary_field: Option<String>,
    /// Format of the file; `None`: told from its name.
    pub format: Option<Format>,
    /// The byte between the cells of a table; `None`: the separator in a first line `sep=;`, else the
    /// format's own.
    pub separator: Option<Separator>,
    /// The way in which all fields except the id's are kept, if they are.
    pub keep: KeepFields,
    /// How the job generates, for requests that ask for that.
    pub batch: BatchOptions,
    /// A longer text is a failure. Bytes of UTF-8.
    pub max_text_bytes: usize,
}

/// The fields that name a record's languages. A row without such a field, or with an empty one, names none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LanguageFields {
    /// The language of the text.
    pub source: Option<String>,
    /// The language of the output.
    pub target: Option<String>,
}

impl LanguageFields {
    /// Each field that is named, with the flag that names it.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let source = self.source.as_deref().map(|field| (field, "--source-language-field"));
        source.into_iter().chain(self.target.as_deref().map(|field| (field, "--target-language-field")))
    }
}

impl ReaderOptions {
    /// A row with more bytes is a failure and never held in memory. JSON escapes one byte of text as six at
    /// most (`\u0041`), so an allowed text always fits, with room for other fields.
    pub(crate) fn max_row_bytes(&self) -> usize {
        self.max_text_bytes.saturating_mul(8).saturating_add(64 * 1024)
    }

    /// The names, or paths, of all fields that make a record.
    pub(crate) fn record_fields(&self) -> Vec<&str> {
        let ids = self.id_field.as_deref().map_or_else(|| ID_FIELDS.to_vec(), |field| vec![field]);
        let languages = self.language_fields.flags().map(|(field, _)| field);
        std::iter::once(self.text_field.as_str()).chain(ids).chain(languages).collect()
    }
}

/// The records and failures of one file, in file order.
pub struct RecordReader {
    shape: Shape,
    gauge: Arc<Gauge>,
    num_rows: u64,
    has_ended: bool,
    state: State,
}

enum State {
    Unopened(InputSource, Compression),
    Open(Box<dyn RowReader>),
    Broken,
}

/// The fields that make a row a record.
struct Shape {
    uri: String,
    options: ReaderOptions,
    format: Format,
}

/// A record that was found and can be read or passed over.
pub struct FoundRecord<'reader> {
    shape: &'reader Shape,
    row: Row<'reader>,
}

impl RecordReader {
    /// Reads `source`, the raw bytes of the file that the listing names `uri`. Format and compression are
    /// told from the name, unless the options force a format. Nothing is read before the first record is
    /// looked for.
    ///
    /// # Errors
    /// The format is not known or not read. A broken file is no error here.
    pub fn new(uri: &str, source: InputSource, options: &ReaderOptions) -> Result<RecordReader, FormatError> {
        let (format, compression) = Format::of(uri, options.format)?;
        if !format.reads() {
            return Err(FormatError::NotRead { name: format.name() });
        }
        Ok(RecordReader {
            shape: Shape { uri: uri.to_owned(), options: options.clone(), format },
            gauge: Arc::default(),
            num_rows: 0,
            has_ended: false,
            state: State::Unopened(source, compression),
        })
    }

    /// Finds the next record; `None` at the end of the file, and after a failure.
    ///
    /// # Errors
    /// The rest of the file cannot be read.
    pub fn find_next(&mut self) -> Result<Option<FoundRecord<'_>>, InputFailure> {
        self.open()?;
        let State::Open(rows) = &mut self.state else { return Ok(None) };
        if self.has_ended {
            return Ok(None);
        }
        let row = match rows.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => {
                self.has_ended = true;
                return Ok(None);
            }
            Err(broken) => {
                self.has_ended = true;
                return Err(failure(&self.shape.uri, &self.gauge, self.num_rows, &broken));
            }
        };
        self.num_rows += 1;
        Ok(Some(FoundRecord { shape: &self.shape, row }))
    }

    /// Oddities of the file that are no failures, one per line; known after the first record.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        match &self.state {
            State::Open(rows) => rows.remarks(),
            State::Unopened(..) | State::Broken => &[],
        }
    }

    /// The columns that rows keep; `None` if each row has its own fields. Known after the first look for
    /// a record.
    pub(crate) fn kept_columns(&self) -> Option<KeptColumns> {
        let State::Open(rows) = &self.state else { return None };
        let columns = rows.columns()?;
        let fields = columns.schema().fields();
        let is_id = |name: &&str| fields.iter().any(|field| field.name() == name && may_be_id(field));
        let id = match &self.shape.options.id_field {
            Some(name) => Some(name.as_str()),
            None => ID_FIELDS.into_iter().find(is_id),
        };
        let others = fields.iter().filter(|field| Some(field.name().as_str()) != id);
        Some(KeptColumns::new(others.map(|field| &**field)))
    }

    fn open(&mut self) -> Result<(), InputFailure> {
        if !matches!(self.state, State::Unopened(..)) {
            return Ok(());
        }
        let State::Unopened(source, compression) = std::mem::replace(&mut self.state, State::Broken) else {
            unreachable!("it was just looked at");
        };
        let opened = self.open_rows(source, compression);
        let rows = opened
            .map_err(|error| failure(&self.shape.uri, &self.gauge, 0, &BrokenOff { line: 1, error }))?;
        self.state = State::Open(rows);
        Ok(())
    }

    fn open_rows(&self, source: InputSource, compression: Compression) -> io::Result<Box<dyn RowReader>> {
        let options = &self.shape.options;
        match (self.shape.format.row().opener, source) {
            (Some(Opener::Text(open)), InputSource::Stream(input)) => {
                let unpacked = compression.decode(self.gauge.watch_source(input))?;
                open(open_text(self.gauge.count(unpacked))?, options)
            }
            (Some(Opener::Ranged(open)), InputSource::Ranged(input)) => {
                open(self.gauge.watch_ranges(input), options)
            }
            _ => unreachable!("a caller opens a source as `Format::needs_ranges` says"),
        }
    }
}

/// Tells the place that failed from the content that is broken.
pub(crate) fn failure(uri: &str, gauge: &Gauge, rows_read: u64, broken: &BrokenOff) -> InputFailure {
    let cause = match gauge.take_source_error() {
        Some(error) => InputFailureCause::Source(error),
        None => InputFailureCause::Content(broken.error.to_string()),
    };
    InputFailure {
        uri: uri.to_owned(),
        line: broken.line,
        rows_read,
        num_bytes_read: gauge.num_bytes(),
        cause,
    }
}

impl FoundRecord<'_> {
    /// The record's weight in a shard: the uncompressed bytes of its row.
    pub fn num_bytes(&self) -> u64 {
        self.row.num_bytes
    }

    /// The names of its fields; `None` if they cannot be told. Removes its names from `missing`.
    pub(crate) fn field_names(
        self,
        missing: &mut Vec<(&str, &'static str)>,
    ) -> Option<(Vec<String>, &'static str)> {
        if let RowContent::Request(_) = self.row.content {
            missing.clear(); // a request's fields are not named
            return Some((Vec::new(), ""));
        }
        let fields = Fields::of(self.row, &self.shape.options.text_field).ok()?;
        missing.retain(|(name, _)| fields.get(name).is_none());
        let hint = if fields.names().len() == 1 { self.shape.format.row().lone_column_hint } else { "" };
        Some((fields.names().into_iter().map(str::to_owned).collect(), hint))
    }

    /// All its fields, of any name, with the line or number of its row.
    ///
    /// # Errors
    /// The reason why it has none.
    pub fn read_fields(self) -> Result<(u64, Map<String, Value>), RecordFailure> {
        let line = self.row.line;
        let fields =
            Fields::of(self.row, &self.shape.options.text_field).and_then(|fields| fields.all_but(None));
        fields.map(|fields| (line, fields)).map_err(|fault| self.shape.failure(line, None, fault))
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
        let ReaderOptions { text_field, keep, .. } = &self.options;
        if let RowContent::Request(content) = row.content {
            let request = request(content, &self.options.batch);
            let request = request.map_err(|(id, fault)| self.failure(line, id, fault))?;
            let (id, max_new_tokens) = (request.custom_id, request.max_new_tokens);
            return match self.usable(request.text) {
                Ok(text) => {
                    let source = RecordSource { uri: self.uri.clone(), line };
                    let fields = KeptFields::Json(request.fields);
                    Ok(Record { fields, max_new_tokens, ..Record::new(0, id, source, text) })
                }
                Err(fault) => Err(self.failure(line, Some(id), fault)),
            };
        }
        let fields = Fields::of(row, text_field).map_err(|fault| self.failure(line, None, fault))?;
        let (id, id_field) = self.id(&fields, line).map_err(|fault| self.failure(line, None, fault))?;
        let kept = |text| match keep {
            KeepFields::No => Ok((text, KeptFields::default())),
            KeepFields::AsJson => Ok((text, KeptFields::Json(fields.all_but(id_field)?))),
            KeepFields::AsColumns(columns) => Ok((text, KeptFields::Columns(fields.in_columns(columns)?))),
        };
        let own = |(text, kept)| Ok((text, kept, self.languages(&fields)?, self.terms(&fields)?));
        match self.text(&fields).and_then(kept).and_then(own) {
            Ok((text, fields, languages, terms)) => {
                let source = RecordSource { uri: self.uri.clone(), line };
                Ok(Record { fields, languages, terms, ..Record::new(0, id, source, text) })
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
        for name in ID_FIELDS {
            match fields.get(name).map(FieldValue::to_id) {
                Some(Ok(id)) => return Ok((id, Some(name))),
                Some(Err(NoText::Invalid(fault))) => return Err(fault),
                Some(Err(NoText::Type(_))) | None => {}
            }
        }
        Ok((format!("{}:{line}", self.uri), None))
    }

    /// The languages that a record's fields name.
    fn languages(&self, fields: &Fields<'_>) -> Result<LanguageChoice, Fault> {
        let code = |name: &Option<String>| {
            let Some(name) = name else { return Ok(None) };
            match fields.get(name).map(FieldValue::to_text) {
                Some(Ok(code)) => Ok(Some(code.trim().to_owned()).filter(|code| !code.is_empty())),
                Some(Err(NoText::Type(NULL))) | None => Ok(None),
                Some(Err(NoText::Type(found))) => Err(wrong_type(name, found, "a string")),
                Some(Err(NoText::Invalid(fault))) => Err(fault),
            }
        };
        let LanguageFields { source, target } = &self.options.language_fields;
        Ok(LanguageChoice { source: code(source)?, target: code(target)? })
    }

    fn text(&self, fields: &Fields<'_>) -> Result<String, Fault> {
        let ReaderOptions { text_field, .. } = &self.options;
        let value = fields
            .get(text_field)
            .ok_or_else(|| self.missing_field(text_field, "text_field", "--text-field", fields))?;
        let text = value.to_text().map_err(|error| match error {
            NoText::Type(found) => wrong_type(text_field, found, "a string"),
            NoText::Invalid(fault) => fault,
        })?;
        self.usable(text)
    }

    /// The record's own glossary; empty without the field.
    fn terms(&self, fields: &Fields<'_>) -> Result<Vec<String>, Fault> {
        let Some(name) = &self.options.glossary_field else { return Ok(Vec::new()) };
        let Some(value) = fields.get(name) else { return Ok(Vec::new()) };
        let invalid = |problem| Fault::new(FailureCode::WrongType, format!("field `{name}` {problem}"));
        terms_of(&value.to_json(name)?).map_err(invalid)
    }

    /// The text, if it is neither too long nor blank.
    fn usable(&self, text: String) -> Result<String, Fault> {
        let max_text_bytes = self.options.max_text_bytes;
        if text.len() > max_text_bytes {
            return Err(Fault::new(
                FailureCode::TextTooLong,
                format!("the text has {} bytes; `max_text_bytes` is {max_text_bytes}", text.len()),
            ));
        }
        if text.trim().is_empty() && !self.format.row().keeps_blank_rows {
            return Err(Fault::new(FailureCode::EmptyText, "the text is empty or only white space"));
        }
        Ok(text)
    }

    /// Says which fields there are, by name alone, and how to name the right one.
    fn missing_field(&self, name: &str, option: &str, flag: &str, fields: &Fields<'_>) -> Fault {
        let names = fields.names();
        let mut present: Vec<String> =
            names.iter().take(MAX_FIELDS_NAMED).map(|key| format!("`{}`", abridged(key))).collect();
        if names.len() > MAX_FIELDS_NAMED {
            present.push(format!("{} more", names.len() - MAX_FIELDS_NAMED));
        }
        let found = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
        let hint = if names.len() == 1 { self.format.row().lone_column_hint } else { "" };
        let message = format!("no field `{name}`, found: {found}{hint}; name it with {flag} or `{option}`");
        Fault::new(FailureCode::MissingField, message)
    }
}

/// A field's name as one short line: a table without a header has texts for names.
pub(crate) fn abridged(name: &str) -> String {
    let mut shown: String = name.chars().take(MAX_NAME_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

pub(crate) fn wrong_type(name: &str, found: &str, expected: &str) -> Fault {
    Fault::new(FailureCode::WrongType, format!("field `{name}` is {found}, expected {expected}"))
}

pub(crate) fn invalid_utf8(what: &str, error: std::str::Utf8Error) -> Fault {
    Fault::new(
        FailureCode::InvalidUtf8,
        format!("{what} is not UTF-8 from byte {} on", error.valid_up_to() + 1),
    )
}

#[cfg(test)]
mod tests;
