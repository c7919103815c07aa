//! The language of a text, as far as it is certain: marks texts in another language than the job's source
//! language, and above all those already in its target language.

use whatlang::{Detector, Lang, detect};

use crate::code::language_of_code;
use crate::finish::Warning;

/// Shorter texts have too few letters for certainty.
const MIN_LETTERS: usize = 40;
/// The same, where the text is one of two languages.
const MIN_LETTERS_OF_LEANING: usize = 12;
/// Fewer words than this may all be names.
const MIN_WORDS: usize = 6;

/// The treatment of texts in another language than the job's source language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OtherLanguage {
    /// They are translated like all others.
    #[default]
    Translate,
    /// The text is its own output.
    Copy,
    /// Their records fail.
    Error,
}

impl OtherLanguage {
    /// Every treatment.
    pub const ALL: [OtherLanguage; 3] = [OtherLanguage::Translate, OtherLanguage::Copy, OtherLanguage::Error];

    /// Their names, in the same order.
    pub const NAMES: &'static [&'static str] = &["translate", "copy", "error"];

    /// The name in job files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The treatment of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|treatment| treatment.as_str() == name)
    }
}

/// Recognizes texts in other languages than the one that a job translates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LanguageCheck {
    source: Lang,
    target: Option<Lang>,
}

impl LanguageCheck {
    /// For texts in `source`, to be translated into `target`, codes such as `en`; `None` for a language that
    /// is unknown here.
    pub(crate) fn new(source: Option<&str>, target: Option<&str>) -> Option<Self> {
        let source = language(source?)?;
        let target = target.and_then(language).filter(|&target| target != source);
        Some(LanguageCheck { source, target })
    }

    /// How certainly a text is in the target language (1) rather than in the source's (-1); 0 if that cannot
    /// be told.
    pub(crate) fn leaning_to_target(&self, text: &str) -> f64 {
        let Some(target) = self.target else { return 0.0 };
        let num_letters = text.chars().filter(|c| c.is_alphabetic()).count();
        if num_letters < MIN_LETTERS_OF_LEANING {
            return 0.0;
        }
        let found = Detector::with_allowlist(vec![self.source, target]).detect(text);
        found.map_or(0.0, |found| {
            let is_target = found.lang() == target;
            if is_target { found.confidence() } else { -found.confidence() }
        })
    }

    /// Whether the output for `text` is surely still in the source language, as the text is.
    pub(crate) fn is_left_in_source(&self, text: &str, output: &str) -> bool {
        let is_long = |text: &str| {
            text.chars().filter(|c| c.is_alphabetic()).count() >= MIN_LETTERS
                && text.split_whitespace().count() >= MIN_WORDS
        };
        let Some(target) = self.target.filter(|target| *target != self.source && is_long(output)) else {
            return false;
        };
        let detector = Detector::with_allowlist(vec![self.source, target]);
        let is_source = |text: &str| {
            detector.detect(text).is_some_and(|of_two| of_two.lang() == self.source && of_two.is_reliable())
        };
        is_source(output)
            && is_source(text)
            && detect(output).is_some_and(|found| found.lang() == self.source)
    }

    /// The warning for a text that is surely in another language.
    pub(crate) fn warning(&self, text: &str) -> Option<Warning> {
        let num_letters = text.chars().filter(|c| c.is_alphabetic()).count();
        if num_letters < MIN_LETTERS || text.split_whitespace().count() < MIN_WORDS {
            return None;
        }
        let found = detect(text)?;
        let is_target = |target: &Lang| {
            let of_two = || Detector::with_allowlist(vec![self.source, *target]).detect(text);
            found.lang() == *target
                && of_two().is_some_and(|of_two| of_two.lang() == *target && of_two.is_reliable())
        };
        if self.target.as_ref().is_some_and(is_target) {
            return Some(Warning::TargetLanguage);
        }
        let is_other =
            found.is_reliable() && found.lang() != self.source && !are_alike(found.lang(), self.source);
        is_other.then_some(Warning::OtherLanguage)
    }
}

