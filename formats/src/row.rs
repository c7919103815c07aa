//! Rows: the items of a format's reader, found but not parsed.

use std::io::{self, BufRead, Read};

use crate::ReaderOptions;
use crate::columns::ColumnRow;
use crate::kept::KeptColumns;
use crate::record::FailureCode;
use crate::table::Cells;

/// Rows of one file, in order. Implementations differ in the delimiters of rows and in their fields.
pub(crate) trait RowReader: Send {
    /// The next row; `None` at the end of the file.
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff>;

    /// Oddities of the file that are no failures; known after the first row.
    fn remarks(&self) -> &[String] {
        &[]
    }

    /// The columns of the file; `None` if rows have their own fields. Known after the first row.
    fn columns(&self) -> Option<KeptColumns> {
        None
    }
}

/// Opens a format's files. The error's message names a problem of the file as a whole.
#[derive(Clone, Copy)]
pub(crate) enum Opener {
    /// From front to back, decompressed and converted to UTF-8 before.
    Text(OpenText),
    /// By ranges.
    Ranged(OpenRanged),
}

type OpenText = fn(Box<dyn BufRead + Send>, &ReaderOptions) -> io::Result<Box<dyn RowReader>>;
type OpenRanged = fn(Box<dyn RangedRead>, &ReaderOptions) -> io::Result<Box<dyn RowReader>>;

/// The bytes of an input.
pub enum InputSource {
    /// From front to back.
    Stream(Box<dyn Read + Send>),
    /// Reads ranges; needed if [`Format::needs_ranges`](crate::Format::needs_ranges).
    Ranged(Box<dyn RangedRead>),
}

/// A file that can be read at any place.
pub trait RangedRead: Send + Sync {
    /// Bytes of the whole file.
    fn num_bytes(&self) -> u64;

    /// Fills `buffer` with the bytes from `start` on.
    ///
    /// # Errors
    /// The bytes cannot be read, or the file has fewer.
    fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Why the rest of a file cannot be read.
#[derive(Debug)]
pub(crate) struct BrokenOff {
    /// Where reading stopped, from 1.
    pub(crate) line: u64,
    pub(crate) error: io::Error,
}

/// A row that was found, but not looked into.
pub(crate) struct Row<'row> {
    pub(crate) line: u64,
    /// Its weight in a shard: its bytes without delimiters, 0 if they are not held.
    pub(crate) num_bytes: u64,
    pub(crate) content: RowContent<'row>,
}

pub(crate) enum RowContent<'row> {
    /// A line that should be a JSON object.
    Json(&'row [u8]),
    /// A line that is a text.
    Text(&'row [u8]),
    /// A line that should be a request of a batch.
    Request(&'row [u8]),
    /// The cells of a table's row.
    Cells(Cells<'row>),
    /// A row of typed columns.
    Columns(ColumnRow<'row>),
    /// There is nothing to look into.
    Fault(Fault),
}

/// A problem of a row or record.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: FailureCode,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(code: FailureCode, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into() }
    }

    pub(crate) fn row_too_long(what: &str, max_row_bytes: usize) -> Fault {
        Fault::new(
            FailureCode::TextTooLong,
            format!("{what} is longer than {max_row_bytes} bytes, the most read at this `max_text_bytes`"),
        )
    }
}

/// An error that makes the whole file unusable, and not only a row.
pub(crate) fn broken_content(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}
