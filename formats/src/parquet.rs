//! Parquet: typed columns in row groups, compressed inside, read by ranges.
//!
//! A row is a record, its columns are its fields, and `a.b` is a field of a struct. A reader holds some pages
//! of the columns that a job needs, so memory does not grow with a row group. The bytes of a written file
//! depend only on the rows: the file names neither the version of its writer nor a time.

mod chunks;
mod read;
mod write;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;

use crate::format::FormatRow;
use crate::part::PartCodec;
use crate::row::{Opener, broken_content};

pub(crate) static FORMAT: FormatRow = FormatRow {
    name: "parquet",
    suffixes: &["parquet", "pq"],
    about: "typed columns, nested ones too; `a.b` names a field of a struct",
    is_compressible: false,
    opener: Some(Opener::Ranged(read::open)),
    part_codec: Some(PartCodec {
        open_writer: |output, options| Ok(Box::new(write::RowBatches::new(output, options)?)),
        reader: Some(|input, _| read::part(input)),
        is_concatenable: false,
        has_types: true,
    }),
    lone_column_hint: "",
    keeps_blank_rows: false,
    keeps_own_fields: false,
};

/// The key in a file's metadata for the kept fields among the last columns: a JSON list of their names, or
/// `json` for one column of JSON objects.
const KEPT_FIELDS_KEY: &str = "baton.kept_fields";

/// The value of [`KEPT_FIELDS_KEY`] for one column of JSON objects.
const KEPT_AS_JSON: &str = "json";

/// The name of this column.
const JSON_COLUMN: &str = "fields";

/// Reads a file that may be damaged. The library does not check everything, so a panic in it also counts
/// as damage.
fn reading<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| damaged(&error)),
        Err(panic) => Err(broken_content(format!("its Parquet data is corrupt ({})", said(&*panic)))),
    }
}

/// An error of the reader in plain words. Errors of the source below it are handled elsewhere.
fn damaged(error: &ParquetError) -> io::Error {
    let message = match error {
        ParquetError::EOF(problem) => {
            format!("its Parquet data ends too early: the file is cut off ({problem})")
        }
        ParquetError::NYI(problem) => {
            format!("it uses a part of Parquet that Baton does not read ({problem})")
        }
        other => {
            let problem = other.to_string();
            format!("its Parquet data is corrupt ({})", problem.lines().next().unwrap_or_default())
        }
    };
    broken_content(message)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
