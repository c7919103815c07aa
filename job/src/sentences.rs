//! The sentences of a text, for jobs that generate sentence by sentence.
//!
//! Boundaries are those of Unicode (UAX #29), but for abbreviations and other places in the midst of a line where it sees an end. What has no letter, such as a rule of dashes or
//! the number of a list's item, is no sentence: it stays as it is, between two.

use unicode_segmentation::UnicodeSegmentation as _;

/// Abbreviations with a full stop that stand in the midst of sentences, in small letters.
const ABBREVIATIONS: [&str; 14] =
    ["approx", "cf", "dr", "fig", "gen", "mr", "mrs", "ms", "no", "prof", "sec", "st", "vol", "vs"];

/// A sentence, and what of the text is before it and behind it: all of a text's sentences with these, in order, are the text, but for white
/// space at its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence<'a> {
    /// What stands between the sentence before and this one.
    pub before: &'a str,
    /// The sentence, without white space around it. It has a letter, unless the whole text has none.
    pub text: &'a str,
    /// What stands behind the text's last sentence; empty for all others.
    pub after: &'a str,
}

/// Cuts a text at the ends of sentences and lines. At least one sentence, unless the text is white space alone.
#[must_use]
pub fn sentences(text: &str) -> Vec<Sentence<'_>> {
    let text = text.trim();
    let mut sentences: Vec<Sentence<'_>> = Vec::new();
    let mut start = 0; // of what no sentence has yet
    let mut end = 0; // of what has been looked at
    let mut gap_start = 0;
    for bounded in text.split_sentence_bounds() {
        end += bounded.len();
        let candidate = &text[start..end];
        if !candidate.contains(char::is_alphabetic) {
            start = end;
            continue;
        }
        if end < text.len() && !bounded.ends_with('\n') && goes_on(candidate, &text[end..]) {
            continue;
        }
        let sentence = candidate.trim();
        let sentence_start = start + candidate.len() - candidate.trim_start().len();
        sentences.push(Sentence { before: &text[gap_start..sentence_start], text: sentence, after: "" });
        gap_start = sentence_start + sentence.len();
        start = end;
    }
    match sentences.last_mut() {
        Some(last) => last.after = &text[gap_start..],
        None if text.is_empty() => {}
        None => sentences.push(Sentence { before: "", text, after: "" }),
    }
    sentences
}

/// Whether a sentence goes on where Unicode sees its end, though the line goes on: without white space (".NET"), in small letters (as after a
/// quoted question), or after an abbreviation.
fn goes_on(sentence: &str, rest: &str) -> bool {
    let begins_small = || rest.chars().find(|c| c.is_alphanumeric()).is_some_and(char::is_lowercase);
    !sentence.ends_with(char::is_whitespace) || begins_small() || ends_in_abbreviation(sentence)
}

/// Whether the full stop at the end belongs to the last word: an initial, a word with another full stop inside, or one of a list.
fn ends_in_abbreviation(sentence: &str) -> bool {
    let last_word = sentence.split_whitespace().next_back().unwrap_or_default();
    let Some(word) = last_word.strip_suffix('.') else { return false };
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let mut letters = word.chars();
    let is_initial = letters.next().is_some_and(char::is_uppercase) && letters.next().is_none();
    let has_inner_stops =
        word.split('.').count() > 1 && word.split('.').all(|part| part.chars().count() == 1);
    is_initial || has_inner_stops || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|sentence| sentence.text).collect()
    }

    fn joined(text: &str) -> String {
        let parts = sentences(text).into_iter().flat_map(|s| [s.before, s.text, s.after]);
        parts.collect()
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
    fn full_stops_inside_names_numbers_and_abbreviations_end_nothing() {
        for text in [
            "Python 3.12 and libc.so.6 of example.org are there.",
            "By J.R.R. Tolkien, and by A. Author for the U.S. Navy.",
            "Formats (e.g. PDF, i.e. Portable Document Format) and Dr. Who, vs. No. 5.",
            "It asks \"did you mean that?\" when .NET developers write (surprise!) something else.",
        ] {
            assert_eq!(texts(text), [text]);
        }
    }

    #[test]
    fn what_has_no_letter_stays_between_sentences() {
        let list = "1. First, it reads.\n2. Then it writes.\n-----\n";
        assert_eq!(texts(list), ["First, it reads.", "Then it writes."]);
        let before_and_after: Vec<_> = sentences(list).iter().map(|s| (s.before, s.after)).collect();
        assert_eq!(before_and_after, [("1. ", ""), ("\n2. ", "\n-----")]);
        assert_eq!(texts("3.14"), ["3.14"], "unless there is nothing else");
        assert_eq!(texts(" \n"), [""; 0]);
    }

    proptest! {
        #[test]
        fn sentences_and_what_is_between_them_are_the_text(text in "[aB.?! \n1(é]{0,60}") {
            prop_assert_eq!(joined(&text), text.trim());
            let all = sentences(&text);
            prop_assert!(all.iter().all(|sentence| sentence.text == sentence.text.trim() && !sentence.text.is_empty()));
            prop_assert!(all.iter().rev().skip(1).all(|sentence| sentence.after.is_empty()));
            prop_assert_eq!(all.is_empty(), text.trim().is_empty());
        }
    }
}
