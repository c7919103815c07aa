//! CSV and TSV: a header row names the columns. The state machine of [`csv_core`] splits cells; this file feeds it,
//! counts lines and bounds memory, which the higher-level reader of that crate does not.

use std::io::{self, BufRead};

use serde_json::{Map, Value};

use super::{Fault, Row, RowReader, invalid_utf8};
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

    fn cells(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.num_cells).map(|index| {
            let start = if index == 0 { 0 } else { self.cell_ends[index - 1] };
            &self.cells[start..self.cell_ends[index]]
        })
    }

    fn fields(&self, columns: &[String]) -> Result<Map<String, Value>, Fault> {
        if self.num_cells != columns.len() {
            let (found, expected) = (self.num_cells, columns.len());
            let message =
                format!("the row has {found} columns, the header has {expected}; is a cell not quoted?");
            return Err(Fault::new(FailureCode::InvalidRow, message));
        }
        let field = |(name, cell): (&String, &[u8])| {
            let text = std::str::from_utf8(cell)
                .map_err(|error| invalid_utf8(&format!("column `{name}`"), error))?;
            Ok((name.clone(), Value::from(text)))
        };
        columns.iter().zip(self.cells()).map(field).collect()
    }
}

impl RowReader for Table {
    fn next_row(&mut self) -> io::Result<Option<Row>> {
        loop {
            if !self.advance_to_row()? {
                return Ok(None);
            }
            let line = self.line();
            let fault = match self.split_row()? {
                Split::Cells => match &self.columns {
                    Some(columns) => return Ok(Some(Row { line, fields: self.fields(columns) })),
                    None => {
                        let name = |cell| String::from_utf8_lossy(cell).into_owned();
                        self.columns = Some(self.cells().map(name).collect());
                        continue;
                    }
                },
                Split::TooLong => Fault::row_too_long("the row", self.max_row_bytes),
                Split::UnclosedQuote => Fault::new(
                    FailureCode::InvalidRow,
                    "a quote opens in this row and is never closed, so the row takes in the rest of the file",
                ),
            };
            self.columns.get_or_insert_default(); // without a header, every row that follows fails too
            return Ok(Some(Row { line, fields: Err(fault) }));
        }
    }

    fn line(&self) -> u64 {
        self.line_feeds + 1
    }
}

fn count_line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}
