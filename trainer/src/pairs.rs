//! Pairs of texts, read from JSONL and tokenized: the prompt with the LLM's tokenizer or the small model's
//! own, the response with that of the model that learns to write.

use std::{io::BufRead, path::Path};

use baton_bundle::{Limits, PromptReader, Reading, TextTokenizer, TokenAlignment};
use serde_json::Value;

use crate::{TrainConfig, TrainError, pair_files};

/// A source text and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextPair {
    pub(crate) source: String,
    pub(crate) target: String,
}

/// A pair in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenPair {
    /// The small model's prompt, template included: in its own tokens, or in the LLM's.
    pub(crate) prompt: Vec<u32>,
    /// The LLM's tokens, if the prompt is in the small model's own tokens, and the alignment of both.
    pub(crate) reading: Option<(Vec<u32>, TokenAlignment)>,
    /// Ids of the writer's tokenizer, without BOS and EOS.
    pub(crate) response: Vec<u32>,
    /// Length of the target text, UTF-8.
    pub(crate) response_num_bytes: usize,
}

impl TokenPair {
    /// The LLM's tokens.
    pub(crate) fn llm_tokens(&self) -> &[u32] {
        self.reading.as_ref().map_or(&self.prompt, |(tokens, _)| tokens)
    }

    /// Rows that the pair takes in a packed batch: prompt, BOS, response.
    pub(crate) fn num_rows(&self) -> usize {
        self.prompt.len() + 1 + self.response.len()
    }
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
        for (index, line) in pair_files::open(path)?.lines().enumerate() {
            let problem =
                |problem: String| TrainError::Pair { path: path.to_owned(), line: index + 1, problem };
            let line = line.map_err(|e| problem(e.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let row: Value = serde_json::from_str(&line).map_err(|e| problem(format!("not JSON ({e})")))?;
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
            pairs.push(TextPair { source, target });
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

/// Tokenizes pairs and leaves out those whose prompt is too long. Order is kept.
///
/// Long responses are not for this function to leave out: which prompts the LLM encodes should not depend on
/// the SLM's tokenizer.
pub(crate) fn tokenize_pairs(
    pairs: &[TextPair],
    prompt_reader: &PromptReader,
    response_tokenizer: &TextTokenizer,
    limits: Limits,
) -> Result<Vec<TokenPair>, TrainError> {
    let mut token_pairs = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let Reading { llm_tokens, mut segments } = match prompt_reader.read(&pair.source)? {
            reading if reading.excess(limits).is_none() => reading,
            _ => continue,
        };
        let (prompt, reading) = match segments.pop() {
            None => (llm_tokens, None),
            Some(segment) if llm_tokens.is_empty() => (segment.tokens, None),
            Some(segment) => (segment.tokens, Some((llm_tokens, segment.alignment))),
        };
        let response = response_tokenizer.encode(&pair.target)?;
        token_pairs.push(TokenPair { prompt, reading, response, response_num_bytes: pair.target.len() });
    }
    Ok(token_pairs)
}

/// Places of the pairs whose response is short enough; of which files they are goes into the error.
pub(crate) fn usable_pairs(
    pairs: &[TokenPair],
    files: &impl ToString,
    config: &TrainConfig,
) -> Result<Vec<usize>, TrainError> {
    let (max_prompt_tokens, max_response_tokens) = (config.max_prompt_tokens, config.max_response_tokens);
    let is_usable = |&place: &usize| pairs[place].response.len() <= max_response_tokens;
    let usable: Vec<usize> = (0..pairs.len()).filter(is_usable).collect();
    if usable.is_empty() {
        return Err(TrainError::NoPairs { files: files.to_string(), max_prompt_tokens, max_response_tokens });
    }
    Ok(usable)
}
