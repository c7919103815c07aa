//! Cuts a sentence that is too long for the model: near its middle, at the strongest mark there. The halves
//! are cut again until each fits.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::cut::{Part, has_letter, trimmed};

/// Marks between clauses, the stronger ones first. ASCII marks count only before white space, so that numbers
/// and paths stay whole.
const MARKS: [&[char]; 2] =
    [&[';', ':', '!', '?', '…', '—', '；', '：', '！', '？', '؛', '؟'], &[',', '，', '、', '،']];

/// Appends to `read` the pieces of `part` of `text` that are read, without white space around them: the
/// whole, or parts that are short enough, as far as its characters allow. `judge` decides about each.
pub(crate) fn clauses<T>(
    text: &str,
    part: Range<usize>,
    judge: &mut impl FnMut(Range<usize>) -> Part<T>,
    read: &mut Vec<(Range<usize>, T)>,
) {
    let mut waiting = vec![trimmed(text, part)]; // a stack: the part that comes next in the text is on top
    while let Some(part) = waiting.pop() {
        let shown = trimmed(text, part.clone());
        if !has_letter(&text[shown.clone()]) {
            continue;
        }
        match judge(shown.clone()) {
            Part::Copied => {}
            Part::Read(made) => read.push((shown, made)),
            Part::TooLong(made) => match best_place(&text[part.clone()]) {
                Some(place) => waiting.extend([part.start + place..part.end, part.start..part.start + place]),
                None => read.push((shown, made)),
            },
        }
    }
}

/// The best place for a cut inside `piece`; none inside a single character.
fn best_place(piece: &str) -> Option<usize> {
    let marks = MARKS.iter().map(|marks| nearest_to_middle(piece, after_marks(piece, marks)));
    // A mark counts in the middle half alone: a short clause by itself is worth less than two of a size.
    let is_central = |&place: &usize| (piece.len() / 4..=piece.len() - piece.len() / 4).contains(&place);
    let at_mark = marks.flatten().find(is_central);
    let between_words = || nearest_to_middle(piece, word_starts(piece)).filter(is_central);
    let inside_word = || nearest_to_middle(piece, piece.split_word_bound_indices().map(|(start, _)| start));
    let anywhere = || nearest_to_middle(piece, piece.grapheme_indices(true).map(|(start, _)| start));
    at_mark.or_else(between_words).or_else(|| inside_word().filter(is_central)).or_else(anywhere)
}

/// Places right after one of `marks`.
fn after_marks(piece: &str, marks: &[char]) -> impl Iterator<Item = usize> {
    piece.match_indices(marks).map(|(start, mark)| (start + mark.len(), mark.is_ascii())).filter_map(
        |(end, is_ascii)| (!is_ascii || piece[end..].starts_with(char::is_whitespace)).then_some(end),
    )
}

/// Places where white space ends.
fn word_starts(piece: &str) -> impl Iterator<Item = usize> {
    let is_start = |&(start, char): &(usize, char)| {
        !char.is_whitespace() && piece[..start].ends_with(char::is_whitespace)
    };
    piece.char_indices().filter(is_start).map(|(start, _)| start)
}

/// The place nearest to the middle, inside the piece; of two, the first.
fn nearest_to_middle(piece: &str, places: impl Iterator<Item = usize>) -> Option<usize> {
    let inside = places.filter(|&place| place > 0 && place < piece.len());
    inside.min_by_key(|&place| (2 * place).abs_diff(piece.len()))
}
