//! Unigram models: of all ways to cut a text into pieces, the one with the largest sum of scores.
//!
//! Reference: Kudo, arXiv 1804.10959, and `EncodeOptimized` in `unigram_model.cc` of google/sentencepiece,
//! whose order of comparisons and widths of numbers decide between equal sums.

use super::{Cut, piece_trie::PieceTrie};

/// How much less than the lowest score a character has that no piece covers.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The pieces of a model with their scores.
#[derive(Debug, Clone)]
pub(super) struct Unigram {
    pub(super) trie: PieceTrie,
    /// By id.
    pub(super) scores: Vec<UnigramScore>,
    pub(super) unknown_id: u32,
    /// The lowest score of a normal piece.
    pub(super) lowest_score: f32,
}

/// The contribution of a piece to a sum.
#[derive(Debug, Clone, Copy)]
pub(super) enum UnigramScore {
    Normal(f32),
    /// Chosen wherever it occurs.
    UserDefined,
    /// In no cut.
    Unused,
}

/// The best way to a place in the text.
#[derive(Debug, Clone, Copy)]
struct BestPath {
    score: f32,
    start: usize,
    id: u32,
}

impl Unigram {
    pub(super) fn cut(&self, text: &str) -> Vec<Cut> {
        let bytes = text.as_bytes();
        let mut best: Vec<Option<BestPath>> = vec![None; bytes.len() + 1];
        let unknown_score = self.lowest_score - UNKNOWN_PENALTY;
        for (start, char) in text.char_indices() {
            let score_here = best[start].map_or(0.0, |path| path.score);
            let mut has_char = false;
            for (len, id) in self.trie.prefixes(&bytes[start..]) {
                let score = match self.scores[id as usize] {
                    UnigramScore::Unused => continue,
                    // As the reference: the highest score that it starts from is the smallest positive float.
                    UnigramScore::UserDefined => len as f64 * f64::from(f32::MIN_POSITIVE) - 0.1,
                    UnigramScore::Normal(score) => f64::from(score),
                };
                improve(&mut best[start + len], score + f64::from(score_here), (start, id));
                has_char |= len == char.len_utf8();
            }
            if !has_char {
                let end = &mut best[start + char.len_utf8()];
                improve(end, f64::from(unknown_score + score_here), (start, self.unknown_id));
            }
        }
        let mut cuts = Vec::new();
        let mut end = bytes.len();
        while end > 0 {
            let BestPath { start, id, .. } = best[end].expect("every character has a piece or is unknown");
            cuts.push(Cut { bytes: start..end, id });
            end = start;
        }
        cuts.reverse();
        cuts
    }
}

fn improve(end: &mut Option<BestPath>, score: f64, (start, id): (usize, u32)) {
    if end.is_none_or(|best| score > f64::from(best.score)) {
        *end = Some(BestPath { score: score as f32, start, id });
    }
}
