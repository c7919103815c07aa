//! Pairs in tokens, with the LLM's readings for them. A prompt has the LLM's tokens, or those of a small
//! model that has its own. A response has the tokens of the model that learns to write.

use std::ops::Range;

use baton_bundle::{Limits, PromptReader, Reading, TextTokenizer, TokenAlignment};
use baton_job::ReaderContext;

use crate::{
    TrainConfig, TrainError,
    pairs::{Sentence, TextPair},
};

/// A pair in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenPair {
    /// The small model's prompt, template included: in its own tokens, or in the LLM's.
    pub(crate) prompt: Vec<u32>,
    /// The states that the prompt takes, if it has the small model's own tokens. Otherwise it takes the
    /// states of its own tokens.
    pub(crate) taken: Option<TakenStates>,
    /// Ids of the writer's tokenizer, without BOS and EOS.
    pub(crate) response: Vec<u32>,
    /// Length of the target text in bytes, UTF-8.
    pub(crate) response_num_bytes: usize,
}

/// States of the LLM that a prompt takes by characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakenStates {
    /// Place of the LLM's reading among [`TokenPairs::readings`].
    pub(crate) reading: usize,
    /// The shortest run of its tokens with all states that are taken.
    pub(crate) tokens: Range<usize>,
    /// The states of that run that each token of the prompt takes.
    pub(crate) alignment: TokenAlignment,
}

/// Pairs, and the LLM's readings for them.
#[derive(Debug, Default)]
pub(crate) struct TokenPairs {
    pub(crate) pairs: Vec<TokenPair>,
    /// The LLM's prompts, if they differ from the pairs': sources, or windows of records.
    pub(crate) readings: Vec<Vec<u32>>,
}

impl TokenPair {
    /// Rows that the pair takes in a packed batch: prompt, BOS, response.
    pub(crate) fn num_rows(&self) -> usize {
        self.prompt.len() + 1 + self.response.len()
    }
}

impl TokenPairs {
    /// Tokenizes pairs and drops those whose prompt is too long. Keeps the order.
    ///
    /// This function keeps long responses, because the prompts that the LLM encodes must not depend on the
    /// SLM's tokenizer.
    pub(crate) fn of(
        texts: &[TextPair],
        context: ReaderContext,
        (prompt_reader, response_tokenizer): (&PromptReader, &TextTokenizer),
        limits: Limits,
    ) -> Result<Self, TrainError> {
        let mut pairs = Self::default();
        for record in texts.chunk_by(|a, b| context == ReaderContext::Record && are_of_one_record(a, b)) {
            let (record, readings) = match context {
                ReaderContext::Segment => read_alone(&record[0], prompt_reader, limits)?,
                ReaderContext::Record => read_record(record, prompt_reader, limits)?,
            };
            let mut record = record.into_iter();
            for Reading { llm_tokens, segments } in readings {
                if segments.is_empty() {
                    pairs.push(record.next(), (llm_tokens, None), response_tokenizer)?; // it is the prompt
                    continue;
                }
                for segment in segments {
                    let taken = (!llm_tokens.is_empty()).then(|| {
                        let (tokens, alignment) = segment.alignment.cropped();
                        TakenStates { reading: pairs.readings.len(), tokens, alignment }
                    });
                    pairs.push(record.next(), (segment.tokens, taken), response_tokenizer)?;
                }
                if !llm_tokens.is_empty() {
                    pairs.readings.push(llm_tokens);
                }
            }
        }
        Ok(pairs)
    }

    fn push(
        &mut self,
        text: Option<&TextPair>,
        (prompt, taken): (Vec<u32>, Option<TakenStates>),
        response_tokenizer: &TextTokenizer,
    ) -> Result<(), TrainError> {
        let target = &text.expect("each segment that is read is of a pair").target;
        let response = response_tokenizer.encode(target)?;
        self.pairs.push(TokenPair { prompt, taken, response, response_num_bytes: target.len() });
        Ok(())
    }

    /// Appends the pairs of another file.
    pub(crate) fn extend(&mut self, others: TokenPairs) {
        let num_readings = self.readings.len();
        self.readings.extend(others.readings);
        self.pairs.extend(others.pairs.into_iter().map(|mut pair| {
            pair.taken.iter_mut().for_each(|taken| taken.reading += num_readings);
            pair
        }));
    }

    /// The LLM's prompts.
    pub(crate) fn llm_prompts(&self) -> Vec<&[u32]> {
        match self.readings.is_empty() {
            true => self.pairs.iter().map(|pair| pair.prompt.as_slice()).collect(),
            false => self.readings.iter().map(Vec::as_slice).collect(),
        }
    }

    /// Places of the pairs whose response is short enough; the error names their files.
    pub(crate) fn usable(
        &self,
        files: &impl ToString,
        config: &TrainConfig,
    ) -> Result<Vec<usize>, TrainError> {
        let (max_prompt_tokens, max_response_tokens) = (config.max_prompt_tokens, config.max_response_tokens);
        let is_usable = |&place: &usize| self.pairs[place].response.len() <= max_response_tokens;
        let usable: Vec<usize> = (0..self.pairs.len()).filter(is_usable).collect();
        if usable.is_empty() {
            let files = files.to_string();
            return Err(TrainError::NoPairs { files, max_prompt_tokens, max_response_tokens });
        }
        Ok(usable)
    }
}

fn are_of_one_record(a: &TextPair, b: &TextPair) -> bool {
    let records = a.sentence_of.as_ref().zip(b.sentence_of.as_ref());
    records.is_some_and(|(a, b)| std::sync::Arc::ptr_eq(&a.record, &b.record))
}

/// A pair whose source is read alone, if it is short enough.
fn read_alone<'p>(
    pair: &'p TextPair,
    reader: &PromptReader,
    limits: Limits,
) -> Result<(Vec<&'p TextPair>, Vec<Reading>), TrainError> {
    let reading = reader.read(&pair.source)?;
    Ok(match reading.excess(limits) {
        None => (vec![pair], vec![reading]),
        Some(_) => (Vec::new(), Vec::new()),
    })
}

/// The sentences of a record that are short enough, with their readings. A pair outside a record is a record
/// of one sentence.
fn read_record<'p>(
    pairs: &'p [TextPair],
    reader: &PromptReader,
    limits: Limits,
) -> Result<(Vec<&'p TextPair>, Vec<Reading>), TrainError> {
    let text = pairs[0].sentence_of.as_ref().map_or(&*pairs[0].source, |sentence| &*sentence.record);
    let (mut kept, mut segments) = (Vec::new(), Vec::new());
    for pair in pairs {
        let whole = || 0..text.len();
        let range = pair.sentence_of.as_ref().map_or_else(whole, |Sentence { range, .. }| range.clone());
        let segment = reader.record_segment(range, &pair.source, |bytes| bytes)?;
        if reader.excess_of(text, &segment, limits)?.is_none() {
            kept.push(pair);
            segments.push(segment);
        }
    }
    Ok((kept, reader.read_record(text, segments, limits.max_prompt_tokens)?))
}
