//! Rows of tables: splits CSV and TSV into cells, counts lines and bounds memory.
//!
//! This parser is stricter about quotes than most. Text after a closing quote makes the row invalid, and so
//! does a quote that is never closed. Reading then continues at the line after the quote opened, so a stray
//! quote costs one row, and not the rows after it. The parser keeps the bytes of the current row for that; it
//! skips a row that is too long to keep.

use std::io::{self, BufRead};

use arrow_schema::{DataType, Field};

use crate::kept::KeptColumns;
use crate::record::FailureCode;
use crate::row::{BrokenOff, Fault, Row, RowContent, RowReader, broken_content};
use crate::{ReaderOptions, Separator};

/// A row with more cells is refused like one with too many bytes.
const MAX_COLUMNS: usize = 16 * 1024;

pub(crate) struct Table {
    input: Box<dyn BufRead + Send>,
    /// Bytes that were read and are still in use. The current row begins at `start`, the next byte is at
    /// `place`.
    bytes: Vec<u8>,
    start: usize,
    place: usize,
    /// Line on which the current row begins, from 1.
    line: u64,
    separator: Option<Separator>,
    default_separator: Separator,
    has_quotes: bool,
    max_row_bytes: usize,
    columns: Option<Vec<String>>,
    /// Columns that may not occur twice; `None`: no column may.
    unique_columns: Option<Vec<String>>,
    remarks: Vec<String>,
    /// The cells of the last row, concatenated, and the end of each.
    cells: Vec<u8>,
    cell_ends: Vec<usize>,
}

/// The cells of a row, and the names of their columns.
pub(crate) struct Cells<'row> {
    pub(crate) columns: &'row [String],
    bytes: &'row [u8],
    /// Where each cell ends.
    pub(crate) ends: &'row [usize],
    /// Lines that the row takes.
    pub(crate) num_lines: u64,
}

/// The position of the next byte in a cell.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    Start,
    Bare,
    Quoted,
    /// After a quote within quotes: it closes the cell, or is the first of two.
    AfterQuote,
}

/// The result of splitting a row.
#[derive(Clone, Copy, PartialEq)]
enum Split {
    /// It is in `cells`.
    Cells,
    /// It was longer than allowed and skipped.
    TooLong,
    /// A quote was open at the end of the file.
    UnclosedQuote,
    /// Text follows a closing quote.
    TextAfterQuote,
}

/// A row that was split.
struct Found {
    line: u64,
    /// Lines that it took.
    num_lines: u64,
    split: Split,
}

impl Table {
    pub(crate) fn new(
        input: Box<dyn BufRead + Send>,
        default_separator: Separator,
        has_quotes: bool,
        options: &ReaderOptions,
    ) -> Table {
        let of_record = || options.record_fields().into_iter().map(str::to_owned).collect();
        let unique_columns = (!options.keep.keeps_any()).then(of_record);
        Table {
            input,
            bytes: Vec::new(),
            start: 0,
            place: 0,
            line: 1,
            separator: options.separator,
            default_separator,
            has_quotes,
            max_row_bytes: options.max_row_bytes(),
            columns: None,
            unique_columns,
            remarks: Vec::new(),
            cells: Vec::new(),
            cell_ends: Vec::new(),
        }
    }

