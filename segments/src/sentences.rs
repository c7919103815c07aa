//! The sentences of a text.
//!
//! Boundaries are those of Unicode (UAX #29), with exceptions: abbreviations and other false ends within a
//! line. Forgotten white space between two sentences is a boundary if nothing else can be meant.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::abbreviations::{ends_in_abbreviation, may_be_name};

/// Ends of sentences after which scripts without spaces continue at once.
const WIDE_ENDS: [char; 4] = ['。', '！', '？', '｡'];
/// Letters of the shortest word that a sentence ends with whose white space was forgotten, and of the word
/// that begins the next one.
const MIN_GLUED_LETTERS: usize = 2;

/// Cuts a text at the ends of sentences and lines. The parts follow one another; white space and text without
/// a letter may lie around and between them.
pub(crate) fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut start = 0; // of what no sentence has yet
    let mut end = 0; // of what has been looked at
    for bounded in text.split_sentence_bounds() {
        end += bounded.len();
        let candidate = &text[start..end];
        let rest = &text[end..];
        let has_letter = candidate.contains(char::is_alphabetic);
        // signs right before a word belong to it: "![The cat](a.png)"
        let goes_on =
            if has_letter { goes_on(candidate, rest) } else { !candidate.ends_with(char::is_whitespace) };
        if !rest.is_empty() && !bounded.ends_with('\n') && goes_on {
            continue;
        }
        sentences.extend(unglued(text, start..end));
        start = end;
    }
    if start < text.len() {
        sentences.extend(unglued(text, start..text.len()));
    }
    sentences
}

/// Whether a sentence continues where Unicode sees its end within a line: without white space (".NET"), in
/// small letters (as after a quoted question), or after an abbreviation.
fn goes_on(sentence: &str, rest: &str) -> bool {
    let begins_small = || rest.chars().find(|c| c.is_alphanumeric()).is_some_and(char::is_lowercase);
    if sentence.ends_with(WIDE_ENDS) {
        return false;
    }
    !sentence.ends_with(char::is_whitespace) || begins_small() || ends_in_abbreviation(sentence)
}

/// Cuts a sentence where another one begins without white space before it ("First one.Second one.").
fn unglued(text: &str, sentence: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = sentence.start;
    let piece = &text[sentence.clone()];
    for (stop, mark) in piece.match_indices(['.', '!', '?']) {
        let place = stop + mark.len();
        if is_glued(&piece[..stop], &piece[place..]) {
            parts.push(start..sentence.start + place);
            start = sentence.start + place;
        }
    }
    parts.push(start..sentence.end);
    parts
}

/// Whether a sentence ends between two texts without white space between them: after a word in small letters
/// that is not the sentence's first, and before a capitalized word that is not its last. Both words consist
/// of letters, so versions, hosts, paths and calls stay whole. A list exempts names such as `string.Format`,
/// which look the same.
fn is_glued(before: &str, behind: &str) -> bool {
    let Some((_, last_word)) = before.rsplit_once(char::is_whitespace) else { return false };
    let (first_word, next) = behind.split_once(char::is_whitespace).unwrap_or_default();
    let is_long = |word: &str| word.chars().count() >= MIN_GLUED_LETTERS;
    let is_small = |word: &str| is_long(word) && word.chars().all(char::is_lowercase);
    let is_capitalized = |word: &str| {
        let mut chars = word.chars();
        is_long(word) && chars.next().is_some_and(char::is_uppercase) && chars.all(char::is_lowercase)
    };
    let first_word = first_word.strip_suffix(',').unwrap_or(first_word);
    is_small(last_word)
        && is_capitalized(first_word)
        && next.contains(char::is_alphabetic)
        && !may_be_name(last_word, first_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        let parts = sentences(text).into_iter().map(|part| text[part].trim());
        parts.filter(|part| part.contains(char::is_alphabetic)).collect()
    }

    #[test]
    fn a_text_is_cut_at_the_ends_of_sentences_and_lines() {
        assert_eq!(
            texts("It reads. Does it write? Yes!  So it does"),
            ["It reads.", "Does it write?", "Yes!", "So it does"]
        );
        assert_eq!(texts("A title\nA text: it\ngoes on."), ["A title", "A text: it", "goes on."]);
        assert_eq!(texts("one sentence"), ["one sentence"]);
    }

    #[test]
    fn signs_before_a_word_belong_to_its_sentence() {
        assert_eq!(texts("![The cat](a.png) runs."), ["![The cat](a.png) runs."]);
        assert_eq!(texts("Wait! [Then](b) it runs."), ["Wait!", "[Then](b) it runs."]);
    }

    #[test]
    fn sentences_of_scripts_without_spaces_end_at_their_own_marks() {
        assert_eq!(texts("你好。再见。"), ["你好。", "再见。"]);
    }

    #[test]
    fn sentences_whose_white_space_was_forgotten_are_cut() {
        for (text, sentences) in [
            ("First one.Second one.", ["First one.", "Second one."]),
            ("Is it there?Yes it is.", ["Is it there?", "Yes it is."]),
            ("It stops!Then, it goes on.", ["It stops!", "Then, it goes on."]),
            ("Er las es.Über Nacht kam Regen.", ["Er las es.", "Über Nacht kam Regen."]),
        ] {
            assert_eq!(texts(text), sentences);
        }
    }

    #[test]
    fn full_stops_inside_names_numbers_and_abbreviations_end_nothing() {
        for text in [
            "Python 3.12 and libc.so.6 of example.org are there.",
            "By J.R.R. Tolkien, and by A. Author for the U.S. Navy.",
            "Formats (e.g. PDF, i.e. Portable Document Format) and Dr. Who, vs. No. 5.",
            "It asks \"did you mean that?\" when .NET developers write (surprise!) something else.",
            "Version 1.0.Beta of the tool is out now.",
            "See README.Debian and copyright.Debian for what it does.",
            "Call string.Format or System.Console for it, or os.Path if you must.",
            "Open index.php?Id=5 or Main.java, or setup.Exe or report.Pdf there.",
            "The class org.apache.Tomcat starts, and so does node.Js here.",
            "Files such as archive.tar.Gz and libfoo.So.1 are packed.",
            "It costs approx.Ten per month.",
            "foo.Bar is there",
            "use foo.Bar",
            "use foo.Bar() and foo.barBaz or foo.BarBaz there.",
        ] {
            assert_eq!(texts(text), [text]);
        }
    }
}
