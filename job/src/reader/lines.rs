//! Formats in which a row is a line: JSONL and plain text. Lines end in LF or CRLF.

use std::io::{self, BufRead, Read};

use serde_json::{Map, Value};

use super::{Fault, Row, RowReader, invalid_utf8};
use crate::FailureCode;

/// JSONL: one object a line, blank lines are no records.
pub(super) struct JsonLines {
    lines: Lines,
}

/// Plain text: every line is the text of one record.
pub(super) struct TextLines {
    lines: Lines,
    text_field: String,
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
    pub(super) fn new(input: Box<dyn BufRead + Send>, max_line_bytes: usize, text_field: &str) -> TextLines {
        TextLines { lines: Lines::new(input, max_line_bytes), text_field: text_field.to_owned() }
    }
}

impl RowReader for JsonLines {
    fn next_row(&mut self) -> io::Result<Option<Row>> {
        while let Some(content) = self.lines.next_line()? {
            let fields = match content {
                Ok(text) if text.trim_ascii().is_empty() => continue,
                Ok(text) => parse_object(text),
                Err(fault) => Err(fault),
            };
            return Ok(Some(Row { line: self.lines.line, fields }));
        }
        Ok(None)
    }

    fn line(&self) -> u64 {
        self.lines.line
    }
}

impl RowReader for TextLines {
    fn next_row(&mut self) -> io::Result<Option<Row>> {
        let Some(content) = self.lines.next_line()? else { return Ok(None) };
        let fields = content.map(|text| Map::from_iter([(self.text_field.clone(), Value::from(text))]));
        Ok(Some(Row { line: self.lines.line, fields }))
    }

    fn line(&self) -> u64 {
        self.lines.line
    }
}

impl Lines {
    fn new(input: Box<dyn BufRead + Send>, max_line_bytes: usize) -> Lines {
        Lines { input, max_line_bytes, line: 0, buffer: Vec::new() }
    }

    /// The next line without its end, or why it has no text; `None` at the end of the file.
    fn next_line(&mut self) -> io::Result<Option<Result<&str, Fault>>> {
        self.line += 1;
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
            return Ok(Some(Err(Fault::row_too_long("the line", self.max_line_bytes))));
        }
        Ok(Some(std::str::from_utf8(&self.buffer).map_err(|error| invalid_utf8("the line", error))))
    }
}

/// Messages name the column and what the parser expected, and never quote what it found.
fn parse_object(text: &str) -> Result<Map<String, Value>, Fault> {
    serde_json::from_str(text).map_err(|error| {
        if error.is_data() {
            return Fault::new(FailureCode::WrongType, "the line is JSON but not an object");
        }
        let message = error.to_string();
        let expected = message.split(" at line ").next().unwrap_or_default();
        Fault::new(FailureCode::InvalidJson, format!("not JSON at column {}: {expected}", error.column()))
    })
}
