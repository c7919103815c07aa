//! Formats in which a row is a line: JSONL and plain text. Lines end in LF or CRLF.

use std::io::{self, BufRead, Read};

use super::{BrokenOff, Fault, Row, RowContent, RowReader};

/// JSONL: one object a line, blank lines are no records.
pub(super) struct JsonLines {
    lines: Lines,
}

/// Plain text: every line is the text of one record.
pub(super) struct TextLines {
    lines: Lines,
}

struct Lines {
    input: Box<dyn BufRead + Send>,
    max_line_bytes: usize,
    line: u64,
    buffer: Vec<u8>,
}

impl JsonLines {
    pub(super) fn new(input: Box<dyn BufRead + Send>, max_line_bytes: usize) -> JsonLines {
        JsonLines { lines: Lines::new(input, max_line_bytes) }
    }
}

impl TextLines {
    pub(super) fn new(input: Box<dyn BufRead + Send>, max_line_bytes: usize) -> TextLines {
        TextLines { lines: Lines::new(input, max_line_bytes) }
    }
}

impl RowReader for JsonLines {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        while let Some(fault) = self.lines.advance()? {
            if fault.is_some() || !self.lines.buffer.trim_ascii().is_empty() {
                return Ok(Some(self.lines.row(fault, RowContent::Json)));
            }
        }
        Ok(None)
    }
}

impl RowReader for TextLines {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        let Some(fault) = self.lines.advance()? else { return Ok(None) };
        Ok(Some(self.lines.row(fault, RowContent::Text)))
    }
}

impl Lines {
    fn new(input: Box<dyn BufRead + Send>, max_line_bytes: usize) -> Lines {
        Lines { input, max_line_bytes, line: 0, buffer: Vec::new() }
    }

    /// Reads the next line, without its end, into the buffer, or says why it is not held; `None` at the end of the file.
    fn advance(&mut self) -> Result<Option<Option<Fault>>, BrokenOff> {
        self.line += 1;
        self.fill().map_err(|error| BrokenOff { line: self.line, error })
    }

    fn fill(&mut self) -> io::Result<Option<Option<Fault>>> {
        self.buffer.clear();
        let limit = self.max_line_bytes as u64 + 1;
        if (&mut self.input).take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(None);
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            self.buffer.pop_if(|last| *last == b'\r');
        } else if self.buffer.len() > self.max_line_bytes {
            self.input.skip_until(b'\n')?;
            return Ok(Some(Some(Fault::row_too_long("the line", self.max_line_bytes))));
        }
        Ok(Some(None))
    }

    /// The line in the buffer.
    fn row<'row>(&'row self, fault: Option<Fault>, content: fn(&'row [u8]) -> RowContent<'row>) -> Row<'row> {
        match fault {
            Some(fault) => Row { line: self.line, num_bytes: 0, content: RowContent::Fault(fault) },
            None => {
                Row { line: self.line, num_bytes: self.buffer.len() as u64, content: content(&self.buffer) }
            }
        }
    }
}
