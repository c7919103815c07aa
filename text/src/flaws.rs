//! Flaws of an output that no rule repairs: nothing written, words that go round in circles, a language or
//! script that was not asked for.

use crate::finish::Warning;
use crate::prepare::Prepared;
use crate::script::Script;

/// As many words repeat at most.
const MAX_PERIOD: usize = 8;
/// So often they stand in succession.
const MIN_ROUNDS: usize = 4;
/// Letters of a word that may go round in circles itself.
const MIN_LETTERS_OF_LOOP: usize = 24;
/// Letters of another script that are no slip of the source's own signs.
const MIN_STRANGE_LETTERS: usize = 2;

/// The flaws of the finished `output` of a text; `written` is the model's part of it.
pub(crate) fn flaws(prepared: &Prepared<'_>, written: &str, output: &str) -> Vec<Warning> {
    let rules = prepared.rules;
    let source = prepared.source();
    let mut flaws = Vec::new();
    if written.trim().is_empty() {
        flaws.push(Warning::Empty);
    }
    if loops(output) && !loops(source) {
        flaws.push(Warning::Looping);
    }
    if rules.language_check.is_some_and(|check| check.is_left_in_source(prepared.text(), written)) {
        flaws.push(Warning::SourceLanguage);
    }
    let target = rules.target_language.as_deref().map(Script::of_language);
    if target.is_some_and(|target| num_strange_letters(source, output, target) >= MIN_STRANGE_LETTERS) {
        flaws.push(Warning::OtherScript);
    }
    flaws
}

/// Whether one to eight words stand four times in succession, or as many letters within a long word.
fn loops(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    repeats(&words)
        || words.iter().any(|word| {
            word.len() >= MIN_LETTERS_OF_LOOP && word.contains(char::is_alphabetic) && {
                let letters: Vec<char> = word.chars().collect();
                letters.len() >= MIN_LETTERS_OF_LOOP && repeats(&letters)
            }
        })
}

fn repeats<T: PartialEq>(items: &[T]) -> bool {
    (1..=MAX_PERIOD).any(|period| {
        let mut streak = 0;
        items.iter().zip(items.iter().skip(period)).any(|(item, later)| {
            streak = if item == later { streak + 1 } else { 0 };
            streak >= period * (MIN_ROUNDS - 1)
        })
    })
}

/// Letters of a script that is neither the target language's nor one of the source text's.
fn num_strange_letters(source: &str, output: &str, target: Script) -> usize {
    let is_strange = |c: &char| Script::of(*c).is_some_and(|script| script != target);
    let strange = || output.chars().filter(|c| c.is_alphabetic()).filter(is_strange);
    if strange().next().is_none() {
        return 0;
    }
    let is_known = |script: Script| source.chars().any(|c| Script::of(c) == Some(script));
    strange().filter(|&c| Script::of(c).is_some_and(|script| !is_known(script))).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TextOptions, TextRules};

    #[test]
    fn words_in_circles_are_a_loop() {
        for text in ["a b a b a b a b", "no no no no", "x erererererererererererererer"] {
            assert!(loops(text), "{text}");
        }
        for text in ["a b a b a b", "no no no", "a normal sentence that says it once", "=====", ""] {
            assert!(!loops(text), "{text}");
        }
    }

    #[test]
    fn outputs_are_told_from_no_output_at_all() {
        let rules = TextRules::new(&TextOptions {
            language: Some("en".to_owned()),
            target_language: Some("pt".to_owned()),
            ..TextOptions::default()
        });
        let rules = rules.unwrap();
        let source = "The public library will be closed while the work that begins next week is done.";
        let found = |written: &str| {
            let finished = rules.prepare(source).finish(written);
            finished.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = "A biblioteca pública ficará fechada enquanto durarem as obras da próxima semana.";
        assert_eq!(found(good), [""; 0]);
        assert_eq!(found(""), ["empty_output"]);
        assert_eq!(found(source), ["left_in_source_language"]);
        assert_eq!(found(&format!("{good} Библиотека")), ["other_script"]);
        assert_eq!(found(&format!("{good} que que que que que")), ["looping"]);
        let greek = rules.prepare("The letter \u{3b1}\u{3b2} is here").finish("A letra \u{3b1}\u{3b2}");
        assert_eq!(greek.warnings, [], "what the source has");
    }
}
