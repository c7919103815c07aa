//! The tokens that a row may choose, where a shortlist leaves out all others.
//!
//! The model then computes only their logits, in their order. Everywhere else in this crate a token is known
//! by its number; [`Places`] says where its logit is.

use std::sync::Arc;

/// Tokens that may be chosen: they rise, each is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates(Arc<[u32]>);

impl Candidates {
    /// These tokens, in any order.
    #[must_use]
    pub fn new(mut tokens: Vec<u32>) -> Self {
        tokens.sort(); // mostly sorted already, which this kind of sorting uses
        tokens.dedup();
        Self(tokens.into())
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.0
    }

    /// The place of a token's logit among those of all candidates.
    #[must_use]
    pub fn place(&self, token: u32) -> Option<usize> {
        self.0.binary_search(&token).ok()
    }
}

/// Where the logits of tokens are in a row: by their numbers, or among candidates.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Places<'a> {
    All,
    Of(&'a Candidates),
}

impl<'a> Places<'a> {
    pub(crate) fn of(candidates: Option<&'a Candidates>) -> Self {
        candidates.map_or(Self::All, Self::Of)
    }

    /// The token at a place.
    pub(crate) fn token(self, place: usize) -> u32 {
        match self {
            Self::All => place as u32,
            Self::Of(candidates) => candidates.0[place],
        }
    }

    /// The place of a token, if it has a logit.
    pub(crate) fn place(self, token: u32) -> Option<usize> {
        match self {
            Self::All => Some(token as usize),
            Self::Of(candidates) => candidates.place(token),
        }
    }
}
