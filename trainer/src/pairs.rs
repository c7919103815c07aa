//! Pairs of texts, read from files. A row is a pair, or a record of several sentences, each of which is one.

use std::{ops::Range, path::Path, sync::Arc};

use serde_json::Value;

use crate::{TrainConfig, TrainError, pair_files};

/// A source text and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextPair {
    pub(crate) source: String,
    pub(crate) target: String,
    /// The record that it is a sentence of, where it is one. Pairs of a record follow each other.
    pub(crate) sentence_of: Option<Sentence>,
}

/// Where a record has a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    /// The record's text, shared by its sentences.
    pub(crate) record: Arc<str>,
    /// The sentence's bytes of it.
    pub(crate) range: Range<usize>,
}

/// All pairs of a run.
pub(crate) struct TextPairs {
    pub(crate) train: Vec<TextPair>,
    /// Those that are mixed in.
    pub(crate) general: Vec<TextPair>,
    pub(crate) validation: Vec<TextPair>,
    /// Training rows left out, since a job wrote an output without an end or without a text.
    pub(crate) train_left_out: usize,
}

impl TextPairs {
    /// Reads the files that the config names.
    pub(crate) fn read(config: &TrainConfig) -> Result<Self, TrainError> {
        let (train, train_left_out) = read_all(&config.train.list()?, config)?;
        let general = match &config.general {
            Some(general) => read_all(&general.files.list()?, config)?.0,
            None => Vec::new(),
        };
        let (mut validation, _) = read_all(&config.dev.list()?, config)?;
        validation.truncate(config.hyperparameters.validation_pairs);
        Ok(Self { train, general, validation, train_left_out })
    }
}

/// All pairs of some files, and the number of rows left out.
fn read_all<P: AsRef<Path>>(files: &[P], config: &TrainConfig) -> Result<(Vec<TextPair>, usize), TrainError> {
    let (mut pairs, mut left_out) = (Vec::new(), 0);
    for path in files {
        let path = path.as_ref();
        for row in pair_files::open(path)? {
            let (line, fields) = row.map_err(|error| pair_files::unread(path, error))?;
            let problem = |problem: String| TrainError::Pair { path: path.to_owned(), line, problem };
            let row = Value::Object(fields);
            let target_is_output = config.target_field == "output" && row.get("finish_reason").is_some();
            if target_is_output && !is_whole_output(&row) {
                left_out += 1;
                continue;
            }
            let text = |name: &str| -> Result<String, TrainError> {
                match field(&row, name).and_then(Value::as_str) {
                    Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
                    Some(_) => Err(problem(format!("field `{name}` is empty"))),
                    None => Err(problem(format!("field `{name}` is missing or not a string"))),
                }
            };
            let (source, target) = (text(&config.source_field)?, text(&config.target_field)?);
            match config.sentences_field.as_ref().and_then(|name| field(&row, name)) {
                None => pairs.push(TextPair { source, target, sentence_of: None }),
                Some(sentences) => pairs.extend(sentence_pairs(&source, sentences).map_err(problem)?),
            }
        }
    }
    Ok((pairs, left_out))
}

/// Whether a row of a job's output ended by itself and says something: else it teaches to stop at the wrong
/// place.
fn is_whole_output(row: &Value) -> bool {
    row["finish_reason"] == "stop" && !row["output"].as_str().is_some_and(|output| output.trim().is_empty())
}

/// A field by its name, or by its path with points: `fields.text` is where a job keeps the text that it read.
fn field<'row>(row: &'row Value, name: &str) -> Option<&'row Value> {
    row.get(name).or_else(|| name.split('.').try_fold(row, |value, name| value.get(name)))
}

/// The pairs of the sentences of a record.
fn sentence_pairs(record: &str, sentences: &Value) -> Result<Vec<TextPair>, String> {
    let record: Arc<str> = record.into();
    let mut end = 0; // of the sentence before
    let mut pair = |(number, sentence): (usize, &Value)| {
        let number = number + 1;
        let [Value::String(source), Value::String(target)] =
            sentence.as_array().map_or(&[][..], Vec::as_slice)
        else {
            return Err(format!("sentence {number} is no pair of strings"));
        };
        if source.trim().is_empty() || target.trim().is_empty() {
            return Err(format!("sentence {number} is empty"));
        }
        let start = record[end..].find(source.as_str()).map(|at| end + at);
        let start =
            start.ok_or_else(|| format!("sentence {number} is not in the source, behind those before"))?;
        end = start + source.len();
        let sentence_of = Some(Sentence { record: Arc::clone(&record), range: start..end });
        Ok(TextPair { source: source.clone(), target: target.clone(), sentence_of })
    };
    let sentences = sentences.as_array().ok_or("the sentences are no list")?;
    sentences.iter().enumerate().map(&mut pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_found_in_their_record_in_order() {
        let sentences =
            serde_json::json!([["Read.", "Leggi."], ["Read.", "Leggi ancora."], ["It does.", "Sì."]]);
        let pairs = sentence_pairs("Read. Read.\nIt does.", &sentences).unwrap();
        let ranges: Vec<Range<usize>> =
            pairs.iter().map(|pair| pair.sentence_of.as_ref().unwrap().range.clone()).collect();
        assert_eq!(ranges, [0..5, 6..11, 12..20]);
        assert_eq!(pairs[1].target, "Leggi ancora.");
        let problem = |sentences: Value| sentence_pairs("Read. It does.", &sentences).unwrap_err();
        let swapped = problem(serde_json::json!([["It does.", "Sì."], ["Read.", "Leggi."]]));
        assert_eq!(swapped, "sentence 2 is not in the source, behind those before");
        assert_eq!(problem(serde_json::json!([["Read."]])), "sentence 1 is no pair of strings");
        assert_eq!(problem(serde_json::json!([["Read.", " "]])), "sentence 1 is empty");
        assert_eq!(problem(serde_json::json!("Read.")), "the sentences are no list");
    }
}
