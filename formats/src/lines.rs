//! Lines of a text, for formats in which a row is a line. They end in LF or CRLF.

use std::io::{self, BufRead, Read};

use crate::row::{BrokenOff, Fault, Row, RowContent};

pub(crate) struct Lines {
    input: Box<dyn BufRead + Send>,
    max_line_bytes: usize,
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(input: Box<dyn BufRead + Send>, max_line_bytes: usize) -> Lines {
        Lines { input, max_line_bytes, line: 0, buffer: Vec::new() }
    }

    /// Reads the next line, without its end, into the buffer, or says why it is not held; `None` at the end
    /// of the file.
    pub(crate) fn advance(&mut self) -> Result<Option<Option<Fault>>, BrokenOff> {
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

    /// Whether the line in the buffer has nothing but white space.
    pub(crate) fn is_blank(&self) -> bool {
        self.buffer.trim_ascii().is_empty()
    }

    /// The line in the buffer.
    pub(crate) fn row<'row>(
        &'row self,
        fault: Option<Fault>,
        content: fn(&'row [u8]) -> RowContent<'row>,
    ) -> Row<'row> {
        match fault {
            Some(fault) => Row { line: self.line, num_bytes: 0, content: RowContent::Fault(fault) },
            None => {
                Row { line: self.line, num_bytes: self.buffer.len() as u64, content: content(&self.buffer) }
            }
        }
    }
}
