//! Bad outputs that a score hides: text that goes round in circles, and text that was not translated.

use crate::text::python_words;

const MAX_LOOP_WORDS: usize = 8;
const LOOP_REPEATS: usize = 4;

/// Whether a run of one to eight words occurs four times in succession.
#[must_use]
pub fn is_looping(output: &str) -> bool {
    let words: Vec<&str> = python_words(output).collect();
    (1..=MAX_LOOP_WORDS).any(|length| {
        let mut repeated = 0; // words in a row that equal the word `length` before them
        (length..words.len()).any(|at| {
            repeated = if words[at] == words[at - length] { repeated + 1 } else { 0 };
            repeated == (LOOP_REPEATS - 1) * length
        })
    })
}

/// Whether an output that should differ equals its source, ignoring case and white space.
#[must_use]
pub fn is_untranslated(output: &str, source: &str, reference: &str) -> bool {
    let normal = |text: &str| python_words(text).collect::<Vec<_>>().join(" ").to_lowercase();
    let (output, source) = (normal(output), normal(source));
    !output.is_empty() && output == source && normal(reference) != source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_repeats_in_succession_are_a_loop_and_three_are_not() {
        for (text, looping) in [
            ("no no no no", true),
            ("no no no", false),
            ("of the of the of the of the end", true),
            ("of the of the of the end", false),
            ("a b a c a d a e", false),
            ("", false),
        ] {
            assert_eq!(is_looping(text), looping, "{text}");
        }
    }

    #[test]
    fn a_correct_unchanged_output_counts_as_translated() {
        assert!(is_untranslated("Web  browser", "web browser", "navigatore web"));
        assert!(!is_untranslated("web browser", "web browser", "Web Browser"));
        assert!(!is_untranslated("", "", "x"));
    }
}
