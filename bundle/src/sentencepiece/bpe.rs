//! BPE models: neighbours are joined, those with the highest score first, as long as their union is a piece.
//!
//! Reference: Sennrich et al., arXiv 1508.07909, and `bpe_model.cc` of google/sentencepiece.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    ops::Range,
};

use super::{Cut, piece_trie::PieceTrie};

/// The pieces of a model with their scores.
#[derive(Debug, Clone)]
pub(super) struct Bpe {
    pub(super) pieces: HashMap<String, BpePiece>,
    /// Pieces that are never joined with others.
    pub(super) whole: PieceTrie,
    pub(super) unknown_id: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct BpePiece {
    pub(super) id: u32,
    pub(super) score: f32,
    /// Joined on the way to others, but in no cut.
    pub(super) is_unused: bool,
}

/// A part of the text between two neighbours, empty once it was joined to the one before it.
#[derive(Debug)]
struct Symbol {
    bytes: Range<usize>,
    previous: Option<usize>,
    next: Option<usize>,
    is_whole: bool,
}

/// Two neighbours that could be joined.
#[derive(Debug, PartialEq)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Eq for Pair {}

impl Ord for Pair {
    /// The largest is joined first: by score, then from left to right.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Bpe {
    pub(super) fn cut(&self, text: &str) -> Vec<Cut> {
        let mut joining = Joining { bpe: self, text, symbols: self.symbols(text), pairs: BinaryHeap::new() };
        let mut unused = HashMap::new();
        for right in 1..joining.symbols.len() {
            joining.consider((Some(right - 1), Some(right)), &mut unused);
        }
        while let Some(pair) = joining.pairs.pop() {
            joining.join(&pair, &mut unused);
        }
        let mut cuts = Vec::new();
        let mut place = (!joining.symbols.is_empty()).then_some(0);
        while let Some(index) = place {
            let symbol = &joining.symbols[index];
            self.emit(text, symbol.bytes.clone(), &unused, &mut cuts);
            place = symbol.next;
        }
        cuts
    }

    fn symbols(&self, text: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let whole = self.whole.longest_prefix(&text.as_bytes()[start..]);
            let char_len = text[start..].chars().next().map_or(1, char::len_utf8);
            let end = start + whole.unwrap_or(char_len);
            let index = symbols.len();
            let next = (end < text.len()).then_some(index + 1);
            let previous = index.checked_sub(1);
            symbols.push(Symbol { bytes: start..end, previous, next, is_whole: whole.is_some() });
            start = end;
        }
        symbols
    }

    /// Adds a symbol. An unused symbol is split again. `unused`: the start of the second half of each unused
    /// piece.
    fn emit(&self, text: &str, bytes: Range<usize>, unused: &HashMap<&str, usize>, cuts: &mut Vec<Cut>) {
        let piece = &text[bytes.clone()];
        match (self.pieces.get(piece), unused.get(piece)) {
            (Some(BpePiece { is_unused: true, .. }), Some(&half)) => {
                self.emit(text, bytes.start..bytes.start + half, unused, cuts);
                self.emit(text, bytes.start + half..bytes.end, unused, cuts);
            }
            (Some(found), _) => cuts.push(Cut { bytes, id: found.id }),
            (None, _) => cuts.push(Cut { bytes, id: self.unknown_id }),
        }
    }
}

/// A text while its symbols are joined.
struct Joining<'a> {
    bpe: &'a Bpe,
    text: &'a str,
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Pair>,
}

impl<'a> Joining<'a> {
    fn consider(
        &mut self,
        (left, right): (Option<usize>, Option<usize>),
        unused: &mut HashMap<&'a str, usize>,
    ) {
        let Some((left, right)) = left.zip(right) else { return };
        let (first, second) = (&self.symbols[left], &self.symbols[right]);
        if first.is_whole || second.is_whole {
            return;
        }
        let union = &self.text[first.bytes.start..second.bytes.end];
        let Some(piece) = self.bpe.pieces.get(union) else { return };
        if piece.is_unused {
            unused.insert(union, first.bytes.len());
        }
        self.pairs.push(Pair { score: piece.score, left, right, len: union.len() });
    }

    fn join(&mut self, pair: &Pair, unused: &mut HashMap<&'a str, usize>) {
        let &Pair { left, right, len, .. } = pair;
        let (first, second) = (self.symbols[left].bytes.clone(), self.symbols[right].bytes.clone());
        if first.is_empty() || second.is_empty() || first.len() + second.len() != len {
            return; // one of them was joined with another since
        }
        let next = self.symbols[right].next;
        self.symbols[left].bytes.end = second.end;
        self.symbols[left].next = next;
        if let Some(next) = next {
            self.symbols[next].previous = Some(left);
        }
        self.symbols[right].bytes = second.end..second.end;
        self.consider((self.symbols[left].previous, Some(left)), unused);
        self.consider((Some(left), next), unused);
    }
}
