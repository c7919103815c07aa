//! The view of a segment: everything that models, and whatever steers their decoding, may know of it.

use std::sync::Arc;

use crate::term::TermFinder;
use crate::{Markup, OtherLanguage, Prepared, TextRules};

/// A segment as models see it. Segments with equal views get equal outputs from equal models and options, so
/// they are decoded once. Everything that decides an output beside the job's options therefore has to be
/// here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View<'p> {
    /// The text to read. Empty if there is nothing to translate: the output is then the source.
    pub text: &'p str,
    /// The terms that the text has in the form for the output, in order.
    pub terms: Vec<&'p str>,
}

impl TextRules {
    /// The weight of the flaws of what a model wrote for a view; 0 is none that another output might not
    /// have. It is a function of view, output and languages: the job's own units and terms say nothing about
    /// it.
    #[must_use]
    pub fn flaws_of(&self, view: &View<'_>, written: &str) -> u32 {
        let rules = Self {
            finder: Some(Arc::clone(&self.judge)),
            terms: Arc::new(TermFinder::new(&[], None)),
            language_check: self.judge_language,
            other_language: OtherLanguage::Translate,
            markup: Markup::None,
            leaves_numbers: false,
            ..self.clone()
        };
        let small = written.to_lowercase();
        let is_missed = |term: &&&str| !small.contains(&term.to_lowercase());
        let num_missed = if self.must_have_all { view.terms.iter().filter(is_missed).count() } else { 0 };
        let missed = u32::try_from(num_missed).unwrap_or(u32::MAX);
        rules.prepare(view.text).finish(written).flaws.saturating_add(missed)
    }
}

impl Prepared<'_> {
    /// The view of the segment.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { text: self.text(), terms: self.terms().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::View;
    use crate::{TextOptions, TextRules};

    #[test]
    fn flaws_depend_on_the_view_alone() {
        let of = |options: TextOptions| {
            let options = TextOptions {
                language: Some("en".to_owned()),
                target_language: Some("pt".to_owned()),
                ..options
            };
            TextRules::new(&options).unwrap()
        };
        let protecting = TextOptions { protect: vec!["mail".to_owned()], ..TextOptions::default() };
        let all = [of(TextOptions::default()), of(protecting), of(TextOptions::default()).leaving_all()];
        let view = View { text: "Open X1 of the disco, number 48151", terms: vec!["disco"] };
        for rules in all {
            assert_eq!(rules.flaws_of(&view, "Abra X1 do disco, n\u{fa}mero 48151"), 0);
            assert!(rules.flaws_of(&view, "Abra do disco, n\u{fa}mero 48151") > 0, "a carrier is missing");
            assert!(rules.flaws_of(&view, "Abra X1, n\u{fa}mero 48151") > 0, "a term is missing");
            assert!(rules.flaws_of(&view, "Abra X1 do disco") > 0, "a number is missing");
        }
    }

    #[test]
    fn a_term_that_was_put_in_is_told_from_the_same_word_of_the_text() {
        let options = TextOptions { terms: vec!["disk=disco".parse().unwrap()], ..TextOptions::default() };
        let rules = TextRules::new(&options).unwrap();
        let (with_term, without) = (rules.prepare("Open the disk."), rules.prepare("Open the disco."));
        let (with_term, without) = (with_term.view(), without.view());
        assert_eq!(with_term.text, without.text);
        assert_eq!((&with_term.terms[..], &without.terms[..]), (&["disco"][..], &[][..]));
    }
}
