//! Cuts a record's text: into sentences, if the job asks for it, and sentences that are too long for the
//! model at clauses.

use std::ops::Range;

use crate::clauses::clauses;
use crate::sentences::sentences;

/// The unit of reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The whole text of a record.
    Record,
    /// Each of its sentences.
    Sentence,
}

/// A part of a text, and what of the text is around it. All pieces of a text, one after the other, are the
/// text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text between the previous piece and this one.
    pub before: &'a str,
    /// The text that the model reads. It has a letter; a sentence has no white space around it.
    pub text: &'a str,
    /// The text after the last piece; empty for all others.
    pub after: &'a str,
}

/// Cuts a text. A text without a letter has no piece: there is nothing to write for it.
///
/// `fits` says whether the reader can take a piece. A sentence that does not fit is cut at clauses, then
/// between words, then anywhere between two characters; only a single character that does not fit stays as it
/// is. A text that is read whole is not cut, whether or not it fits.
#[must_use]
pub fn cut<'a>(text: &'a str, unit: Unit, mut fits: impl FnMut(&str) -> bool) -> Vec<Piece<'a>> {
    if unit == Unit::Record {
        let whole = Piece { before: "", text, after: "" };
        return has_letter(text).then_some(whole).into_iter().collect();
    }
    let mut parts = Vec::new();
    for sentence in sentences(text) {
        let trimmed = trimmed(text, sentence);
        match has_letter(&text[trimmed.clone()]) && !fits(&text[trimmed.clone()]) {
            true => parts.extend(clauses(text, trimmed, &mut fits)),
            false => parts.push(trimmed),
        }
    }
    pieces(text, parts.into_iter())
}

/// The pieces of `text` without those for which nothing is written: they are copied, as what stands between
/// pieces is.
#[must_use]
pub fn without_copied<'a>(
    text: &'a str,
    pieces: Vec<Piece<'a>>,
    is_copied: impl Fn(&str) -> bool,
) -> Vec<Piece<'a>> {
    let mut end = 0;
    let mut written = Vec::new();
    for piece in &pieces {
        let start = end + piece.before.len();
        end = start + piece.text.len();
        if !is_copied(piece.text) {
            written.push(start..end);
        }
    }
    if written.len() == pieces.len() { pieces } else { self::pieces(text, written.into_iter()) }
}

/// The pieces of a text whose `parts` rise and do not overlap. A part without a letter is between them, as is
/// all else.
fn pieces(text: &str, parts: impl Iterator<Item = Range<usize>>) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut end = 0; // of the last piece
    for part in parts.filter(|part| has_letter(&text[part.clone()])) {
        let part = trimmed(text, part);
        pieces.push(Piece { before: &text[end..part.start], text: &text[part.clone()], after: "" });
        end = part.end;
    }
    if let Some(last) = pieces.last_mut() {
        last.after = &text[end..];
    }
    pieces
}

/// A part of a text without the white space around it.
fn trimmed(text: &str, part: Range<usize>) -> Range<usize> {
    let piece = &text[part.clone()];
    let start = part.start + (piece.len() - piece.trim_start().len());
    start..start + piece.trim().len()
}

