//! The view of a segment: everything that models, and whatever steers their decoding, may know of it.

use crate::Prepared;

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

impl Prepared<'_> {
    /// The view of the segment.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { text: self.text(), terms: self.terms().collect() }
    }
}

#[cfg(test)]
mod tests {
    use crate::{TextOptions, TextRules};

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
