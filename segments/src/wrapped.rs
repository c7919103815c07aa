//! Paragraphs whose lines were broken at a width: they are read as one line, and their outputs are broken at
//! the same width again.
//!
//! In a wrapped paragraph, each line is as full as the width allows, and at least one sentence goes on in the
//! next line. Lists, titles, verses and addresses therefore keep their lines.

use std::borrow::Cow;
use std::ops::Range;

use textwrap::core::Word;
use textwrap::wrap_algorithms::wrap_first_fit;

use crate::Piece;

/// The least width of a wrapped paragraph, in characters: narrower lines are lists and verses.
const MIN_WIDTH: usize = 40;

/// A wrapped paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Paragraph {
    /// Its bytes: from the first line's first character that is no white space to the last line's last one.
    range: Range<usize>,
    /// The characters of its longest line.
    width: usize,
    /// White space before its first line, in characters.
    first_indent: usize,
    /// White space before all others, with the line end before it.
    line_break: String,
}

/// A line: its bytes without its end.
type Line<'a> = (Range<usize>, &'a str);

/// The text with spaces in place of the line ends that part no sentences, byte for byte.
pub(crate) fn unwrapped(text: &str) -> Cow<'_, str> {
    let paragraphs = paragraphs(text);
    if paragraphs.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for Paragraph { range, .. } in paragraphs {
        shown.push_str(&text[shown.len()..range.start]);
        shown.push_str(&text[range].replace(['\r', '\n'], " "));
    }
    shown.push_str(&text[shown.len()..]);
    Cow::Owned(shown)
}

/// The outputs of a plain text's pieces, joined. Each wrapped paragraph of the source is broken at its width
/// again. Bytes that are `whole` in a text are never parted. Unchanged pieces give the source.
#[must_use]
pub fn rewrapped(written: &[(Piece<'_>, &str)], whole: impl Fn(&str) -> Vec<Range<usize>>) -> String {
    let source: String =
        written.iter().flat_map(|(piece, _)| [piece.before, piece.text, piece.after]).collect();
    // Bytes of the source with the text in their place.
    let mut spans: Vec<(Range<usize>, &str)> = Vec::with_capacity(3 * written.len());
    for &(Piece { before, text, after, .. }, output) in written {
        for (from, to) in [(before, before), (text, output), (after, after)] {
            let start = spans.last().map_or(0, |(range, _)| range.end);
            spans.push((start..start + from.len(), to));
        }
    }
    let mut output = String::with_capacity(source.len() + source.len() / 4);
    let mut at = 0;
    for paragraph in paragraphs(&source) {
        output.push_str(&text_of(&spans, at..paragraph.range.start));
        let text = text_of(&spans, paragraph.range.clone());
        match text == source[paragraph.range.clone()] {
            true => output.push_str(&text),
            false => output.push_str(&paragraph.filled(&text, &whole)),
        }
        at = paragraph.range.end;
    }
    output.push_str(&text_of(&spans, at..source.len()));
    output
}

/// The text in place of these bytes of the source. Their ends are in no piece, or at its border. The spans
/// follow one another.
fn text_of(spans: &[(Range<usize>, &str)], bytes: Range<usize>) -> String {
    let first = spans.partition_point(|(range, _)| range.end <= bytes.start);
    let mut text = String::new();
    for (range, to) in spans[first..].iter().take_while(|(range, _)| range.start < bytes.end) {
        let (start, end) = (range.start.max(bytes.start), range.end.min(bytes.end));
        match *range == (start..end) {
            true => text.push_str(to),
            false => text.push_str(&to[start - range.start..end - range.start]), // between pieces: as it is
        }
    }
    text
}

impl Paragraph {
    /// A text in place of the paragraph, in lines.
    fn filled(&self, text: &str, whole: &impl Fn(&str) -> Vec<Range<usize>>) -> String {
        let line = joined_lines(text);
        let wholes = whole(&line);
        let is_free = |place: usize| !wholes.iter().any(|it| it.start < place && place < it.end);
        let mut words = Vec::new();
        let mut start = 0;
        let ends = line.match_indices(' ').map(|(place, _)| place + 1);
        for end in ends.filter(|&end| is_free(end - 1) && !line[end..].starts_with(' ')) {
            words.push(Word::from(&line[start..end]));
            start = end;
        }
        words.push(Word::from(&line[start..]));
        let indent = self.line_break.trim_start_matches(['\r', '\n']).chars().count();
        let room = |indent: usize| self.width.saturating_sub(indent) as f64;
        let lines = wrap_first_fit(&words, &[room(self.first_indent), room(indent)]);
        let text_of_line = |words: &&[Word<'_>]| {
            let texts = words.iter().enumerate().flat_map(|(number, word)| {
                let space = if number + 1 < words.len() { word.whitespace } else { "" };
                [word.word, space]
            });
            texts.collect::<String>()
        };
        lines.iter().map(text_of_line).collect::<Vec<String>>().join(&self.line_break)
    }
}

/// A text in one line: each line end, with the white space around it, is a space.
fn joined_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ")
}

/// The wrapped paragraphs of a text, in order.
fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut found = Vec::new();
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let range = at..at + line.trim_end_matches(['\r', '\n']).len();
        at += line.len();
        let content = &text[range.clone()];
        let begins = content.trim().is_empty() || begins_item(content) || has_other_indent(&lines, content);
        if begins {
            found.extend(paragraph(text, &lines));
            lines.clear();
        }
        if !content.trim().is_empty() {
            lines.push((range, content));
        }
    }
    found.extend(paragraph(text, &lines));
    found
}

