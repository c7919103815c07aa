//! CSV and TSV: a header row names the columns. How rows are split is in `table`.

use std::io;

use baton_generation::QualityColumns;

use crate::compression::Sink;
use crate::format::FormatRow;
use crate::part::{PartCodec, RowError, RowWriter, WriteOptions};
use crate::row::Opener;
use crate::table::Table;
use crate::{OutputRow, RecordFailure, Separator};

pub(crate) static CSV: FormatRow = FormatRow {
    name: "csv",
    suffixes: &["csv"],
    about: "cells between commas or another separator, quoted as in RFC 4180; a header row names the columns",
    is_compressible: true,
    opener: Some(Opener::Text(|input, options| {
        Ok(Box::new(Table::new(input, Separator::COMMA, true, options)))
    })),
    part_codec: Some(PartCodec {
        open_writer: |output, options| {
            Ok(Box::new(CellWriter::new(output, Separator::COMMA, true, options)?))
        },
        reader: None,
        is_concatenable: false,
        has_types: false,
    }),
    lone_column_hint: "; is the separator a comma? name another with --separator",
    keeps_blank_rows: false,
    keeps_own_fields: false,
};

/// A quote is an ordinary character, and a cell has no line break, as in the IANA definition of the format. A
/// stray quote therefore cannot swallow the following lines.
pub(crate) static TSV: FormatRow = FormatRow {
    name: "tsv",
    suffixes: &["tsv", "tab"],
    about: "cells between tabs, never quoted; a header row names the columns",
    is_compressible: true,
    opener: Some(Opener::Text(|input, options| {
        Ok(Box::new(Table::new(input, Separator::TAB, false, options)))
    })),
    part_codec: Some(PartCodec {
        open_writer: |output, options| Ok(Box::new(CellWriter::new(output, Separator::TAB, false, options)?)),
        reader: None,
        is_concatenable: false,
        has_types: false,
    }),
    lone_column_hint: "; is the separator a tab? name another with --separator",
    keeps_blank_rows: false,
    keeps_own_fields: false,
};

/// Columns of every row. Columns for origin, error and kept fields follow.
const COLUMNS: [&str; 7] =
    ["id", "output", "score", "prompt_tokens", "llm_prompt_tokens", "output_tokens", "finish_reason"];

/// Writes one row for each record.
struct CellWriter<'w> {
    rows: csv::Writer<Sink<'w>>,
    options: WriteOptions,
    has_quotes: bool,
    separator: u8,
}

impl<'w> CellWriter<'w> {
    fn new(
        output: Sink<'w>,
        separator: Separator,
        has_quotes: bool,
        options: &WriteOptions,
    ) -> io::Result<CellWriter<'w>> {
        let separator = options.separator.unwrap_or(separator).byte();
        let style = if has_quotes { csv::QuoteStyle::Necessary } else { csv::QuoteStyle::Never };
        let rows = csv::WriterBuilder::new().delimiter(separator).quote_style(style).from_writer(output);
        let mut writer = CellWriter { rows, options: options.clone(), has_quotes, separator };
        let mut header: Vec<String> = COLUMNS.map(str::to_owned).to_vec();
        if options.quality != QualityColumns::None {
            header.push("quality".to_owned());
        }
        if options.has_tier {
            header.push("tier".to_owned());
        }
        if options.has_origin {
            header.extend(["input", "line"].map(str::to_owned));
        }
        if options.has_errors {
            header.extend(["error", "message"].map(str::to_owned));
        }
        for name in &options.kept_fields {
            let is_taken = header.contains(name);
            header.push(if is_taken { format!("fields.{name}") } else { name.clone() });
        }
        writer.rows.write_record(&header)?;
        Ok(writer)
    }

    fn write(&mut self, id: &str, cells: &[String]) -> Result<(), RowError> {
        if !self.has_quotes {
            let separator = char::from(self.separator);
            let is_unfit = |cell: &String| cell.contains(['\n', '\r', separator]);
            if cells.iter().any(is_unfit) {
                return Err(RowError::NotInThisFormat {
                    id: id.to_owned(),
                    problem: "a cell has a line break or the separator, and cells are not quoted; write csv \
                        or jsonl",
                });
            }
        }
        Ok(self.rows.write_record(cells).map_err(io::Error::from)?)
    }
}

impl RowWriter for CellWriter<'_> {
    fn write_row(&mut self, row: &OutputRow) -> Result<(), RowError> {
        let unfit = |problem| Err(RowError::NotInThisFormat { id: row.id.clone(), problem });
        let mut cells = vec![
            row.id.clone(),
            row.output.clone(),
            row.score_text(),
            row.prompt_tokens.to_string(),
            Some(row.llm_prompt_tokens)
                .filter(|&tokens| tokens > 0)
                .map_or(String::new(), |tokens| tokens.to_string()),
            row.output_tokens.to_string(),
            row.finish_reason.as_str().to_owned(),
        ];
        if self.options.quality != QualityColumns::None {
            cells.push(row.quality.map(|quality| quality.to_string()).unwrap_or_default());
        }
        if self.options.has_tier {
            cells.push(row.tier.clone().unwrap_or_default());
        }
        if self.options.has_origin {
            let origin = row.origin.as_ref();
            cells.push(origin.map(|origin| origin.uri.clone()).unwrap_or_default());
            cells.push(origin.map(|origin| origin.line.to_string()).unwrap_or_default());
        }
        if self.options.has_errors {
            cells.extend([String::new(), String::new()]);
        }
        let fields = self.options.keep.json_of(&row.fields)?;
        if fields.keys().any(|name| !self.options.kept_fields.contains(name)) {
            return unfit("it has a kept field that the first record lacks; write jsonl");
        }
        if !row.alternatives.is_empty() {
            return unfit("it has several outputs; write jsonl");
        }
        for name in &self.options.kept_fields {
            cells.push(match fields.get(name) {
                None | Some(serde_json::Value::Null) => String::new(),
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            });
        }
        self.write(&row.id, &cells)
    }

    fn write_failure(&mut self, failure: &RecordFailure) -> Result<(), RowError> {
        let mut cells = vec![String::new(); COLUMNS.len()];
        let id = failure.id.clone().unwrap_or_default();
        cells[0].clone_from(&id);
        let num_judged = usize::from(self.options.quality != QualityColumns::None);
        let num_empty = num_judged + usize::from(self.options.has_tier);
        cells.resize(cells.len() + num_empty, String::new());
        if self.options.has_origin {
            cells.extend([failure.source.uri.clone(), failure.source.line.to_string()]);
        }
        cells.extend([failure.code.to_string(), failure.message.clone()]);
        cells.resize(cells.len() + self.options.kept_fields.len(), String::new());
        self.write(&id, &cells)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.rows.into_inner().map_err(|error| error.into_error())?.finish()
    }
}