fn has_letter(part: &str) -> bool {
    part.contains(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::join;

    fn texts(text: &str) -> Vec<&str> {
        cut(text, Unit::Sentence, |_| true).into_iter().map(|piece| piece.text).collect()
    }

    fn within(text: &str, max_num_bytes: usize) -> Vec<&str> {
        let pieces = cut(text, Unit::Sentence, |part| part.len() <= max_num_bytes);
        assert_eq!(join(pieces.iter().copied()), text);
        pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn a_record_that_is_read_whole_is_one_piece_as_it_is() {
        let text = " One. Two.\n";
        assert_eq!(cut(text, Unit::Record, |_| false), [Piece { before: "", text, after: "" }]);
    }

    #[test]
    fn what_has_no_letter_stays_between_sentences() {
        let list = " 1. First, it reads.\n2. Then it writes.\n-----\n";
        assert_eq!(texts(list), ["First, it reads.", "Then it writes."]);
        let pieces = cut(list, Unit::Sentence, |_| true);
        let around: Vec<_> = pieces.iter().map(|piece| (piece.before, piece.after)).collect();
        assert_eq!(around, [(" 1. ", ""), ("\n2. ", "\n-----\n")]);
    }

    #[test]
    fn pieces_that_are_copied_stand_between_the_others() {
        let text = "One.\n%s\nTwo.";
        let pieces = without_copied(text, cut(text, Unit::Sentence, |_| true), |piece| piece == "%s");
        let befores: Vec<_> = pieces.iter().map(|piece| (piece.before, piece.text)).collect();
        assert_eq!(befores, [("", "One."), ("\n%s\n", "Two.")]);
        assert_eq!(without_copied(text, pieces, |_| true), []);
    }

    #[test]
    fn a_text_without_a_letter_has_no_piece() {
        for text in [" 3.14 ", "-- 1. 2.", "+39 06 1234", "\u{1f600}", " \n", ""] {
            for unit in [Unit::Record, Unit::Sentence] {
                assert_eq!(cut(text, unit, |_| true), [], "{text:?}");
            }
        }
    }

    #[test]
    fn a_sentence_that_is_too_long_is_cut_near_its_middle_at_the_strongest_mark_there() {
        let text = "It reads mail, and news; then it writes, if asked, a log. Short.";
        assert_eq!(
            within(text, 40),
            ["It reads mail, and news;", "then it writes, if asked, a log.", "Short."]
        );
        assert_eq!(within("One two three, four five six", 20), ["One two three,", "four five six"]);
        assert_eq!(within("One two three four five six", 15), ["One two three", "four five six"]);
        assert_eq!(
            within("numbers such as 1,000,000 stay whole", 20),
            ["numbers such as", "1,000,000 stay whole"]
        );
    }

    #[test]
    fn a_mark_far_from_the_middle_is_no_better_than_a_word() {
        assert_eq!(within("No; one two three four five", 20), ["No; one two", "three four five"]);
    }

    #[test]
    fn words_and_characters_are_cut_where_nothing_else_is_left() {
        assert_eq!(within("abcdefgh", 4), ["abcd", "efgh"]);
        assert_eq!(within("eee\u{301}e", 3), ["ee", "e\u{301}", "e"], "a letter keeps its accent");
        assert_eq!(within("\u{4f60}\u{597d}\u{4e16}\u{754c}", 6), ["\u{4f60}\u{597d}", "\u{4e16}\u{754c}"]);
        assert_eq!(within("\u{4f60}", 2), ["\u{4f60}"], "a character is never cut");
    }

    #[test]
    fn numbers_that_a_long_sentence_is_cut_off_from_stay_between() {
        assert_eq!(within("1 2 3 4 5 6 7 8 9 10 11 12 reads", 12), ["12 reads"]);
    }

    proptest! {
        #[test]
        fn what_is_cut_and_joined_is_the_text(
            text in "[aB.?!,; \n1(é。]{0,80}", max_num_bytes in 2usize..30
        ) {
            for unit in [Unit::Record, Unit::Sentence] {
                let pieces = cut(&text, unit, |part| part.len() <= max_num_bytes);
                prop_assert_eq!(pieces.is_empty(), !has_letter(&text));
                prop_assert!(pieces.is_empty() || join(pieces.iter().copied()) == text);
                prop_assert!(pieces.iter().rev().skip(1).all(|piece| piece.after.is_empty()));
                prop_assert!(pieces.iter().all(|piece| has_letter(piece.text)));
                prop_assert_eq!(cut(&text, unit, |part| part.len() <= max_num_bytes), pieces);
            }
            let pieces = cut(&text, Unit::Sentence, |part| part.len() <= max_num_bytes);
            prop_assert!(pieces.iter().all(|piece| piece.text.len() <= max_num_bytes));
            prop_assert!(pieces.iter().all(|piece| piece.text == piece.text.trim()));
        }

        #[test]
        fn any_text_comes_together_again(text in any::<String>(), max_num_bytes in 1usize..9) {
            let pieces = cut(&text, Unit::Sentence, |part| part.len() <= max_num_bytes);
            prop_assert!(pieces.is_empty() || join(pieces) == text);
        }
    }
}
