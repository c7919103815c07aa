//! Looks at the beginning of an input for the fields that a job names, before any work is done.

use std::collections::BTreeSet;

use crate::reader::abridged;
use crate::{FormatError, InputFailure, InputSource, KeptColumns, ReaderOptions, RecordReader};

/// Rows that the check reads. A field that none of them has is considered misspelled.
const NUM_ROWS: usize = 100;

/// Names of fields that a message shows at most.
const MAX_NAMES: usize = 40;

/// A field that the options name and the input does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri} has no field `{field}`; its fields are: {}; name one with {flag}{hint}", .found.join(", "))]
pub struct WrongField {
    /// The input.
    pub uri: String,
    /// The name that was looked for.
    pub field: String,
    /// The flag that names another.
    pub flag: &'static str,
    /// Names of the fields there are, abridged.
    pub found: Vec<String>,
    /// Another thing to check; may be empty.
    pub hint: &'static str,
}

/// Why an input is not worth beginning with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Its format is not known.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It cannot be read.
    #[error(transparent)]
    Input(#[from] InputFailure),
    /// It has other fields.
    #[error(transparent)]
    Field(#[from] WrongField),
}

/// Reads the first rows of an input and returns the columns that its rows keep; `None` if each row has
/// its own fields. An input without rows is in order.
///
/// # Errors
/// None of the rows has the text field, or another field that was asked for; or the input cannot be read.
pub fn check_fields(
    uri: &str,
    source: InputSource,
    options: &ReaderOptions,
) -> Result<Option<KeptColumns>, CheckError> {
    let mut reader = RecordReader::new(uri, source, options)?;
    let wanted = [(options.text_field.as_str(), "--text-field")].into_iter();
    let wanted = wanted.chain(options.id_field.as_deref().map(|field| (field, "--id-field")));
    let glossary = options.glossary_field.as_deref().map(|field| (field, "--glossary-field"));
    let mut missing: Vec<(&str, &'static str)> =
        wanted.chain(options.language_fields.flags()).chain(glossary).collect();
    let (mut names, mut hint) = (BTreeSet::new(), "");
    for _ in 0..NUM_ROWS {
        let Some(found) = reader.find_next()? else { break };
        let Some((fields, row_hint)) = found.field_names(&mut missing) else { continue };
        hint = row_hint;
        names.extend(fields);
        if missing.is_empty() {
            return Ok(reader.kept_columns());
        }
    }
    match missing.first() {
        Some((field, flag)) if !names.is_empty() => {
            let mut found: Vec<String> =
                names.iter().take(MAX_NAMES).map(|name| format!("`{}`", abridged(name))).collect();
            if names.len() > MAX_NAMES {
                found.push(format!("{} more", names.len() - MAX_NAMES));
            }
            Err(WrongField { uri: uri.to_owned(), field: (*field).to_owned(), flag, found, hint }.into())
        }
        _ => Ok(reader.kept_columns()), // no row could be read; each fails on its own
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::BatchOptions;

    fn check(uri: &str, text: &str, id_field: Option<&str>) -> Result<Option<KeptColumns>, CheckError> {
        let options = ReaderOptions {
            text_field: "text".into(),
            id_field: id_field.map(str::to_owned),
            language_fields: crate::LanguageFields::default(),
            glossary_field: None,
            format: None,
            separator: None,
            keep: crate::KeepFields::No,
            batch: BatchOptions::default(),
            max_text_bytes: 1000,
        };
        check_fields(uri, InputSource::Stream(Box::new(Cursor::new(text.to_owned()))), &options)
    }

    fn message(uri: &str, text: &str, id_field: Option<&str>) -> String {
        check(uri, text, id_field).unwrap_err().to_string()
    }

    #[test]
    fn a_field_that_no_row_has_is_named_with_those_there_are() {
        let text = "{\"body\":\"x\",\"id\":1}\n{\"body\":\"y\",\"lang\":\"en\"}\n";
        assert_eq!(
            message("a.jsonl", text, None),
            "a.jsonl has no field `text`; its fields are: `body`, `id`, `lang`; name one with --text-field"
        );
        let message = message("a.csv", "id;text\n1;a\n", None);
        assert!(
            message.contains("`id;text`; name one with --text-field; is the separator a comma?"),
            "{message}"
        );
    }

    #[test]
    fn a_field_that_some_row_has_is_there_and_each_of_two_is_looked_for() {
        check("a.jsonl", "{\"body\":\"x\"}\n{\"text\":\"y\"}\n", None).unwrap();
        assert!(message("a.jsonl", "{\"text\":\"x\"}\n", Some("key")).contains("`key`"));
        check("a.jsonl", "{\"text\":\"x\",\"key\":1}\n", Some("key")).unwrap();
        check("a.txt", "a\n\n", None).unwrap();
    }

    #[test]
    fn rows_that_are_broken_or_none_at_all_say_nothing_about_fields() {
        for text in ["", "\n", "{\n", "[1]\n", "{}\n"] {
            check("a.jsonl", text, None).unwrap();
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_failure_of_the_input() {
        assert!(matches!(check("a.jsonl.gz", "plain", None), Err(CheckError::Input(_))));
        assert!(matches!(check("a.xyz", "plain", None), Err(CheckError::Format(_))));
    }
}
