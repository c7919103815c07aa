//! Parts and collected files: which format and compression, and the bytes of rows.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

use baton_generation::QualityColumns;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::compression::Sink;
use crate::kept::KeepFields;
use crate::text::open_text;
use crate::{Compression, Format, FormatError, OutputRow, RecordFailure, Separator};

/// Format and compression of a job's parts. Written `jsonl`, `jsonl.zst`: the ending of the parts'
/// names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PartFormat {
    format: Format,
    compression: Compression,
}

/// The options of a job's parts; each of them affects the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartOptions {
    /// How rows lie in a part.
    pub format: PartFormat,
    /// Each row has its record's input and line.
    pub has_origin: bool,
    /// Rows may have several outputs.
    pub has_alternatives: bool,
    /// The statements of rows about their outputs' quality.
    pub quality: QualityColumns,
    /// Rows name the tier that wrote them.
    pub has_tier: bool,
    /// Rows have the fields of their records.
    pub keep: KeepFields,
}

/// Columns written beside the outputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Each record's input and line, of formats with columns.
    pub has_origin: bool,
    /// Failed records too.
    pub has_errors: bool,
    /// Whether rows may have several outputs.
    pub has_alternatives: bool,
    /// The statements of rows about their outputs' quality.
    pub quality: QualityColumns,
    /// Rows name the tier that wrote them.
    pub has_tier: bool,
    /// The form of kept fields in rows.
    pub keep: KeepFields,
    /// Names of the kept fields, of tables; each is a column.
    pub kept_fields: Vec<String>,
    /// The byte between cells; `None`: the format's own.
    pub separator: Option<Separator>,
}

/// Writes rows in one format.
pub(crate) trait RowWriter {
    /// # Errors
    /// The output cannot be written, or the format cannot hold the row.
    fn write_row(&mut self, row: &OutputRow) -> Result<(), RowError>;

    /// Writes a failed record in the form of this format.
    ///
    /// # Errors
    /// As above.
    fn write_failure(&mut self, failure: &RecordFailure) -> Result<(), RowError>;

    /// Writes the rest.
    ///
    /// # Errors
    /// The output cannot be written.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Why a row is not written.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The output cannot be written.
    #[error("cannot write the rows")]
    Io(#[from] io::Error),
    /// The format cannot hold the row.
    #[error("record {id} cannot be written in this format: {problem}")]
    NotInThisFormat {
        /// The record.
        id: String,
        /// The content without a place in this format, and the formats that have one.
        problem: &'static str,
    },
}

type OpenWriter = for<'w> fn(Sink<'w>, &WriteOptions) -> io::Result<Box<dyn RowWriter + 'w>>;

type OpenReader = fn(Box<dyn Read + Send>, Compression) -> io::Result<PartReader>;

/// Writes a format, and reads it back if the format can hold all of a part.
#[derive(Clone, Copy)]
pub(crate) struct PartCodec {
    pub(crate) open_writer: OpenWriter,
    pub(crate) reader: Option<OpenReader>,
    /// Whether concatenated files of this format are one file with all their rows.
    pub(crate) is_concatenable: bool,
    /// Whether its columns have types, so that columns of an input keep theirs.
    pub(crate) has_types: bool,
}

/// Writes rows; the bytes depend on them alone.
pub struct PartWriter<'w>(Box<dyn RowWriter + 'w>);

/// The rows of a part, in order.
pub struct PartReader {
    pub(crate) keep: KeepFields,
    pub(crate) rows: Box<dyn Iterator<Item = io::Result<OutputRow>>>,
}

impl PartFormat {
    /// Every format that parts can have.
    pub fn all() -> impl Iterator<Item = PartFormat> {
        let is_part = |format: &Format| format.row().part_codec.is_some_and(|codec| codec.reader.is_some());
        Format::all().filter(is_part).flat_map(|format| {
            let compressions = Compression::ALL.into_iter();
            let fits = move |compression: &Compression| {
                format.row().is_compressible || *compression == Compression::Plain
            };
            compressions.filter(fits).map(move |compression| PartFormat { format, compression })
        })
    }

    /// The format and compression that a collected file's name tells.
    ///
    /// # Errors
    /// The name says nothing and no format is forced, or Baton does not write that format.
    pub fn of_file(name: &str, forced: Option<Format>) -> Result<PartFormat, FormatError> {
        let (format, compression) = Format::of(name, forced)?;
        match format.writes() {
            true => Ok(PartFormat { format, compression }),
            false => Err(FormatError::NotWritten { name: format.name().to_owned() }),
        }
    }

