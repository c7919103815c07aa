//! The sequences of one row, from their first token to the finished outputs.

use std::sync::Arc;

use crate::beam_search::BeamSearch;
use crate::candidates::Places;
use crate::constraints::{ConstraintScratch, Constraints};
use crate::copying::WrittenWords;
use crate::independent_search::IndependentSearch;
use crate::kernels::Shift;
use crate::sampling::SamplingScratch;
use crate::top_k::TopK;
use crate::{Candidates, FinishReason, FinishedSequence, Generation, LogitRows, Method};

/// A search's knowledge of its row.
#[derive(Debug, Clone)]
pub(crate) struct SearchBounds {
    pub(crate) generation: Arc<Generation>,
    /// The tokens that may be chosen; `None`: all.
    pub(crate) candidates: Option<Candidates>,
    pub(crate) end_of_sequence: u32,
    pub(crate) first_token: Option<u32>,
    pub(crate) min_new_tokens: usize,
    pub(crate) max_new_tokens: usize,
}

/// Memory that all rows share, one after the other.
#[derive(Debug, Default)]
pub(crate) struct SearchScratch {
    pub(crate) constrained: ConstraintScratch,
    pub(crate) top: TopK,
    pub(crate) sampling: SamplingScratch,
}

/// The live sequences of a row. It begins with one, which may become several at its first step.
#[derive(Debug)]
pub(crate) enum Search {
    /// Sequences that do not compete: greedy's one, or samples.
    Independent(IndependentSearch),
    /// Sequences that do.
    Beam(BeamSearch),
}

impl Search {
    pub(crate) fn new(bounds: SearchBounds, random_stream: u64) -> Self {
        match bounds.generation.options.method() {
            Method::Beam => Self::Beam(BeamSearch::new(bounds)),
            Method::Greedy | Method::Sample => {
                Self::Independent(IndependentSearch::new(bounds, random_stream))
            }
        }
    }

    /// The last choice of each live sequence; `None` before its first choice.
    pub(crate) fn last_tokens(&self) -> impl Iterator<Item = Option<u32>> {
        // One of the two is empty.
        let (independent, beam) = match self {
            Self::Independent(search) => (Some(search.last_tokens()), None),
            Self::Beam(search) => (None, Some(search.last_tokens())),
        };
        independent.into_iter().flatten().chain(beam.into_iter().flatten())
    }

    /// A copy that can go its own way, of a row that is one sequence and chooses token by token.
    pub(crate) fn clone_single(&self) -> Option<Search> {
        match self {
            Self::Independent(search) if search.single_tokens().is_some() => {
                Some(Self::Independent(search.clone()))
            }
            _ => None,
        }
    }

    /// The tokens of such a row.
    pub(crate) fn single_tokens(&self) -> Option<&[u32]> {
        match self {
            Self::Independent(search) => search.single_tokens(),
            Self::Beam(_) => None,
        }
    }

    /// Chooses the next token of each live sequence. `logits` has their rows, starting at `first_row`.
    pub(crate) fn advance(
        &mut self,
        (logits, first_row): (LogitRows<'_>, usize),
        scratch: &mut SearchScratch,
    ) {
        match self {
            Self::Independent(search) => search.advance((logits, first_row), scratch),
            Self::Beam(search) => search.advance((logits, first_row), scratch),
        }
    }

    /// For each live sequence, in order, the sequence that it continues, from before the last `advance`.
    /// Empty when the row is done.
    pub(crate) fn parents(&self) -> &[usize] {
        match self {
            Self::Independent(search) => search.parents(),
            Self::Beam(search) => search.parents(),
        }
    }

    /// The outputs, best first, once the row is done.
    pub(crate) fn into_outputs(self) -> Vec<FinishedSequence> {
        match self {
            Self::Independent(search) => search.into_outputs(),
            Self::Beam(search) => search.into_outputs(),
        }
    }
}

impl SearchBounds {
    /// Where the logits of tokens are.
    pub(crate) fn places(&self) -> Places<'_> {
        Places::of(self.candidates.as_ref())
    }

    /// The shifted logits of the tokens that may follow `tokens`, with the words written. Misfits among them
    /// are rarely likely, and apart from misfits most rows need no change. A misfit is therefore masked only
    /// once it was chosen, and the choice is repeated.
    pub(crate) fn constrain<'r>(
        &self,
        (tokens, written): (&[u32], Option<&WrittenWords>),
        (logits, shift): (&'r [f32], Shift),
        masks_misfits: bool,
        scratch: &'r mut ConstraintScratch,
    ) -> (&'r [f32], Shift) {
        let num_left = self.max_new_tokens.saturating_sub(tokens.len() + 1);
        let characters = self.generation.characters.as_ref().and_then(|characters| match masks_misfits {
            true => Some(characters.whole_mask(tokens, num_left)),
            false => characters.mask(tokens, num_left),
        });
        let constraints = Constraints {
            characters,
            generation: &self.generation,
            end_of_sequence: self.end_of_sequence,
            first_token: self.first_token,
            tokens,
            written,
            min_new_tokens: self.min_new_tokens,
            places: self.places(),
        };
        constraints.apply(logits, shift, scratch)
    }

    /// Whether `token` would break an output's characters at any place.
    pub(crate) fn is_misfit(&self, token: u32) -> bool {
        self.generation.characters.as_ref().is_some_and(|characters| characters.is_misfit(token))
    }

    /// Whether `token` ends a sequence without being part of its output.
    pub(crate) fn is_stop_token(&self, token: u32) -> bool {
        token == self.end_of_sequence || self.generation.stop_tokens.contains(&token)
    }

    /// Whether a sequence ends, after a token that is no stop token, which `tokens` ends with.
    pub(crate) fn end_after(&self, tokens: &[u32]) -> Option<FinishReason> {
        let is_stopped = self.generation.stop_when.as_ref().is_some_and(|condition| condition.is_met(tokens));
        match is_stopped && tokens.len() >= self.min_new_tokens {
            true => Some(FinishReason::Stop),
            false => (tokens.len() >= self.max_new_tokens).then_some(FinishReason::Length),
        }
    }
}
