//! Plain text: every line is the text of one record, a blank one too, so that lines stay aligned.

use std::io::{self, Write};

use arrow_schema::{DataType, Field};

use crate::compression::Sink;
use crate::format::FormatRow;
use crate::kept::KeptColumns;
use crate::lines::Lines;
use crate::part::{PartCodec, RowError, RowWriter, WriteOptions};
use crate::row::{BrokenOff, Opener, Row, RowContent, RowReader};
use crate::{OutputRow, RecordFailure};

pub(crate) static FORMAT: FormatRow = FormatRow {
    name: "txt",
    suffixes: &["txt"],
    about: "one text a line; every line is a record, so lines stay aligned; outputs alone are written",
    is_compressible: true,
    opener: Some(Opener::Text(|input, options| {
        let text_field = options.text_field.clone();
        Ok(Box::new(TextLines { lines: Lines::new(input, options.max_row_bytes()), text_field }))
    })),
    part_codec: Some(PartCodec {
        open_writer: |output, _: &WriteOptions| Ok(Box::new(TextWriter { output })),
        reader: None,
        is_concatenable: false,
        has_types: false,
    }),
    lone_column_hint: "",
    keeps_blank_rows: true,
    keeps_own_fields: false,
};

struct TextLines {
    lines: Lines,
    text_field: String,
}

impl RowReader for TextLines {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        let Some(fault) = self.lines.advance()? else { return Ok(None) };
        Ok(Some(self.lines.row(fault, RowContent::Text)))
    }

    fn columns(&self) -> Option<KeptColumns> {
        Some(KeptColumns::new([&Field::new(&self.text_field, DataType::Utf8, true)]))
    }
}

/// Writes one output a line. A record without one has a blank line.
struct TextWriter<'w> {
    output: Sink<'w>,
}

impl RowWriter for TextWriter<'_> {
    fn write_row(&mut self, row: &OutputRow) -> Result<(), RowError> {
        if row.output.contains(['\n', '\r']) {
            return Err(RowError::NotInThisFormat {
                id: row.id.clone(),
                problem: "its output has a line break, and a line is a record; write csv or jsonl",
            });
        }
        self.output.write_all(row.output.as_bytes())?;
        Ok(self.output.write_all(b"\n")?)
    }

    fn write_failure(&mut self, _: &RecordFailure) -> Result<(), RowError> {
        Ok(self.output.write_all(b"\n")?)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.output.finish()
    }
}
