//! Alignment by characters: the LLM's tokens that belong to each token of a small model.
//!
//! Both models read one text, each in its own tokens. A token covers a span of the text. A small model's
//! token takes the states of those LLM tokens whose spans share characters with its own. Tokens of templates,
//! special tokens and tokens that a tokenizer inserts cover nothing.

use std::ops::Range;

use crate::Limits;

/// The bytes of a text that a token covers, whole characters. An empty span covers nothing.
pub type Span = Range<usize>;

/// A prompt in tokens, each with its span of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpannedTokens {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The span of each.
    pub spans: Vec<Span>,
}

impl SpannedTokens {
    /// The same tokens in a text that has `offset` bytes before this one.
    #[must_use]
    pub fn shifted(self, offset: usize) -> Self {
        let shift = |span: Span| if span.is_empty() { span } else { span.start + offset..span.end + offset };
        Self { spans: self.spans.into_iter().map(shift).collect(), ..self }
    }
}

/// For each token of a small model's prompt, the LLM's tokens whose states it takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenAlignment {
    positions: Vec<u32>, // of the LLM's tokens, token after token
    ends: Vec<usize>,    // of each token's share of `positions`
}

impl TokenAlignment {
    /// Aligns tokens by the characters of the text that both cover. Spans may come in any order and may
    /// overlap, like those of tokens that share a character.
    #[must_use]
    pub fn by_characters(llm: &[Span], slm: &[Span]) -> Self {
        let mut by_start: Vec<(Span, u32)> = (0..)
            .zip(llm)
            .filter(|(_, span)| !span.is_empty())
            .map(|(at, span)| (span.clone(), at))
            .collect();
        by_start.sort_by_key(|(span, position)| (span.start, *position));
        // The end of the longest reach up to each, which rises, so that a search finds where to begin.
        let reaches = by_start.iter().scan(0, |reach: &mut usize, (span, _)| {
            *reach = span.end.max(*reach);
            Some(*reach)
        });
        let reaches: Vec<usize> = reaches.collect();
        let mut alignment = Self::default();
        for span in slm {
            let start = alignment.positions.len();
            if !span.is_empty() {
                let first = reaches.partition_point(|&reach| reach <= span.start);
                let overlapping = by_start[first..].iter().take_while(|(other, _)| other.start < span.end);
                let overlapping = overlapping.filter(|(other, _)| other.end > span.start);
                alignment.positions.extend(overlapping.map(|(_, position)| position));
                alignment.positions[start..].sort_unstable();
            }
            alignment.ends.push(alignment.positions.len());
        }
        alignment
    }

    /// How many tokens it aligns.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.ends.len()
    }

    /// Positions of the LLM's tokens whose states a token takes, rising.
    ///
    /// # Panics
    /// There is no such token.
    #[must_use]
    pub fn of_token(&self, token: usize) -> &[u32] {
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.positions[start..self.ends[token]]
    }

    /// The shortest run of the LLM's tokens with all states that are taken, and the same alignment, with
    /// positions from the start of the run.
    #[must_use]
    pub fn cropped(mut self) -> (Range<usize>, Self) {
        let first = self.positions.iter().min().copied().unwrap_or(0);
        let end = self.positions.iter().max().map_or(first, |last| last + 1);
        self.positions.iter_mut().for_each(|position| *position -= first);
        (first as usize..end as usize, self)
    }

    /// The tokens that take states, in order, with the positions of these states.
    pub fn aligned(&self) -> impl Iterator<Item = (usize, &[u32])> {
        (0..self.num_tokens()).map(|token| (token, self.of_token(token))).filter(|(_, of)| !of.is_empty())
    }
}

/// One reading of an encoder: a text, a segment, or a window of a record. The LLM reads it once. A small
/// model with its own tokens reads it segment by segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The LLM's tokens, template included. Empty if the LLM reads nothing.
    pub llm_tokens: Vec<u32>,
    /// The small model's prompts, segment by segment. Empty if it reads the LLM's tokens.
    pub segments: Vec<SegmentPrompt>,
}

/// A segment's prompt in the tokens of the small model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentPrompt {
    /// Token ids, template included; never empty.
    pub tokens: Vec<u32>,
    /// For each token, the LLM's tokens of the [`Reading`] that belong to it. Empty if the LLM reads nothing.
    pub alignment: TokenAlignment,
}

impl Reading {
    /// A prompt that both models read in the LLM's tokens.
    #[must_use]
    pub fn of_llm_tokens(llm_tokens: Vec<u32>) -> Self {
        Self { llm_tokens, segments: Vec::new() }
    }

    /// Tokens that pass the larger model: the LLM's, or the small model's if it works alone.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        let of_segments = || self.segments.iter().map(|segment| segment.tokens.len()).sum();
        if self.llm_tokens.is_empty() { of_segments() } else { self.llm_tokens.len() }
    }

    /// Says that it has more tokens than `limits` allows, in words that continue "the prompt has".
    #[must_use]
    pub fn excess(&self, limits: Limits) -> Option<String> {
        let of_segments = self.segments.iter().map(|segment| segment.tokens.len()).max().unwrap_or(0);
        let excess = |num_tokens: usize, of: &str, limit: usize| {
            let excess = format!("{num_tokens} tokens{of}; the bundle reads at most {limit}");
            (num_tokens > limit).then_some(excess)
        };
        excess(self.llm_tokens.len(), "", limits.max_prompt_tokens)
            .or_else(|| excess(of_segments, " of the small model", limits.slm_prompt_tokens()))
    }

    /// Tokens of each prompt made from it.
    #[must_use]
    pub fn prompt_lens(&self) -> Vec<usize> {
        if self.segments.is_empty() {
            return vec![self.llm_tokens.len()];
        }
        self.segments.iter().map(|segment| segment.tokens.len()).collect()
    }
}

#[cfg(test)]
#[path = "alignment/tests.rs"]
mod tests;