    /// The format without its compression.
    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }

    /// The ending of a part's name, with its point.
    #[must_use]
    pub fn suffix(self) -> String {
        let suffix = self.format.row().suffixes.first().copied().unwrap_or(self.format.name());
        format!(".{suffix}{}", self.compression.suffix())
    }

    /// Whether concatenated files of this format are one file of this format with all their rows.
    #[must_use]
    pub fn is_concatenable(self) -> bool {
        self.codec().is_concatenable
    }

    /// Whether its columns have types, so that columns of an input keep theirs.
    #[must_use]
    pub fn has_types(self) -> bool {
        self.codec().has_types
    }

    fn codec(self) -> PartCodec {
        self.format.row().part_codec.expect("a part format is written")
    }

    /// Writes rows into `output`.
    ///
    /// # Errors
    /// The beginning cannot be written.
    pub fn writer<'w>(
        self,
        output: Box<dyn Write + Send + 'w>,
        options: &WriteOptions,
    ) -> io::Result<PartWriter<'w>> {
        Ok(PartWriter((self.codec().open_writer)(self.compression.encode(output)?, options)?))
    }

    /// The bytes of a part with these rows.
    ///
    /// # Errors
    /// The format cannot hold a row.
    pub fn part<'rows>(
        self,
        rows: impl IntoIterator<Item = &'rows OutputRow>,
        options: &WriteOptions,
    ) -> Result<Vec<u8>, RowError> {
        let mut part = Vec::new();
        let mut num_rows = 0;
        let mut writer = self.writer(Box::new(&mut part), options)?;
        for row in rows {
            writer.write_row(row)?;
            num_rows += 1;
        }
        writer.finish()?;
        if num_rows == 0 && self.is_concatenable() {
            part.clear(); // an empty part is an empty file in every compression
        }
        Ok(part)
    }

    /// Reads the rows of a part.
    ///
    /// # Errors
    /// It is no such file, or this format holds no whole rows.
    pub fn reader(self, input: Box<dyn Read + Send>) -> io::Result<PartReader> {
        let Some(reader) = self.codec().reader else {
            let message = format!("files of format {self} are not read as parts");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        };
        reader(input, self.compression)
    }
}

/// The text of a file, decompressed; an empty file has none, however it is named.
///
/// # Errors
/// The file cannot be read, or has another format than its name says.
pub(crate) fn open_text_file(
    mut input: Box<dyn Read + Send>,
    compression: Compression,
) -> io::Result<Box<dyn BufRead + Send>> {
    let mut first = [0];
    let num_bytes = input.read(&mut first)?;
    match num_bytes {
        0 => Ok(Box::new(io::empty())),
        _ => open_text(compression.decode(Box::new(io::Cursor::new(first).chain(input)))?),
    }
}

impl Default for PartFormat {
    /// Plain JSONL.
    fn default() -> Self {
        PartFormat {
            format: Format::named(crate::jsonl::FORMAT.name).expect("it is in the table"),
            compression: Compression::Plain,
        }
    }
}

impl PartOptions {
    /// The bytes of a part with these rows.
    ///
    /// # Errors
    /// The format cannot hold a row.
    pub fn part<'rows>(&self, rows: impl IntoIterator<Item = &'rows OutputRow>) -> Result<Vec<u8>, RowError> {
        let options = WriteOptions {
            has_origin: self.has_origin,
            has_alternatives: self.has_alternatives,
            quality: self.quality,
            has_tier: self.has_tier,
            keep: self.keep.clone(),
            ..WriteOptions::default()
        };
        self.format.part(rows, &options)
    }
}

impl PartWriter<'_> {
    /// Writes a row.
    ///
    /// # Errors
    /// The output cannot be written, or the format cannot hold the row.
    pub fn write_row(&mut self, row: &OutputRow) -> Result<(), RowError> {
        self.0.write_row(row)
    }

    /// Writes a failed record in the form of this format.
    ///
    /// # Errors
    /// As for rows.
    pub fn write_failure(&mut self, failure: &RecordFailure) -> Result<(), RowError> {
        self.0.write_failure(failure)
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(self) -> io::Result<()> {
        self.0.finish()
    }
}

impl PartReader {
    /// The form of kept fields in its rows.
    #[must_use]
    pub fn keep(&self) -> &KeepFields {
        &self.keep
    }
}

impl Iterator for PartReader {
    type Item = io::Result<OutputRow>;

    fn next(&mut self) -> Option<io::Result<OutputRow>> {
        self.rows.next()
    }
}

impl fmt::Debug for PartFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PartFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.format, self.compression.suffix())
    }
}

impl FromStr for PartFormat {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<PartFormat, FormatError> {
        let found = PartFormat::all().find(|format| format.to_string() == name);
        found.ok_or_else(|| FormatError::NotAPart {
            name: name.to_owned(),
            known: PartFormat::all().map(|format| format.to_string()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Serialize for PartFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PartFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PartFormat, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
