//! CSV and TSV: a header row names the columns. The state machine of [`csv_core`] splits cells; this file feeds it,
//! counts lines and bounds memory, which the higher-level reader of that crate does not.

use std::io::{self, BufRead};

use super::{BrokenOff, Fault, Row, RowContent, RowReader};
use crate::FailureCode;

/// A row with more cells is refused like one with too many bytes.
const MAX_COLUMNS: usize = 16 * 1024;

pub(super) struct Table {
    input: Box<dyn BufRead + Send>,
    parser: csv_core::Reader,
    max_row_bytes: usize,
    columns: Option<Vec<String>>,
    /// Line feeds consumed so far.
    line_feeds: u64,
    /// The cells of the last row, one after the other, and where each of them ends.
    cells: Vec<u8>,
    cell_ends: Vec<usize>,
    num_cells: usize,
}

/// The cells of a row, and the names of their columns.
pub(super) struct Cells<'row> {
    pub(super) columns: &'row [String],
    bytes: &'row [u8],
    /// Where each cell ends.
    pub(super) ends: &'row [usize],
}

/// What became of a row.
#[derive(Clone, Copy)]
enum Split {
    /// It is in `cells`.
    Cells,
    /// It was longer than allowed and skipped.
    TooLong,
    /// A quote was open at the end of the file.
    UnclosedQuote,
}

impl Table {
    pub(super) fn csv(input: Box<dyn BufRead + Send>, max_row_bytes: usize) -> Table {
        Table::new(input, max_row_bytes, csv_core::Reader::new())
    }

    pub(super) fn tsv(input: Box<dyn BufRead + Send>, max_row_bytes: usize) -> Table {
        let parser = csv_core::ReaderBuilder::new().delimiter(b'\t').quoting(false).build();
        Table::new(input, max_row_bytes, parser)
    }

    fn new(input: Box<dyn BufRead + Send>, max_row_bytes: usize, parser: csv_core::Reader) -> Table {
        Table {
            input,
            parser,
            max_row_bytes,
            columns: None,
            line_feeds: 0,
            cells: vec![0; 1024.min(max_row_bytes)],
            cell_ends: vec![0; 64],
            num_cells: 0,
        }
    }

    /// Skips blank lines, so that the next row begins at the next byte; false at the end of the file.
    fn advance_to_row(&mut self) -> io::Result<bool> {
        loop {
            let chunk = self.input.fill_buf()?;
            let num_blank = chunk.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
            if num_blank == 0 {
                return Ok(!chunk.is_empty());
            }
            self.line_feeds += count_line_feeds(&chunk[..num_blank]);
            self.input.consume(num_blank);
        }
    }

    /// Splits the row that begins at the next byte.
    fn split_row(&mut self) -> io::Result<Split> {
        use csv_core::ReadRecordResult;
        let (mut num_bytes, mut num_cells, mut split) = (0, 0, Split::Cells);
        loop {
            let chunk = self.input.fill_buf()?;
            let at_end = chunk.is_empty();
            // A file may end without a line end. One more ends the row, unless it falls between quotes.
            let chunk = if at_end { b"\n" } else { chunk };
            let (result, consumed, bytes_out, cells_out) = self.parser.read_record(
                chunk,
                &mut self.cells[num_bytes..],
                &mut self.cell_ends[num_cells..],
            );
            if !at_end {
                self.line_feeds += count_line_feeds(&chunk[..consumed]);
                self.input.consume(consumed);
            }
            num_bytes += bytes_out;
            num_cells += cells_out;
            match result {
                ReadRecordResult::InputEmpty if at_end => return Ok(Split::UnclosedQuote),
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.cells.len() < self.max_row_bytes => {
                    self.cells.resize((self.cells.len() * 2).min(self.max_row_bytes), 0);
                }
                ReadRecordResult::OutputEndsFull if self.cell_ends.len() < MAX_COLUMNS => {
                    self.cell_ends.resize(self.cell_ends.len() * 2, 0);
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (num_bytes, num_cells, split) = (0, 0, Split::TooLong); // overwrites what is skipped
                }
                ReadRecordResult::Record | ReadRecordResult::End => {
                    self.num_cells = num_cells;
                    return Ok(split);
                }
            }
        }
    }

    /// Splits the next row; gives the line on which it begins, `None` at the end of the file.
    fn advance(&mut self) -> Result<Option<(u64, Split)>, BrokenOff> {
        let row = |table: &mut Table| {
            if !table.advance_to_row()? {
                return Ok(None);
            }
            let line = table.line_feeds + 1;
            Ok(Some((line, table.split_row()?)))
        };
        row(self).map_err(|error| BrokenOff { line: self.line_feeds + 1, error })
    }

    fn cells<'row>(&'row self, columns: &'row [String]) -> Cells<'row> {
        Cells { columns, bytes: &self.cells, ends: &self.cell_ends[..self.num_cells] }
    }
}

impl<'row> Cells<'row> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &'row [u8]> + use<'row> {
        let (bytes, mut start) = (self.bytes, 0);
        self.ends.iter().map(move |&end| &bytes[std::mem::replace(&mut start, end)..end])
    }

    fn num_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default() as u64
    }
}

impl RowReader for Table {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        let Some((mut line, mut split)) = self.advance()? else { return Ok(None) };
        if self.columns.is_none() {
            if !matches!(split, Split::Cells) {
                self.columns = Some(Vec::new()); // without a header, every row that follows fails too
            } else {
                let name = |cell| String::from_utf8_lossy(cell).into_owned();
                self.columns = Some(self.cells(&[]).iter().map(name).collect());
                let Some(first) = self.advance()? else { return Ok(None) };
                (line, split) = first;
            }
        }
        let fault = match split {
            Split::Cells => {
                let cells = self.cells(self.columns.as_deref().unwrap_or_default());
                let num_bytes = cells.num_bytes();
                return Ok(Some(Row { line, num_bytes, content: RowContent::Cells(cells) }));
            }
            Split::TooLong => Fault::row_too_long("the row", self.max_row_bytes),
            Split::UnclosedQuote => Fault::new(
                FailureCode::InvalidRow,
                "a quote opens in this row and is never closed, so the row takes in the rest of the file",
            ),
        };
        Ok(Some(Row { line, num_bytes: 0, content: RowContent::Fault(fault) }))
    }
}

fn count_line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}
