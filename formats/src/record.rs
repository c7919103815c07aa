//! A record, and a failure in place of one that could not be processed.
//!
//! A failure's message locates the problem (field, column, byte, limit). It never quotes the record's text,
//! because messages end up in error rows, logs and terminals.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use baton_generation::LanguageChoice;

use crate::KeptFields;

/// Where a record came from. Unique within a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordSource {
    /// The input file, as the listing names it.
    #[serde(rename = "input")]
    pub uri: String,
    /// Line on which the record begins, from 1, counted after decompression; of a file without lines, the
    /// number of the row.
    pub line: u64,
}

/// One item of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Position among the entries of its shard, from 0, counting failed ones. The cutter assigns it.
    pub index_in_shard: u32,
    /// The user's id, or file and line. Duplicates are allowed.
    pub id: String,
    /// Its origin.
    pub source: RecordSource,
    /// The text, unchanged. Blank only where the format keeps blank rows. At most `max_text_bytes`.
    pub text: String,
    /// All its fields except the id's, in order, including the text; empty unless they are kept.
    pub fields: KeptFields,
    /// Maximum of tokens in its output, if its own limit is below the job's.
    pub max_new_tokens: Option<u32>,
    /// Its own languages, as far as its fields name them; unchecked.
    pub languages: LanguageChoice,
    /// Its own glossary, entries as in the option `terms`; they precede the job's.
    pub terms: Vec<String>,
}

/// A record that ends as an error row. Serialized, it is that row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFailure {
    /// Where the record came from.
    #[serde(flatten)]
    pub source: RecordSource,
    /// The record's id, if it could be told.
    pub id: Option<String>,
    /// The kind of failure.
    pub code: FailureCode,
    /// The problem, in one line without the record's text.
    pub message: String,
}

/// Kinds of record failures. The names in error rows are part of the output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The line is not JSON.
    InvalidJson,
    /// The record is not UTF-8.
    InvalidUtf8,
    /// The row of a table has more or fewer columns than the header, or a stray quote, or a NUL byte.
    InvalidRow,
    /// The text field, or the id field asked for, is absent.
    MissingField,
    /// A field, or the whole line, is of the wrong JSON type.
    WrongType,
    /// The text is empty or only white space.
    EmptyText,
    /// The text is longer than `max_text_bytes`, or its line longer than the reader accepts.
    TextTooLong,
    /// The prompt has more tokens than the bundle accepts.
    PromptTooLong,
    /// The small model does not know the language that a field names.
    UnknownLanguage,
    /// Encoding or decoding the record failed.
    ProcessingFailed,
    /// Every attempt that had the record broke, also those that had no other.
    Poisonous,
}

impl Record {
    /// A record without kept fields and without limit or languages of its own.
    #[must_use]
    pub fn new(
        index_in_shard: u32,
        id: impl Into<String>,
        source: RecordSource,
        text: impl Into<String>,
    ) -> Record {
        Record {
            index_in_shard,
            id: id.into(),
            source,
            text: text.into(),
            fields: KeptFields::default(),
            max_new_tokens: None,
            languages: LanguageChoice::default(),
            terms: Vec::new(),
        }
    }

    /// Bytes of id, text, languages, terms and kept fields: the record's weight in a shard.
    pub fn payload_num_bytes(&self) -> u64 {
        let of_terms: usize = self.terms.iter().map(String::len).sum();
        let own = self.languages.num_bytes() + of_terms;
        (self.id.len() + self.text.len() + own + self.fields.num_bytes()) as u64
    }

    /// This record's failure with `code`.
    pub fn failure(&self, code: FailureCode, message: impl Into<String>) -> RecordFailure {
        RecordFailure {
            source: self.source.clone(),
            id: Some(self.id.clone()),
            code,
            message: message.into(),
        }
    }
}

impl RecordFailure {
    /// The error row: one line of JSON with its newline, keys `input`, `line`, `id`, `code`, `message`.
    pub fn to_json_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a failure is plain data with string keys");
        line.push(b'\n');
        line
    }
}

impl FailureCode {
    /// Every code.
    pub const ALL: [FailureCode; 11] = [
        FailureCode::InvalidJson,
        FailureCode::InvalidUtf8,
        FailureCode::InvalidRow,
        FailureCode::MissingField,
        FailureCode::WrongType,
        FailureCode::EmptyText,
        FailureCode::TextTooLong,
        FailureCode::PromptTooLong,
        FailureCode::UnknownLanguage,
        FailureCode::ProcessingFailed,
        FailureCode::Poisonous,
    ];

    /// Whether other models, or other options of generation, may succeed with the record. A record that broke
    /// its attempts is not given to others.
    #[must_use]
    pub fn depends_on_generation(self) -> bool {
        matches!(self, FailureCode::PromptTooLong | FailureCode::ProcessingFailed)
    }

    /// The name in error rows.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureCode::InvalidJson => "invalid_json",
            FailureCode::InvalidUtf8 => "invalid_utf8",
            FailureCode::InvalidRow => "invalid_row",
            FailureCode::MissingField => "missing_field",
            FailureCode::WrongType => "wrong_type",
            FailureCode::EmptyText => "empty_text",
            FailureCode::TextTooLong => "text_too_long",
            FailureCode::PromptTooLong => "prompt_too_long",
            FailureCode::UnknownLanguage => "unknown_language",
            FailureCode::ProcessingFailed => "processing_failed",
            FailureCode::Poisonous => "poisonous",
        }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No [`FailureCode`] has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown failure code `{0}`")]
pub struct UnknownFailureCode(pub String);

impl FromStr for FailureCode {
    type Err = UnknownFailureCode;

    fn from_str(name: &str) -> Result<FailureCode, UnknownFailureCode> {
        FailureCode::ALL
            .into_iter()
            .find(|code| code.as_str() == name)
            .ok_or_else(|| UnknownFailureCode(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_row_has_its_keys_in_a_fixed_order() {
        let failure = RecordFailure {
            source: RecordSource { uri: "a.jsonl".into(), line: 7 },
            id: None,
            code: FailureCode::MissingField,
            message: "no field `text`".into(),
        };
        let line = failure.to_json_line();
        assert_eq!(
            String::from_utf8(line.clone()).unwrap(),
            "{\"input\":\"a.jsonl\",\"line\":7,\"id\":null,\"code\":\"missing_field\",\"message\":\"no field `text`\"}\n"
        );
        assert_eq!(serde_json::from_slice::<RecordFailure>(&line).unwrap(), failure);
    }

    #[test]
    fn every_code_has_one_name_in_json_and_in_rust() {
        for code in FailureCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(code.as_str().parse(), Ok(code));
        }
        assert!("oops".parse::<FailureCode>().is_err());
    }
}
