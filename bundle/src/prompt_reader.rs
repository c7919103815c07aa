//! From a text to an encoder's tokens: the tokenizers of a mode, with one template each.

use std::ops::Range;

use crate::{BundleError, PromptTokenizer, Reading, SegmentPrompt, Span, TokenAlignment};

/// Makes prompts of texts.
#[derive(Debug, Clone)]
pub enum PromptReader {
    /// A prompt is the LLM's tokens, for every reader.
    LlmTokens(PromptTokenizer),
    /// A prompt is the small model's own tokens.
    OwnTokens {
        /// Its tokenizer.
        slm: PromptTokenizer,
        /// The LLM's, where the LLM reads the text, too.
        llm: Option<PromptTokenizer>,
    },
}

impl PromptReader {
    /// Reads `text` as one segment.
    ///
    /// # Errors
    /// A tokenizer refuses the text, which byte-level tokenizers never do.
    pub fn read(&self, text: &str) -> Result<Reading, BundleError> {
        self.read_segments(text, &[0..text.len()])
    }

    /// Reads `text` once with the LLM, and each of `segments`, its byte ranges, with the small model, which
    /// takes the states of the segment's characters. Where the small model reads the LLM's tokens, there can
    /// be one segment only, the whole.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Panics
    /// A segment does not lie on characters of the text. Or it is one of several, and the small model cannot
    /// use the states of one segment.
    pub fn read_segments(&self, text: &str, segments: &[Range<usize>]) -> Result<Reading, BundleError> {
        let (slm, llm) = match self {
            PromptReader::LlmTokens(tokenizer) => {
                assert_eq!(segments, [0..text.len()], "by tokens, a text is one segment");
                return Ok(Reading::of_llm_tokens(tokenizer.encode(text)?));
            }
            PromptReader::OwnTokens { slm, llm: None } => (slm, None),
            PromptReader::OwnTokens { slm, llm: Some(llm) } => (slm, Some(llm.encode_with_spans(text)?)),
        };
        let llm_spans: &[Span] = llm.as_ref().map_or(&[], |tokens| &tokens.spans);
        let prompt = |segment: &Range<usize>| {
            let tokens = slm.encode_with_spans(&text[segment.clone()])?.shifted(segment.start);
            let alignment = match llm {
                Some(_) => TokenAlignment::by_characters(llm_spans, &tokens.spans),
                None => TokenAlignment::default(),
            };
            Ok(SegmentPrompt { tokens: tokens.ids, alignment })
        };
        let segments = segments.iter().map(prompt).collect::<Result<_, BundleError>>()?;
        Ok(Reading { llm_tokens: llm.map(|tokens| tokens.ids).unwrap_or_default(), segments })
    }
}
