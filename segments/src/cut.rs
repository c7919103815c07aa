//! Cuts a record's text: into sentences, if the job asks for it, and sentences that are too long for the
//! model at clauses.

use std::ops::Range;

use baton_markup::{Attribute, Markup, Run, runs};

use crate::clauses::{clauses, parts};
use crate::sentences::sentences;
use crate::wrapped::unwrapped;

/// The unit of reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The whole text of a record.
    Record,
    /// The whole text, or its parts by its structure if it is too long.
    Part,
    /// Each of its sentences.
    Sentence,
}

impl Unit {
    /// The unit of a job with these options.
    #[must_use]
    pub fn new(by_sentence: bool, cut_long_texts: bool) -> Self {
        match (by_sentence, cut_long_texts) {
            (true, _) => Unit::Sentence,
            (false, true) => Unit::Part,
            (false, false) => Unit::Record,
        }
    }
}

/// A part of a text, and the text around it. All pieces in the text, one after the other, are the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text between the previous piece and this one.
    pub before: &'a str,
    /// The text that the model reads. It has a letter; a sentence has no white space around it.
    pub text: &'a str,
    /// The text after the last piece; empty for all others.
    pub after: &'a str,
    /// Where it stands.
    pub place: Place<'a>,
}

/// The place of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the text.
    InText,
    /// In a tag that the piece before it has, as the value of an attribute. `before` and `after` are then the
    /// other parts of the tag; the last piece of a tag has what is `after` it.
    InTag {
        /// The value in the source.
        source: &'a str,
    },
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
/// too long stays unchanged. A text that is read whole is never cut; one that
/// is read by [`Unit::Part`] is cut at its structure first. A line's end parts sentences, except in
/// paragraphs whose lines were broken at a width ([`rewrapped`](crate::rewrapped)).
///
/// Of a document, each block is a text by itself, and so is each text of an attribute. A line's end within a
/// block ends no sentence.
#[must_use]
pub fn cut<T>(
    text: &str,
    (unit, markup): (Unit, Markup),
    mut judge: impl FnMut(Range<usize>) -> Part<T>,
) -> Vec<(Piece<'_>, T)> {
    let mut read = Vec::new();
    if markup != Markup::None {
        return cut_document(text, (unit, markup), judge);
    }
    if unit != Unit::Sentence {
        match has_letter(text).then(|| judge(0..text.len())) {
            Some(Part::TooLong(_)) if unit == Unit::Part => parts(text, &mut judge, &mut read),
            Some(Part::Read(made) | Part::TooLong(made)) => read.push((0..text.len(), made)),
            Some(Part::Copied) | None => {}
        }
        return pieces(text, read);
    }
    let shown = unwrapped(text);
    for sentence in sentences(&shown) {
        clauses((&shown, &|_| false), sentence, &mut judge, &mut read);
    }
    pieces(text, read)
}

/// Cuts a document.
fn cut_document<T>(
    document: &str,
    (unit, markup): (Unit, Markup),
    mut judge: impl FnMut(Range<usize>) -> Part<T>,
) -> Vec<(Piece<'_>, T)> {
    let mut read: Vec<(Range<usize>, T)> = Vec::new();
    let mut in_tags: Vec<Attribute> = Vec::new();
    for run in runs(document, markup) {
        let parts = read_run(document, &run, unit, &mut judge);
        for attribute in run.attributes {
            match parts.iter().any(|(part, _)| has(part, &attribute.tag)) {
                true => in_tags.push(attribute),
                false => read.extend(read_run(document, &value_of(&attribute), unit, &mut judge)),
            }
        }
        read.extend(parts);
    }
    read.sort_by_key(|(part, _)| part.start);
    let parts: Vec<Range<usize>> = read.iter().map(|(part, _)| part.clone()).collect();
    let mut in_tags = in_tags.into_iter().peekable();
    let mut all = Vec::with_capacity(read.len());
    for (piece, part) in pieces(document, read).into_iter().zip(parts) {
        all.push(piece);
        while let Some(first) = in_tags.next_if(|attribute| has(&part, &attribute.tag)) {
            let tag = first.tag.clone();
            let mut texts = read_run(document, &value_of(&first), unit, &mut judge);
            while let Some(next) = in_tags.next_if(|attribute| attribute.tag == tag) {
                texts.extend(read_run(document, &value_of(&next), unit, &mut judge));
            }
            all.extend(pieces_of_tag(document, tag, texts));
        }
    }
    all
}

fn has(part: &Range<usize>, tag: &Range<usize>) -> bool {
    part.start <= tag.start && tag.end <= part.end
}

fn value_of(attribute: &Attribute) -> Run {
    Run { range: attribute.value.clone(), zones: Vec::new(), attributes: Vec::new() }
}

