//! Cuts a text or a sentence that is too long for the model: near its middle, at the strongest mark there.
//! The halves are cut again until each fits.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::cut::{Part, has_letter, trimmed};
use crate::sentences::sentences;
use crate::wrapped::unwrapped;

/// Marks between clauses, the stronger ones first. ASCII marks count only before white space, so that numbers
/// and paths stay whole.
const MARKS: [&[char]; 2] =
    [&[';', ':', '!', '?', '…', '—', '；', '：', '！', '？', '؛', '؟'], &[',', '，', '、', '،']];

/// Appends to `read` the pieces of `part` of `text` that are read, without white space around them: the
/// whole, or parts that are short enough, as far as its characters allow. `judge` decides about each. No cut
/// is `inside` anything.
pub(crate) fn clauses<T>(
    (text, inside): (&str, &impl Fn(usize) -> bool),
    part: Range<usize>,
    judge: &mut impl FnMut(Range<usize>) -> Part<T>,
    read: &mut Vec<(Range<usize>, T)>,
) {
    let place = |part: Range<usize>| best_place(&text[part.clone()], |place| inside(part.start + place));
    fitting((text, &place), part, judge, read);
}

/// The same of a text that is too long: it is cut at its structure first, so before headings, between
/// paragraphs, lines or sentences.
pub(crate) fn parts<T>(
    text: &str,
    judge: &mut impl FnMut(Range<usize>) -> Part<T>,
    read: &mut Vec<(Range<usize>, T)>,
) {
    let shown = unwrapped(text);
    let place = |part: Range<usize>| {
        let (piece, shown) = (&text[part.clone()], &shown[part]);
        structure(piece, shown).or_else(|| best_place(shown, |_| false))
    };
    fitting((text, &place), 0..text.len(), judge, read);
}

/// As [`clauses`], with cuts at a part's `place`.
fn fitting<T>(
    (text, place): (&str, &impl Fn(Range<usize>) -> Option<usize>),
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
            Part::TooLong(made) => match place(part.clone()) {
                Some(place) => {
                    waiting.extend([part.start + place..part.end, part.start..part.start + place]);
                }
                None => read.push((shown, made)),
            },
        }
    }
}

/// The best place for a cut between headings, paragraphs, lines or sentences. In `shown`, line ends that part
/// nothing are spaces.
fn structure(piece: &str, shown: &str) -> Option<usize> {
    let line_starts = || shown.match_indices('\n').map(|(place, _)| place + 1);
    let is_heading = |&place: &usize| {
        let line = shown[place..].lines().next().unwrap_or_default();
        let is_underlined = || {
            let next = shown[place..].lines().nth(1).unwrap_or_default().trim_end();
            next.len() > 2 && (next.chars().all(|c| c == '=') || next.chars().all(|c| c == '-'))
        };
        has_letter(line) && (line.starts_with('#') || is_underlined())
    };
    let follows_blank = |&place: &usize| {
        let before = shown[..place].trim_end_matches([' ', '\t', '\r', '\n']);
        shown[before.len()..place].matches('\n').count() > 1
    };
    let is_central = |&place: &usize| is_central(piece, place);
    let sentences = || sentences(shown).into_iter().map(|sentence| sentence.start);
    nearest_to_middle(piece, line_starts().filter(is_heading))
        .filter(is_central)
        .or_else(|| nearest_to_middle(piece, line_starts().filter(follows_blank)).filter(is_central))
        .or_else(|| nearest_to_middle(piece, line_starts()).filter(is_central))
        .or_else(|| nearest_to_middle(piece, sentences()).filter(is_central))
}

/// Whether a place is in the middle half: a short part by itself is worth less than two of a size.
fn is_central(piece: &str, place: usize) -> bool {
    (piece.len() / 4..=piece.len() - piece.len() / 4).contains(&place)
}

/// The best place for a cut inside `piece`; none inside a single character.
fn best_place(piece: &str, inside: impl Fn(usize) -> bool) -> Option<usize> {
    let is_free = |place: &usize| !inside(*place);
    let marks = MARKS.iter().map(|marks| nearest_to_middle(piece, after_marks(piece, marks).filter(is_free)));
    let is_central = |&place: &usize| is_central(piece, place);
    let at_mark = marks.flatten().find(is_central);
    let between_words = || nearest_to_middle(piece, word_starts(piece).filter(is_free)).filter(is_central);
    let bounds = || piece.split_word_bound_indices().map(|(start, _)| start).filter(is_free);
    let inside_word = || nearest_to_middle(piece, bounds());
    let graphemes = || piece.grapheme_indices(true).map(|(start, _)| start).filter(is_free);
    let anywhere = || nearest_to_middle(piece, graphemes());
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