/// Languages that a few sentences may not distinguish.
fn are_alike(a: Lang, b: Lang) -> bool {
    let groups: [&[Lang]; 6] = [
        &[Lang::Spa, Lang::Por, Lang::Ita, Lang::Cat, Lang::Epo, Lang::Lat],
        &[Lang::Nob, Lang::Dan, Lang::Swe],
        &[Lang::Ces, Lang::Slk, Lang::Slv, Lang::Hrv],
        &[Lang::Rus, Lang::Ukr, Lang::Bel, Lang::Bul, Lang::Mkd, Lang::Srp],
        &[Lang::Nld, Lang::Afr, Lang::Deu],
        &[Lang::Ind, Lang::Jav],
    ];
    groups.iter().any(|group| group.contains(&a) && group.contains(&b))
}

fn language(code: &str) -> Option<Lang> {
    Some(match language_of_code(code) {
        "af" => Lang::Afr,
        "ar" => Lang::Ara,
        "be" => Lang::Bel,
        "bg" => Lang::Bul,
        "ca" => Lang::Cat,
        "cs" => Lang::Ces,
        "da" => Lang::Dan,
        "de" => Lang::Deu,
        "el" => Lang::Ell,
        "en" => Lang::Eng,
        "eo" => Lang::Epo,
        "es" => Lang::Spa,
        "et" => Lang::Est,
        "fi" => Lang::Fin,
        "fr" => Lang::Fra,
        "he" => Lang::Heb,
        "hi" => Lang::Hin,
        "hr" => Lang::Hrv,
        "hu" => Lang::Hun,
        "id" => Lang::Ind,
        "it" => Lang::Ita,
        "ja" => Lang::Jpn,
        "ko" => Lang::Kor,
        "lt" => Lang::Lit,
        "lv" => Lang::Lav,
        "nb" | "no" => Lang::Nob,
        "nl" => Lang::Nld,
        "pl" => Lang::Pol,
        "pt" => Lang::Por,
        "ro" => Lang::Ron,
        "ru" => Lang::Rus,
        "sk" => Lang::Slk,
        "sl" => Lang::Slv,
        "sr" => Lang::Srp,
        "sv" => Lang::Swe,
        "th" => Lang::Tha,
        "tr" => Lang::Tur,
        "uk" => Lang::Ukr,
        "vi" => Lang::Vie,
        "zh" => Lang::Cmn,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(text: &str) -> Option<Warning> {
        LanguageCheck::new(Some("en"), Some("pt")).unwrap().warning(text)
    }

    #[test]
    fn texts_in_other_languages_are_told() {
        let target = "A biblioteca municipal vai fechar durante as obras que começam na próxima semana.";
        assert_eq!(warning(target), Some(Warning::TargetLanguage));
        let other = "Die städtische Bibliothek schließt während der Bauarbeiten, die nächste Woche beginnen.";
        assert_eq!(warning(other), Some(Warning::OtherLanguage));
    }

    #[test]
    fn a_text_leans_to_one_of_two_languages() {
        let check = LanguageCheck::new(Some("en"), Some("pt")).unwrap();
        assert!(check.leaning_to_target("A biblioteca municipal vai fechar amanhã durante as obras.") > 0.3);
        assert!(check.leaning_to_target("The public library will be closed while they work.") < -0.3);
        assert_eq!(check.leaning_to_target("X1"), 0.0);
    }

    #[test]
    fn the_source_language_and_short_texts_are_not() {
        for text in [
            "The public library will be closed while the work that begins next week is done.",
            "development files for the Common Lisp interface to PostgreSQL, MySQL and SQLite",
            "Fechado",
            "Rio de Janeiro, São Paulo",
            "",
        ] {
            assert_eq!(warning(text), None, "{text}");
        }
    }
}
