//! The languages that a job or a record names.

use crate::GenerationOptions;

/// Languages by their codes; none means that of the job, and then the bundle's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LanguageChoice {
    /// The language that is read.
    pub source: Option<String>,
    /// The language that is written.
    pub target: Option<String>,
}

impl LanguageChoice {
    /// The choice that a job makes for all its records.
    #[must_use]
    pub fn of(options: &GenerationOptions) -> Self {
        Self { source: options.source_language.clone(), target: options.target_language.clone() }
    }

    /// Whether neither language is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.target.is_none()
    }

    /// These languages, and those of `other` where none is named.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let either = |own: &Option<String>, other: &Option<String>| own.as_ref().or(other.as_ref()).cloned();
        Self { source: either(&self.source, &other.source), target: either(&self.target, &other.target) }
    }

    /// Bytes of the codes.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        self.source.iter().chain(&self.target).map(String::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_language_comes_before_the_jobs() {
        let choice = |source: Option<&str>, target: Option<&str>| LanguageChoice {
            source: source.map(str::to_owned),
            target: target.map(str::to_owned),
        };
        let options = GenerationOptions {
            source_language: Some("en".to_owned()),
            target_language: Some("fr".to_owned()),
            ..GenerationOptions::default()
        };
        let job = LanguageChoice::of(&options);
        assert_eq!(choice(None, Some("it")).or(&job), choice(Some("en"), Some("it")));
        assert_eq!(choice(None, None).or(&job), job);
        assert!(LanguageChoice::default().is_empty() && !job.is_empty());
        assert_eq!(job.num_bytes(), 4);
    }
}
