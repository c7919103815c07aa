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

/// A part of a text, and the text around it. All pieces of a text, one after the other, are the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text between the previous piece and this one.
    pub before: &'a str,
    /// The text that the model reads. It has a letter; a sentence has no white space around it.
    pub text: &'a str,
    /// The text after the last piece; empty for all others.
    pub after: &'a str,
}

/// A caller's judgement of a part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<T> {
    /// Nothing is written for it: it stays unchanged, like the text between pieces.
    Copied,
    /// It is read.
    Read(T),
    /// It is too long for the reader.
    TooLong(T),
}

/// Cuts a text into pieces, each with the value that `judge` gave it. A text without a letter has no piece.
///
/// `judge` is asked for parts of the text, by their bytes; each has a letter. A sentence that is too long is
/// cut at clauses, then between words, then anywhere between two characters; only a single character that is
/// too long stays unchanged. A text that is read whole is never cut.
#[must_use]
pub fn cut<T>(text: &str, unit: Unit, mut judge: impl FnMut(Range<usize>) -> Part<T>) -> Vec<(Piece<'_>, T)> {
    let mut read = Vec::new();
    if unit == Unit::Record {
        if has_letter(text)
            && let Part::Read(made) | Part::TooLong(made) = judge(0..text.len())
        {
            read.push((0..text.len(), made));
        }
        return pieces(text, read);
    }
    for sentence in sentences(text) {
        clauses(text, sentence, &mut judge, &mut read);
    }
    pieces(text, read)
}

/// The pieces of a text that are `read`: they rise and do not overlap. All other text is between them.
fn pieces<T>(text: &str, read: Vec<(Range<usize>, T)>) -> Vec<(Piece<'_>, T)> {
    let mut end = 0; // of the last piece
    let piece = |(part, made): (Range<usize>, T)| {
        let before = &text[end..part.start];
        end = part.end;
        (Piece { before, text: &text[part], after: "" }, made)
    };
    let mut pieces: Vec<(Piece<'_>, T)> = read.into_iter().map(piece).collect();
    if let Some((last, _)) = pieces.last_mut() {
        last.after = &text[end..];
    }
    pieces
}

/// A part of a text without the white space around it.
pub(crate) fn trimmed(text: &str, part: Range<usize>) -> Range<usize> {
    let piece = &text[part.clone()];
    let start = part.start + (piece.len() - piece.trim_start().len());
    start..start + piece.trim().len()
}

pub(crate) fn has_letter(part: &str) -> bool {
    part.contains(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::join;

    /// All parts up to `max_num_bytes` fit.
    fn cut_within(text: &str, unit: Unit, max_num_bytes: usize) -> Vec<Piece<'_>> {
        let judge = |part: Range<usize>| match part.len() <= max_num_bytes {
            true => Part::Read(part),
            false => Part::TooLong(part),
        };
        let cut = cut(text, unit, judge);
        assert!(cut.iter().all(|(piece, part)| text[part.clone()] == *piece.text));
        cut.into_iter().map(|(piece, _)| piece).collect()
    }

    fn texts(text: &str) -> Vec<&str> {
        cut_within(text, Unit::Sentence, usize::MAX).into_iter().map(|piece| piece.text).collect()
    }

    fn within(text: &str, max_num_bytes: usize) -> Vec<&str> {
        let pieces = cut_within(text, Unit::Sentence, max_num_bytes);
        assert_eq!(join(pieces.iter().copied()), text);
        pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn a_record_that_is_read_whole_is_one_piece_as_it_is() {
        let text = " One. Two.\n";
        assert_eq!(cut_within(text, Unit::Record, 0), [Piece { before: "", text, after: "" }]);
    }

    #[test]
    fn what_has_no_letter_stays_between_sentences() {
        let list = " 1. First, it reads.\n2. Then it writes.\n-----\n";
        assert_eq!(texts(list), ["First, it reads.", "Then it writes."]);
        let pieces = cut_within(list, Unit::Sentence, usize::MAX);
        let around: Vec<_> = pieces.iter().map(|piece| (piece.before, piece.after)).collect();
        assert_eq!(around, [(" 1. ", ""), ("\n2. ", "\n-----\n")]);
    }

    #[test]
    fn copied_text_stays_between_the_pieces() {
        let text = "One.\n%s\nTwo, %s, three.";
        let cut_with = |copied: &[&str], max_num_bytes: usize| {
            let judge = |part: Range<usize>| match &text[part] {
                part if copied.contains(&part) => Part::Copied,
                part if part.len() > max_num_bytes => Part::TooLong(part),
                part => Part::Read(part),
            };
            cut(text, Unit::Sentence, judge)
        };
        let befores = |pieces: &[(Piece<'_>, &str)]| -> Vec<(String, String)> {
            pieces.iter().map(|(piece, _)| (piece.before.to_owned(), piece.text.to_owned())).collect()
        };
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(before, text)| (before.to_owned(), text.to_owned())).collect()
        };
        let pieces = cut_with(&["%s"], 99);
        assert_eq!(befores(&pieces), owned(&[("", "One."), ("\n%s\n", "Two, %s, three.")]));
        let pieces = cut_with(&["One.", "%s", "Two,", "%s,"], 7);
        assert_eq!(befores(&pieces), owned(&[("One.\n%s\nTwo, %s, ", "three.")]), "parts of a sentence, too");
        assert_eq!(cut_with(&["One.", "%s", "Two, %s, three."], 99), []);
        let whole = cut("%s and so on", Unit::Record, |_| Part::<()>::Copied);
        assert_eq!(whole, []);
    }

    #[test]
    fn a_text_without_a_letter_has_no_piece() {
        for text in [" 3.14 ", "-- 1. 2.", "+39 06 1234", "\u{1f600}", " \n", ""] {
            for unit in [Unit::Record, Unit::Sentence] {
                assert_eq!(cut_within(text, unit, usize::MAX), [], "{text:?}");
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
                let pieces = cut_within(&text, unit, max_num_bytes);
                prop_assert_eq!(pieces.is_empty(), !has_letter(&text));
                prop_assert!(pieces.is_empty() || join(pieces.iter().copied()) == text);
                prop_assert!(pieces.iter().rev().skip(1).all(|piece| piece.after.is_empty()));
                prop_assert!(pieces.iter().all(|piece| has_letter(piece.text)));
                prop_assert_eq!(cut_within(&text, unit, max_num_bytes), pieces);
            }
            let pieces = cut_within(&text, Unit::Sentence, max_num_bytes);
            prop_assert!(pieces.iter().all(|piece| piece.text.len() <= max_num_bytes));
            prop_assert!(pieces.iter().all(|piece| piece.text == piece.text.trim()));
        }

        #[test]
        fn any_text_comes_together_again(text in any::<String>(), max_num_bytes in 1usize..9) {
            let pieces = cut_within(&text, Unit::Sentence, max_num_bytes);
            prop_assert!(pieces.is_empty() || join(pieces) == text);
        }
    }
}