    /// Reads some more bytes after the kept ones; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.bytes.drain(..self.start);
        self.place -= self.start;
        self.start = 0;
        let chunk = self.input.fill_buf()?;
        let num_bytes = chunk.len();
        self.bytes.extend_from_slice(chunk);
        self.input.consume(num_bytes);
        Ok(num_bytes > 0)
    }

    fn next_byte(&mut self) -> io::Result<Option<u8>> {
        if self.place == self.bytes.len() && !self.fill()? {
            return Ok(None);
        }
        self.place += 1;
        Ok(Some(self.bytes[self.place - 1]))
    }

    /// Lets go of all bytes before `place`; they were parts of rows that are done with.
    fn begin_row_at(&mut self, place: usize) {
        self.line += count_line_feeds(&self.bytes[self.start..place]);
        self.start = place;
        self.place = place;
    }

    /// Skips blank lines; false at the end of the file.
    fn advance_to_row(&mut self) -> io::Result<bool> {
        loop {
            match self.next_byte()? {
                None => return Ok(false),
                Some(b'\r' | b'\n') => self.begin_row_at(self.place),
                Some(_) => {
                    self.place -= 1;
                    return Ok(true);
                }
            }
        }
    }

    /// Splits the row that begins at the next byte, and sets the beginning of the next one.
    fn split_row(&mut self) -> io::Result<Found> {
        let separator = self.separator.unwrap_or(self.default_separator).byte();
        let line = self.line;
        self.cells.clear();
        self.cell_ends.clear();
        let mut position = Position::Start;
        let mut is_too_long = false;
        let split = loop {
            if self.cells.len() > self.max_row_bytes || self.cell_ends.len() > MAX_COLUMNS {
                is_too_long = true;
                self.cells.clear();
                self.cell_ends.clear();
            }
            if is_too_long && self.place == self.bytes.len() {
                self.begin_row_at(self.place); // what is skipped is not kept
            }
            let Some(byte) = self.next_byte()? else {
                if position == Position::Quoted {
                    break Split::UnclosedQuote;
                }
                self.cell_ends.push(self.cells.len());
                break Split::Cells;
            };
            position = match (position, byte) {
                (Position::Quoted, b'"') => Position::AfterQuote,
                (Position::Quoted, _) => {
                    self.cells.push(byte);
                    Position::Quoted
                }
                (Position::AfterQuote, b'"') => {
                    self.cells.push(b'"');
                    Position::Quoted
                }
                (_, b'\n' | b'\r') => {
                    self.cell_ends.push(self.cells.len());
                    break Split::Cells;
                }
                (_, byte) if byte == separator => {
                    self.cell_ends.push(self.cells.len());
                    Position::Start
                }
                (Position::AfterQuote, _) => break Split::TextAfterQuote,
                (Position::Start, b'"') if self.has_quotes => Position::Quoted,
                (Position::Start | Position::Bare, _) => {
                    self.cells.push(byte);
                    Position::Bare
                }
            };
        };
        match split {
            Split::UnclosedQuote | Split::TextAfterQuote => self.resynchronize(is_too_long)?,
            _ => self.begin_row_at(self.place),
        }
        let split = if is_too_long && split == Split::Cells { Split::TooLong } else { split };
        // A line feed that ends the row is consumed, unless the row ended with the file or a carriage return.
        let ends_in_line_feed = self.start > 0 && self.bytes[self.start - 1] == b'\n';
        let num_lines = self.line - line + u64::from(!ends_in_line_feed);
        Ok(Found { line, num_lines, split })
    }

    /// Makes the next row begin at the line after the one on which the current row began. If the row is too
    /// long to keep, the next row begins after the line of the error.
    fn resynchronize(&mut self, is_too_long: bool) -> io::Result<()> {
        let row = &self.bytes[self.start..self.place];
        if let Some(found) = row.iter().position(|&byte| byte == b'\n').filter(|_| !is_too_long) {
            self.begin_row_at(self.start + found + 1);
            return Ok(());
        }
        while let Some(byte) = self.next_byte()? {
            if byte == b'\n' {
                break;
            }
            if self.place == self.bytes.len() {
                self.begin_row_at(self.place);
            }
        }
        self.begin_row_at(self.place);
        Ok(())
    }

    /// Splits the next row; `None` at the end of the file.
    fn advance(&mut self) -> Result<Option<Found>, BrokenOff> {
        let row = |table: &mut Table| match table.advance_to_row()? {
            true => table.split_row().map(Some),
            false => Ok(None),
        };
        row(self).map_err(|error| BrokenOff { line: self.line, error })
    }

    /// Takes in a first line that tells the separator, as spreadsheets write and read it: `sep=;`.
    fn read_separator_line(&mut self) -> io::Result<()> {
        const LINE_NUM_BYTES: usize = b"sep=;\r\n".len();
        while self.bytes.len() - self.start < LINE_NUM_BYTES && self.fill()? {}
        let head = &self.bytes[self.start..];
        if let [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', byte, rest @ ..] = head
            && let Some(separator) = Separator::of_byte(*byte)
            && matches!(rest, [] | [b'\n' | b'\r', ..])
        {
            self.separator = self.separator.or(Some(separator)); // an option that was given wins
            self.begin_row_at(self.start + 5);
        }
        Ok(())
    }

    /// Reads the header; false where the file ends before it.
    fn read_header(&mut self) -> Result<bool, BrokenOff> {
        self.read_separator_line().map_err(|error| BrokenOff { line: self.line, error })?;
        let Some(Found { line, split, .. }) = self.advance()? else { return Ok(false) };
        let broken = |problem: String| {
            let error = broken_content(format!("its header, line {line}, {problem}"));
            Err(BrokenOff { line, error })
        };
        match split {
            Split::Cells => {}
            Split::TooLong => return broken(format!("is longer than {} bytes", self.max_row_bytes)),
            Split::UnclosedQuote => return broken("opens a quote that is never closed".to_owned()),
            Split::TextAfterQuote => return broken("has text after a closing quote".to_owned()),
        }
        let name = |cell: &[u8]| std::str::from_utf8(cell).map(str::to_owned);
        let names: Result<Vec<String>, _> = self.cells(&[], 1).iter().map(name).collect();
        let Ok(names) = names else { return broken("is not UTF-8".to_owned()) };
        for (place, name) in names.iter().enumerate() {
            if let Some(before) = names[..place].iter().position(|other| other == name) {
                let (first, second) = (before + 1, place + 1);
                let problem = format!("names two columns `{name}`, the {first}. and the {second}.");
                if self.unique_columns.as_ref().is_none_or(|unique| unique.contains(name)) {
                    return broken(problem + "; rename one");
                }
                self.remarks.push(format!("its header, line {line}, {problem}"));
            }
        }
        self.columns = Some(names);
        Ok(true)
    }

    fn cells<'row>(&'row self, columns: &'row [String], num_lines: u64) -> Cells<'row> {
        Cells { columns, bytes: &self.cells, ends: &self.cell_ends, num_lines }
    }
}

