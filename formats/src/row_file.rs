//! The rows of a local file with all their fields, in any format: for test sets, outputs and training pairs,
//! which are not inputs of a job.

use std::fs::File;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    BatchOptions, Format, FormatError, InputFailure, InputSource, KeepFields, LanguageFields, RangedRead,
    ReaderOptions, RecordFailure, RecordReader,
};

/// Maximum of bytes in a text; a longer one is a failure.
const MAX_TEXT_NUM_BYTES: usize = 64 << 20;

/// Rows of a file in order, each with its line, or with its number if the file has no lines, from 1.
pub struct RowFile {
    /// `None` for an empty file.
    rows: Option<RecordReader>,
}

/// The reason why a file's rows cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowFileError {
    /// The file cannot be opened.
    #[error("cannot read {uri}")]
    Open {
        /// The file.
        uri: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Baton does not read its format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The file cannot be read to its end.
    #[error(transparent)]
    Input(#[from] InputFailure),
    /// A row is broken.
    #[error("{}:{}: {}", .0.source.uri, .0.source.line, .0.message)]
    Row(RecordFailure),
}

impl RowFile {
    /// Opens a file. A name without a format means JSONL.
    ///
    /// # Errors
    /// The file cannot be opened, or Baton does not read its format.
    pub fn open(path: &Path) -> Result<RowFile, RowFileError> {
        let uri = path.to_string_lossy().into_owned();
        let unreadable = |source| RowFileError::Open { uri: uri.clone(), source };
        let file = File::open(path).map_err(unreadable)?;
        let is_empty = file.metadata().map_err(unreadable)?.len() == 0;
        let format = match Format::of(&uri, None) {
            Err(FormatError::UnknownSuffix { .. }) => Some(Format::named("jsonl")?),
            told => told.map(|_| None)?,
        };
        let source = match Format::of(&uri, format)?.0.needs_ranges() {
            true => InputSource::Ranged(Box::new(file)),
            false if is_empty => return Ok(RowFile { rows: None }), // a compressed one has no bytes either
            false => InputSource::Stream(Box::new(file)),
        };
        let options = ReaderOptions {
            text_field: "text".to_owned(),
            id_field: None,
            language_fields: LanguageFields::default(),
            glossary_field: None,
            format,
            separator: None,
            keep: KeepFields::AsJson,
            batch: BatchOptions::default(),
            max_text_bytes: MAX_TEXT_NUM_BYTES,
        };
        Ok(RowFile { rows: Some(RecordReader::new(&uri, source, &options)?) })
    }
}

impl Iterator for RowFile {
    type Item = Result<(u64, Map<String, Value>), RowFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rows.as_mut()?.find_next() {
            Ok(found) => found.map(|found| found.read_fields().map_err(RowFileError::Row)),
            Err(failure) => Some(Err(failure.into())),
        }
    }
}

#[cfg(unix)]
impl RangedRead for File {
    fn num_bytes(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, start)
    }
}
