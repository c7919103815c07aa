//! JSONL: one object a line. Blank lines are no records.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};

use crate::compression::Sink;
use crate::format::FormatRow;
use crate::kept::{KeepFields, KeptFields};
use crate::lines::Lines;
use crate::part::{PartCodec, PartReader, RowError, RowWriter, open_text_file};
use crate::row::{BrokenOff, Opener, Row, RowContent, RowReader};
use crate::{OutputRow, RecordFailure};

pub(crate) static FORMAT: FormatRow = FormatRow {
    name: "jsonl",
    suffixes: &["jsonl", "ndjson"],
    about: "one JSON object a line; blank lines are skipped; `a.b` names a field inside another",
    is_compressible: true,
    opener: Some(Opener::Text(|input, options| {
        Ok(Box::new(JsonLines { lines: Lines::new(input, options.max_row_bytes()) }))
    })),
    part_codec: Some(PartCodec {
        open_writer: |output, options| Ok(Box::new(JsonWriter { output, keep: options.keep.clone() })),
        reader: Some(|input, compression| {
            let rows = JsonRows { input: open_text_file(input, compression)?, line: 0 };
            Ok(PartReader { keep: KeepFields::AsJson, rows: Box::new(rows) })
        }),
        is_concatenable: true,
        has_types: false,
    }),
    lone_column_hint: "",
    keeps_blank_rows: false,
    keeps_own_fields: false,
};

pub(crate) struct JsonLines {
    lines: Lines,
}

impl RowReader for JsonLines {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        while let Some(fault) = self.lines.advance()? {
            if fault.is_some() || !self.lines.is_blank() {
                return Ok(Some(self.lines.row(fault, RowContent::Json)));
            }
        }
        Ok(None)
    }
}

struct JsonWriter<'w> {
    output: Sink<'w>,
    keep: KeepFields,
}

impl RowWriter for JsonWriter<'_> {
    fn write_row(&mut self, row: &OutputRow) -> Result<(), RowError> {
        let line = match self.keep.json_of(&row.fields)? {
            Cow::Borrowed(_) => row.to_json_line(),
            Cow::Owned(fields) => {
                OutputRow { fields: KeptFields::Json(fields), ..row.clone() }.to_json_line()
            }
        };
        Ok(self.output.write_all(&line)?)
    }

    fn write_failure(&mut self, failure: &RecordFailure) -> Result<(), RowError> {
        Ok(self.output.write_all(&failure.to_json_line())?)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.output.finish()
    }
}

/// The rows of a part.
struct JsonRows {
    input: Box<dyn BufRead + Send>,
    line: u64,
}

impl Iterator for JsonRows {
    type Item = io::Result<OutputRow>;

    fn next(&mut self) -> Option<io::Result<OutputRow>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            self.line += 1;
            match self.input.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(_) => {
                    let number = self.line;
                    let invalid = |error| {
                        let message = format!("line {number} is no output row: {error}");
                        io::Error::new(io::ErrorKind::InvalidData, message)
                    };
                    return Some(serde_json::from_slice(&line).map_err(invalid));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
