//! The settings of an LLM's writer, from text to tokens of its tokenizer.

use std::path::Path;

use crate::tokenizer::fixed_text_ids;
use crate::{BundleError, LlmWriter, ModelConfig, TextTokenizer};

impl LlmWriter {
    /// The tokens that the LLM in directory `llm`, of shape `config`, reads after a prompt, before it writes;
    /// never empty.
    ///
    /// # Errors
    /// The tokenizer does not load or makes no token of the text, or the last token is not the start token of
    /// an encoder-decoder's decoder.
    pub fn prompt_end_ids(&self, llm: &Path, config: &ModelConfig) -> Result<Vec<u32>, BundleError> {
        let ids = fixed_text_ids(&llm.join("tokenizer.json"), &self.prompt_end)?;
        let (last, start) = (ids.last().copied(), config.bos_token_id);
        if config.encoder_decoder().is_some() && last != start {
            let problem = format!(
                "`llm.writer.prompt_end` ends with token {last:?}, but a decoder behind an encoder starts \
                 with its `decoder_start_token_id`, which is {start:?} here"
            );
            return Err(BundleError::Manifest { path: llm.join("config.json"), problem });
        }
        Ok(ids)
    }

    /// The id of the token that ends an output. A config may name others beside it.
    ///
    /// # Errors
    /// The LLM's tokenizer has no such token.
    pub fn eos_id(&self, llm_tokenizer: &TextTokenizer) -> Result<u32, BundleError> {
        llm_tokenizer.token_id(&self.eos_token).ok_or_else(|| BundleError::WrongTokenizer {
            path: llm_tokenizer.path().to_owned(),
            problem: format!("has no token `{}`, the bundle's `llm.writer.eos_token`", self.eos_token),
        })
    }
}
