//! Which merges of the LLM's tokenizer are worth keeping in the small model's.
//!
//! A set of tokens is usable if it is closed: with a token, the two parts that it is merged from. BPE applies
//! the merge of the lowest rank first; so a word all of whose merges are kept, in their order, is cut exactly
//! as with all merges.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use tokenizers::{Model, ModelWrapper, Tokenizer, models::bpe::BPE};

use crate::slm_tokenizer::merges_of;

/// The merges of a byte-level BPE tokenizer.
pub(crate) struct LlmMerges {
    model: BPE,
    merges: Vec<(String, String)>,   // by rank
    rank_of: HashMap<String, usize>, // the first merge that makes a token
}

impl LlmMerges {
    /// None if the tokenizer is not BPE.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        let merges = merges_of(model);
        let mut rank_of = HashMap::with_capacity(merges.len());
        for (rank, (left, right)) in merges.iter().enumerate() {
            rank_of.entry(format!("{left}{right}")).or_insert(rank);
        }
        Some(Self { model: model.clone(), merges, rank_of })
    }

    /// The merges, by rank, that make the tokens used by most `words`, at most `max_merges` of them.
    ///
    /// Each word counts once, however often it occurs: frequent names are learned anyway; rare ones have to
    /// be copied.
    pub(crate) fn needed_by<'a>(
        &self,
        words: impl Iterator<Item = &'a str>,
        max_merges: usize,
    ) -> Result<Vec<(String, String)>, tokenizers::Error> {
        let mut num_words: HashMap<usize, usize> = HashMap::new(); // by rank
        for word in words {
            for token in self.model.tokenize(word)? {
                if let Some(&rank) = self.rank_of.get(&token.value) {
                    *num_words.entry(rank).or_default() += 1;
                }
            }
        }
        let mut by_use: Vec<(usize, usize)> = num_words.into_iter().collect();
        by_use.sort_unstable_by_key(|&(rank, count)| (Reverse(count), rank));

        let mut kept = HashSet::new();
        for (rank, _) in by_use {
            let mut added = Vec::new();
            self.collect_missing(rank, &kept, &mut added);
            if kept.len() + added.len() > max_merges {
                continue; // one that needs fewer parts may still fit
            }
            kept.extend(added);
        }
        let mut ranks: Vec<usize> = kept.into_iter().collect();
        ranks.sort_unstable();
        Ok(ranks.into_iter().map(|rank| self.merges[rank].clone()).collect())
    }

    /// The merge of `rank` and those of its parts, without those in `kept`.
    fn collect_missing(&self, rank: usize, kept: &HashSet<usize>, missing: &mut Vec<usize>) {
        if kept.contains(&rank) || missing.contains(&rank) {
            return;
        }
        missing.push(rank);
        let (left, right) = &self.merges[rank];
        for part in [left, right] {
            if let Some(&rank) = self.rank_of.get(part) {
                self.collect_missing(rank, kept, missing);
            }
        }
    }
}
