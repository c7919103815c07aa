//! How records lie in files, and outputs in parts.
//!
//! One table ([`Format`]) lists the formats and what each can do; a format is one file of this crate.
//! [`RecordReader`] turns a file into records and [`RecordFailure`]s, one for each row, or ends in an
//! [`InputFailure`]. [`PartWriter`] turns [`OutputRow`]s into the bytes of a part or of a collected file,
//! which depend on the rows alone.
//!
//! There is no store, no clock and no async runtime here: readers work over [`std::io::Read`] or
//! [`RangedRead`], writers over [`std::io::Write`].

mod batch;
mod check;
mod columns;
mod compression;
mod csv;
mod fields;
mod format;
mod gauge;
mod id_census;
mod input_failure;
mod jsonl;
mod kept;
mod lines;
mod output;
mod parquet;
mod part;
mod reader;
mod record;
mod review;
mod row;
mod row_file;
mod separator;
mod signature;
mod surrogate;
mod table;
mod terms;
mod text;
mod txt;

pub use batch::BatchOptions;
pub use baton_generation::FinishReason;
pub use check::{CheckError, WrongField, check_fields};
pub use compression::Compression;
pub use format::{Format, FormatError};
pub use id_census::IdCensus;
pub use input_failure::{InputFailure, InputFailureCause};
pub use kept::{KeepFields, KeptColumns, KeptFields, MixedColumn};
pub use output::{Alternative, OutputRow};
pub use part::{PartFormat, PartOptions, PartReader, PartWriter, RowError, WriteOptions};
pub use reader::{FoundRecord, LanguageFields, ReaderOptions, RecordReader};
pub use record::{FailureCode, Record, RecordFailure, RecordSource, UnknownFailureCode};
pub use review::{ReviewRow, worst_rows};
pub use row::{InputSource, RangedRead};
pub use row_file::{RowFile, RowFileError};
pub use separator::{InvalidSeparator, Separator};