/// Whether a line stands apart from the lines of a paragraph: the second line sets the indentation.
fn has_other_indent(lines: &[Line<'_>], line: &str) -> bool {
    lines.get(1).is_some_and(|(_, second)| indent(second) != indent(line))
}

/// The paragraph of these lines, if they are wrapped.
fn paragraph(text: &str, lines: &[Line<'_>]) -> Option<Paragraph> {
    let (first, second, last) = (lines.first()?, lines.get(1)?, lines.last()?);
    let width = |line: &str| line.trim_end().chars().count();
    let widest = lines.iter().map(|(_, line)| width(line)).max()?;
    let first_word = |line: &str| line.split_whitespace().next().map_or(0, |word| word.chars().count());
    let is_full = |pair: &[Line<'_>]| width(pair[0].1) + 1 + first_word(pair[1].1) > widest;
    let goes_on = |pair: &[Line<'_>]| {
        let ends = pair[0].1.trim_end().ends_with(['.', '!', '?', ':', ';', '…']);
        !ends && pair[1].1.trim_start().starts_with(char::is_lowercase)
    };
    let is_wrapped = widest >= MIN_WIDTH && lines.windows(2).all(is_full) && lines.windows(2).any(goes_on);
    is_wrapped.then(|| Paragraph {
        range: first.0.start + indent(first.1).len()..last.0.start + last.1.trim_end().len(),
        width: widest,
        first_indent: indent(first.1).chars().count(),
        line_break: format!("{}{}", line_end(&text[first.0.end..second.0.start]), indent(second.1)),
    })
}

fn line_end(between: &str) -> &str {
    if between.starts_with('\r') { "\r\n" } else { "\n" }
}

/// The white space before a line.
fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// Whether a line begins an item of a list, a quote, a comment, a row of a table, a heading, or a field like
/// `key:`.
fn begins_item(line: &str) -> bool {
    let line = line.trim_start();
    let word = line.split_whitespace().next().unwrap_or_default();
    let number = word.trim_end_matches(['.', ')', ':']);
    let is_number = number.len() < word.len()
        && (number.chars().all(|c| c.is_ascii_digit()) || number.chars().count() == 1)
        && !number.is_empty();
    is_number
        || word.ends_with(':')
        || !word.starts_with(|c: char| c.is_alphanumeric() || "\"'([{<«“‘„¿¡%$@`/\\_".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Markup, Part, Unit, cut};

    const WRAPPED: &str = "  A tool that reads the mail of a whole office in
  the night. It writes what came in, and what is
  still open. (Slow.)

   * An item that is long enough to be broken in
     two lines, as here.
   * Short.

To whom it may concern
A short line
";

    fn texts(text: &str) -> Vec<&str> {
        let pieces = cut(text, (Unit::Sentence, Markup::None), Part::Read);
        pieces.into_iter().map(|(piece, _)| piece.text).collect()
    }

    /// The text with an output for each sentence.
    fn with_outputs(text: &str, output: impl Fn(&str) -> String) -> String {
        let pieces = cut(text, (Unit::Sentence, Markup::None), Part::Read);
        let outputs: Vec<String> = pieces.iter().map(|(piece, _)| output(piece.text)).collect();
        let written: Vec<(Piece<'_>, &str)> =
            pieces.iter().zip(&outputs).map(|((piece, _), output)| (*piece, &output[..])).collect();
        rewrapped(&written, |text| text.find("<a b c>").map(|at| at..at + 7).into_iter().collect())
    }

    #[test]
    fn sentences_go_on_over_the_lines_of_wrapped_paragraphs() {
        assert_eq!(
            texts(WRAPPED),
            [
                "A tool that reads the mail of a whole office in\n  the night.",
                "It writes what came in, and what is\n  still open.",
                "(Slow.)",
                "* An item that is long enough to be broken in\n     two lines, as here.",
                "* Short.",
                "To whom it may concern",
                "A short line",
            ]
        );
    }

    #[test]
    fn lines_that_are_no_wrapped_paragraph_stay_by_themselves() {
        for text in [
            "A list of things that are not in any order\nan apple\na pear and a good deal more of such fruit",
            "Whose woods these are I think I do not know,\nHis house is in the village, as I was told",
            "- one thing that is long enough for a wrapped\n- another thing that is long enough for it",
            "title: a key and its value, as in a file of settings\nname: b and its value, as in such a file",
        ] {
            assert_eq!(texts(text).len(), text.lines().count(), "{text:?}");
        }
    }

    #[test]
    fn an_output_is_broken_at_the_width_of_its_source() {
        let longer =
            |sentence: &str| sentence.split_whitespace().collect::<Vec<_>>().join(" ").replace('i', "iiii");
        assert_eq!(
            with_outputs(WRAPPED, longer),
            "  A tool that reads the maiiiil of a whole
  offiiiice iiiin the niiiight. It wriiiites what
  came iiiin, and what iiiis stiiiill open.
  (Slow.)

   * An iiiitem that iiiis long enough to be
     broken iiiin two liiiines, as here.
   * Short.

To whom iiiit may concern
A short liiiine
"
        );
    }

    #[test]
    fn no_unit_is_broken() {
        let text = "A tool that reads the mail of a whole office in\r\nthe night and more.";
        let output = |_: &str| "It reads the mail of a whole large office <a b c> tonight.".to_owned();
        assert_eq!(
            with_outputs(text, output),
            "It reads the mail of a whole large office\r\n<a b c> tonight."
        );
    }

    proptest! {
        #[test]
        fn unchanged_pieces_give_the_text(
            words in proptest::collection::vec("[a-z]{1,9}[.,]?", 1..60),
            width in 40_usize..80,
            indent in "[ ]{0,3}",
            first in "( {0,3}|- |1\\. )",
        ) {
            let words: Vec<String> = words.iter().map(|word| format!("{word} ")).collect();
            let words: Vec<Word<'_>> = words.iter().map(|word| Word::from(word)).collect();
            let rooms = [first.len(), indent.len()].map(|indent| (width - indent) as f64);
            let lines = wrap_first_fit(&words, &rooms);
            let lines: Vec<String> = lines
                .iter()
                .map(|line| line.iter().map(|word| word.word).collect::<Vec<_>>().join(" "))
                .collect();
            let text = format!("A title\n\n{first}{}\n\n- end\n", lines.join(&format!("\n{indent}")));
            prop_assert_eq!(with_outputs(&text, joined_lines), text.as_str());
            prop_assert_eq!(with_outputs(&text, str::to_owned), text);
        }
    }
}