impl<'row> Cells<'row> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'row [u8]> + use<'row> {
        let (bytes, mut start) = (self.bytes, 0);
        self.ends.iter().map(move |&end| &bytes[std::mem::replace(&mut start, end)..end])
    }

    fn num_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default() as u64
    }
}

impl RowReader for Table {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        if self.columns.is_none() && !self.read_header()? {
            return Ok(None);
        }
        let Some(Found { line, num_lines, split }) = self.advance()? else { return Ok(None) };
        let invalid = |what: &str| {
            let message = format!("{what}; a quote inside a cell is written twice");
            Fault::new(FailureCode::InvalidRow, message)
        };
        let fault = match split {
            Split::Cells => {
                let cells = self.cells(self.columns.as_deref().unwrap_or_default(), num_lines);
                let num_bytes = cells.num_bytes();
                return Ok(Some(Row { line, num_bytes, content: RowContent::Cells(cells) }));
            }
            Split::TooLong => Fault::row_too_long("the row", self.max_row_bytes),
            Split::UnclosedQuote => invalid("a quote opens in this row and is never closed"),
            Split::TextAfterQuote => invalid("text stands behind a quote that closes a cell of this row"),
        };
        Ok(Some(Row { line, num_bytes: 0, content: RowContent::Fault(fault) }))
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn columns(&self) -> Option<KeptColumns> {
        let names = self.columns.as_deref().unwrap_or_default(); // a file without a header has no rows either
        let fields: Vec<Field> = names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
        Some(KeptColumns::new(&fields))
    }
}

fn count_line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}
