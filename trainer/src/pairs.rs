//! Pairs of texts, read from JSONL and tokenized: the prompt with the LLM's tokenizer, the response with the SLM's.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use baton_bundle::{PromptTokenizer, TextTokenizer};

use crate::TrainError;

/// A source text and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextPair {
    pub(crate) source: String,
    pub(crate) target: String,
}

/// A pair in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenPair {
    /// Ids of the LLM's tokenizer, template included.
    pub(crate) prompt: Vec<u32>,
    /// Ids of the SLM's tokenizer, without BOS and EOS.
    pub(crate) response: Vec<u32>,
    /// Length of the target text, UTF-8.
    pub(crate) response_num_bytes: usize,
}

impl TokenPair {
    /// Rows that the pair takes in a packed batch: prompt, BOS, response.
    pub(crate) fn num_rows(&self) -> usize {
        self.prompt.len() + 1 + self.response.len()
    }
}

/// Reads all pairs of a JSONL file.
pub(crate) fn read_pairs(
    path: &Path,
    source_field: &str,
    target_field: &str,
) -> Result<Vec<TextPair>, TrainError> {
    let file = File::open(path).map_err(TrainError::io("read", path))?;
    let mut pairs = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let problem = |problem: String| TrainError::Pair { path: path.to_owned(), line: index + 1, problem };
        let line = line.map_err(|e| problem(e.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let row: serde_json::Value =
            serde_json::from_str(&line).map_err(|e| problem(format!("not JSON ({e})")))?;
        let field = |name: &str| -> Result<String, TrainError> {
            match row.get(name).and_then(serde_json::Value::as_str) {
                Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
                Some(_) => Err(problem(format!("field `{name}` is empty"))),
                None => Err(problem(format!("field `{name}` is missing or not a string"))),
            }
        };
        pairs.push(TextPair { source: field(source_field)?, target: field(target_field)? });
    }
    Ok(pairs)
}

/// Tokenizes pairs and leaves out those whose prompt is too long. Order is kept.
///
/// Long responses are not for this function to leave out: which prompts the LLM encodes should not depend on the SLM's tokenizer.
pub(crate) fn tokenize_pairs(
    pairs: &[TextPair],
    prompt_tokenizer: &PromptTokenizer,
    slm_tokenizer: &TextTokenizer,
    max_prompt_tokens: usize,
) -> Result<Vec<TokenPair>, TrainError> {
    let mut token_pairs = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let prompt = prompt_tokenizer.encode(&pair.source)?;
        if prompt.len() <= max_prompt_tokens {
            let response = slm_tokenizer.encode(&pair.target)?;
            token_pairs.push(TokenPair { prompt, response, response_num_bytes: pair.target.len() });
        }
    }
    Ok(token_pairs)
}