/// The pieces of a tag with these texts.
fn pieces_of_tag<T>(document: &str, tag: Range<usize>, texts: Vec<(Range<usize>, T)>) -> Vec<(Piece<'_>, T)> {
    let mut end = tag.start;
    let piece = |(part, made): (Range<usize>, T)| {
        let (before, text) = (&document[end..part.start], &document[part.clone()]);
        end = part.end;
        (Piece { before, text, after: "", place: Place::InTag { source: text } }, made)
    };
    let mut pieces: Vec<(Piece<'_>, T)> = texts.into_iter().map(piece).collect();
    if let Some((last, _)) = pieces.last_mut() {
        last.after = &document[end..tag.end];
    }
    pieces
}

/// The parts of a run that are read, in order.
fn read_run<T>(
    document: &str,
    run: &Run,
    unit: Unit,
    judge: &mut impl FnMut(Range<usize>) -> Part<T>,
) -> Vec<(Range<usize>, T)> {
    let (shown, start) = (run.shown(document), run.range.start);
    let mut read = Vec::new();
    let mut judge = |part: Range<usize>| judge(start + part.start..start + part.end);
    let inside = |place: usize| {
        let place = start + place;
        run.zones.iter().any(|zone| zone.range.start < place && place < zone.range.end)
    };
    match unit {
        Unit::Record => {
            let whole = trimmed(&shown, 0..shown.len());
            if has_letter(&shown)
                && let Part::Read(made) | Part::TooLong(made) = judge(whole.clone())
            {
                read.push((whole, made));
            }
        }
        Unit::Part | Unit::Sentence => {
            let whole = trimmed(&shown, 0..shown.len());
            let all = if unit == Unit::Part { vec![whole] } else { sentences(&shown) };
            for part in all {
                clauses((&shown, &inside), part, &mut judge, &mut read);
            }
        }
    }
    read.into_iter().map(|(part, made)| (start + part.start..start + part.end, made)).collect()
}

/// The pieces of a text that are `read`: they rise and do not overlap. All other text is between them.
fn pieces<T>(text: &str, read: Vec<(Range<usize>, T)>) -> Vec<(Piece<'_>, T)> {
    let mut end = 0; // of the last piece
    let piece = |(part, made): (Range<usize>, T)| {
        let before = &text[end..part.start];
        end = part.end;
        (Piece { before, text: &text[part], after: "", place: Place::InText }, made)
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
        let cut = cut(text, (unit, Markup::None), judge);
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
        assert_eq!(
            cut_within(text, Unit::Record, 0),
            [Piece { before: "", text, after: "", place: Place::InText }]
        );
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
            cut(text, (Unit::Sentence, Markup::None), judge)
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
        let whole = cut("%s and so on", (Unit::Record, Markup::None), |_| Part::<()>::Copied);
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
    fn a_text_that_is_read_by_parts_is_cut_at_its_structure() {
        let text = "# One\n\nIt reads. It goes\non.\n\n# Two\n\nIt writes a log. It sends a mail at night.\n";
        let within = |max_num_bytes: usize| {
            let pieces = cut_within(text, Unit::Part, max_num_bytes);
            assert_eq!(join(pieces.iter().copied()), text);
            pieces.into_iter().map(|piece| piece.text).collect::<Vec<_>>()
        };
        assert_eq!(within(100), [text], "it fits as it is");
        assert_eq!(
            within(50),
            ["# One\n\nIt reads. It goes\non.", "# Two\n\nIt writes a log. It sends a mail at night."]
        );
        assert_eq!(
            within(40),
            ["# One\n\nIt reads. It goes\non.", "# Two\n\nIt writes a log.", "It sends a mail at night."]
        );
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

    /// The texts that are read of a document, and what they come from.
    fn texts_of(document: &str, markup: Markup) -> Vec<&str> {
        let pieces: Vec<Piece<'_>> =
            cut(document, (Unit::Sentence, markup), Part::Read).into_iter().map(|(piece, _)| piece).collect();
        assert_eq!(join(pieces.iter().copied()), document);
        pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn a_document_is_cut_into_the_sentences_of_its_blocks() {
        let html = "<h1>Title</h1>\n<p title='A tip'>It <b>reads\nmail.</b> It&nbsp;writes. \
            See <a href=\"x. Y\" title=\"More. Now\">this</a>.</p><img alt=\"A cat\">";
        assert_eq!(
            texts_of(html, Markup::Html),
            [
                "Title",
                "A tip",
                "It <b>reads\nmail.</b>",
                "It&nbsp;writes.",
                "See <a href=\"x. Y\" title=\"More. Now\">this</a>.",
                "More.",
                "Now",
                "A cat",
            ]
        );
        let markdown = "# Title\n\n> It reads\n> mail. It\n> writes.\n\n- One `a. B` more.\n  Two.\n";
        assert_eq!(
            texts_of(markdown, Markup::Markdown),
            ["Title", "It reads\n> mail.", "It\n> writes.", "One `a. B` more.", "Two."]
        );
    }

    #[test]
    fn texts_of_tags_take_their_place_in_the_output() {
        let document = "<p>One <img alt=\"A cat\" title=\"Tom\"> and <a title=\"More\">this</a></p>";
        let judged = cut(document, (Unit::Sentence, Markup::Html), Part::Read);
        let output = |text: &str| match text {
            "A cat" => "Un gatto".to_owned(),
            "More" => "Altro".to_owned(),
            text => text.replace("One", "Uno").replace("and", "e").replace("this", "questo"),
        };
        let outputs: Vec<String> = judged.iter().map(|(piece, _)| output(piece.text)).collect();
        let pieces = judged.iter().zip(&outputs).map(|((piece, _), text)| Piece { text, ..*piece });
        assert_eq!(
            join(pieces),
            "<p>Uno <img alt=\"Un gatto\" title=\"Tom\"> e <a title=\"Altro\">questo</a></p>"
        );
    }

    proptest! {
        #[test]
        fn any_document_comes_together_again(
            document in "([aB.é \n]|<p>|</p>|<b>|</b>|<img alt=\"A b. C\" title='D'>|<!--|-->|<pre>|</pre>|`|[*>#|-]|&amp;|\\[x\\]|\\(y\\)|<br>){0,40}",
            max_num_bytes in 2usize..30
        ) {
            for markup in Markup::ALL {
                for unit in [Unit::Record, Unit::Sentence] {
                    let judge = |part: Range<usize>| match part.len() <= max_num_bytes {
                        true => Part::Read(()),
                        false => Part::TooLong(()),
                    };
                    let pieces: Vec<Piece<'_>> =
                        cut(&document, (unit, markup), judge).into_iter().map(|(piece, ())| piece).collect();
                    prop_assert!(pieces.is_empty() || join(pieces) == document);
                }
            }
        }

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
