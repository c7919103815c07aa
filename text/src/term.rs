//! Terms: words of a text for which a job's glossary has a translation, or which it keeps untranslated.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rust_stemmers::{Algorithm, Stemmer};

use crate::code::language_of_code;

/// Maximum of terms in one job.
pub const MAX_TERMS: usize = 10_000;
/// Maximum of bytes of all terms in one job: each shard's header has them.
pub const MAX_TERM_BYTES: usize = 500_000;

/// An entry of a glossary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Words of the source language.
    pub source: String,
    /// Their form in outputs; `None`: the words of the text, unchanged.
    pub target: Option<String>,
    /// Whether capitals count, and inflected forms do not.
    pub is_exact: bool,
}

/// An invalid entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the term `{entry}` {problem}")]
pub struct TermError {
    entry: String,
    problem: &'static str,
}

impl std::str::FromStr for Term {
    type Err = TermError;

    /// `SOURCE=TARGET`, or `SOURCE` alone for words that are not translated. `==` in place of `=` matches
    /// exactly these words; `SOURCE==` keeps exactly these words untranslated.
    fn from_str(entry: &str) -> Result<Self, TermError> {
        let problem = |problem| TermError { entry: entry.to_owned(), problem };
        let (source, target, is_exact) = match entry.split_once('=') {
            None => (entry, "", false),
            Some((source, rest)) => match rest.strip_prefix('=') {
                Some(target) => (source, target, true),
                None => (source, rest, false),
            },
        };
        let (source, target) = (source.trim().to_owned(), target.trim());
        if !source.contains(char::is_alphanumeric) {
            return Err(problem("has no word before its `=`"));
        }
        if entry.contains(['\n', '\r', '\t']) {
            return Err(problem("has a tab or the end of a line in it"));
        }
        Ok(Term { source, target: (!target.is_empty()).then(|| target.to_owned()), is_exact })
    }
}

/// In the form that is parsed.
impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.is_exact { "==" } else { "=" };
        match (&self.target, self.is_exact) {
            (None, false) => f.write_str(&self.source),
            (target, _) => write!(f, "{}{sign}{}", self.source, target.as_deref().unwrap_or_default()),
        }
    }
}

/// A term at a place of a text, and its text in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundTerm {
    pub(crate) range: Range<usize>,
    pub(crate) target: Arc<str>,
    /// The source's words as the glossary has them.
    pub(crate) entry: Arc<str>,
}

/// An entry of a glossary, by its words.
#[derive(Debug)]
struct Entry {
    source: Arc<str>,
    target: Option<Arc<str>>,
}

/// Finds terms, word by word.
pub(crate) struct TermFinder {
    stemmer: Option<Arc<Stemmer>>,
    /// By the exact words.
    exact: HashMap<Vec<String>, Entry>,
    /// By the stems of the words.
    inflected: HashMap<Vec<String>, Entry>,
    /// Of the longest term, those of `below` included.
    max_words: usize,
    /// Terms that these precede, where both match.
    below: Option<Arc<TermFinder>>,
}

impl std::fmt::Debug for TermFinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TermFinder")
            .field("terms", &(self.exact.len() + self.inflected.len()))
            .finish_non_exhaustive()
    }
}

impl TermFinder {
    /// For terms in `language`, a code such as `en`. The first of equal sources counts.
    pub(crate) fn new(terms: &[Term], language: Option<&str>) -> Self {
        let stemmer = language.and_then(algorithm).map(|algorithm| Arc::new(Stemmer::create(algorithm)));
        let (exact, inflected) = (HashMap::new(), HashMap::new());
        TermFinder { stemmer, exact, inflected, max_words: 0, below: None }.with(terms)
    }

    /// The same terms, below others: where both match as many words, the others count.
    pub(crate) fn below(self: &Arc<Self>, terms: &[Term]) -> Self {
        let (stemmer, below) = (self.stemmer.clone(), Some(Arc::clone(self)));
        let (exact, inflected, max_words) = (HashMap::new(), HashMap::new(), self.max_words);
        TermFinder { stemmer, exact, inflected, max_words, below }.with(terms)
    }

    fn with(mut self, terms: &[Term]) -> Self {
        for Term { source, target, is_exact } in terms {
            let target = target.as_deref().map(Arc::from);
            let words = words(source).map(|range| &source[range]);
            let key: Vec<String> = words.map(|word| self.key(word, *is_exact)).collect();
            self.max_words = self.max_words.max(key.len());
            let all = if *is_exact { &mut self.exact } else { &mut self.inflected };
            all.entry(key).or_insert_with(|| Entry { source: Arc::from(source.as_str()), target });
        }
        self
    }

    /// Whether there is no term.
    pub(crate) fn is_empty(&self) -> bool {
        self.max_words == 0
    }

    /// The entry for words, by both of their keys.
    fn entry(&self, exact: &[String], inflected: &[String]) -> Option<&Entry> {
        let own = self.exact.get(exact).or_else(|| self.inflected.get(inflected));
        own.or_else(|| self.below.as_ref()?.entry(exact, inflected))
    }

    /// The terms of a text, in order, the longest at each place; none overlap.
    pub(crate) fn find(&self, text: &str) -> Vec<FoundTerm> {
        let mut found = Vec::new();
        if self.is_empty() {
            return found;
        }
        let words: Vec<Range<usize>> = words(text).collect();
        let keys = |is_exact| words.iter().map(move |word| self.key(&text[word.clone()], is_exact));
        let (exact, inflected): (Vec<String>, Vec<String>) = (keys(true).collect(), keys(false).collect());
        let mut first = 0;
        while first < words.len() {
            let longest = (first + 1..=words.len().min(first + self.max_words)).rev().find_map(|end| {
                let is_one_phrase =
                    words[first..end].windows(2).all(|pair| joins(&text[pair[0].end..pair[1].start]));
                let entry = self.entry(&exact[first..end], &inflected[first..end]);
                let range = words[first].start..words[end - 1].end;
                entry.filter(|_| is_one_phrase).map(|entry| (end, range, entry))
            });
            first += 1;
            if let Some((end, range, entry)) = longest {
                let target = match &entry.target {
                    Some(target) => cased_as(&text[range.clone()], target),
                    None => Arc::from(&text[range.clone()]),
                };
                found.push(FoundTerm { range, target, entry: Arc::clone(&entry.source) });
                first = end;
            }
        }
        found
    }

    fn key(&self, word: &str, is_exact: bool) -> String {
        if is_exact {
            return word.to_owned();
        }
        let small = word.to_lowercase();
        match &self.stemmer {
            Some(stemmer) => stemmer.stem(&small).into_owned(),
            None => small,
        }
    }
}

/// The words of a text: letters, digits and marks on them, with apostrophes between letters.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, _) = chars.find(|(_, c)| c.is_alphanumeric())?;
        let mut end = start;
        let in_word = |c: char| c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c);
        end += text[end..].chars().next().map_or(0, char::len_utf8);
        while let Some(&(place, c)) = chars.peek() {
            if !in_word(c) {
                break;
            }
            end = place + c.len_utf8();
            chars.next();
        }
        Some(start..end)
    })
}

/// Whether words with this text between them can be one term.
fn joins(gap: &str) -> bool {
    gap.chars().all(|c| c.is_whitespace() || "-'’./&+".contains(c)) && gap.chars().count() <= 2
}

/// A term's target in the source's case: with a capital if only the source has one, as at the beginning of a
/// sentence, or all in capitals.
fn cased_as(source: &str, target: &str) -> Arc<str> {
    let mut letters = source.chars().filter(|c| c.is_alphabetic());
    let is_upper = |c: char| c.is_uppercase();
    let begins_upper = letters.next().is_some_and(is_upper);
    let (others, num_upper) =
        letters.fold((0, 0), |(all, upper), c| (all + 1, upper + usize::from(is_upper(c))));
    let has_small_target = target.chars().next().is_some_and(char::is_lowercase);
    match (begins_upper && has_small_target, others > 2 && others == num_upper) {
        (true, true) => target.to_uppercase().into(),
        (true, false) if num_upper == 0 => {
            let mut rest = target.chars();
            let first: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
            format!("{first}{}", rest.as_str()).into()
        }
        _ => target.into(),
    }
}

/// The stemmer of a language.
fn algorithm(language: &str) -> Option<Algorithm> {
    Some(match language_of_code(language) {
        "ar" => Algorithm::Arabic,
        "da" => Algorithm::Danish,
        "nl" => Algorithm::Dutch,
        "en" => Algorithm::English,
        "fi" => Algorithm::Finnish,
        "fr" => Algorithm::French,
        "de" => Algorithm::German,
        "el" => Algorithm::Greek,
        "hu" => Algorithm::Hungarian,
        "it" => Algorithm::Italian,
        "no" | "nb" | "nn" => Algorithm::Norwegian,
        "pt" => Algorithm::Portuguese,
        "ro" => Algorithm::Romanian,
        "ru" => Algorithm::Russian,
        "es" => Algorithm::Spanish,
        "sv" => Algorithm::Swedish,
        "ta" => Algorithm::Tamil,
        "tr" => Algorithm::Turkish,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(terms: &[&str], text: &str) -> Vec<(String, String)> {
        let terms: Vec<Term> = terms.iter().map(|term| term.parse().unwrap()).collect();
        let found = TermFinder::new(&terms, Some("en")).find(text);
        found.into_iter().map(|term| (text[term.range].to_owned(), term.target.to_string())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn terms_are_found_on_words_with_their_inflections() {
        let terms = ["hard disk=disco rígido", "disk=disco", "print=imprimir"];
        assert_eq!(
            found(&terms, "Hard disks and a disk; it prints the diskette's blueprint."),
            pairs(&[("Hard disks", "Disco rígido"), ("disk", "disco"), ("prints", "imprimir")])
        );
        assert_eq!(found(&terms, "hard, disk"), pairs(&[("disk", "disco")]), "not one phrase");
        assert_eq!(found(&terms, "A HARD DISK"), pairs(&[("HARD DISK", "DISCO RÍGIDO")]));
    }

    #[test]
    fn exact_terms_match_only_themselves() {
        assert_eq!(found(&["Apple==Apple"], "Apples, an apple, Apple"), pairs(&[("Apple", "Apple")]));
        assert_eq!(found(&["Baton"], "the batons"), pairs(&[("batons", "batons")]), "not translated");
    }

    #[test]
    fn terms_of_a_record_precede_those_of_the_job() {
        let of = |terms: &[&str]| -> Vec<Term> { terms.iter().map(|term| term.parse().unwrap()).collect() };
        let job = Arc::new(TermFinder::new(&of(&["disk=disco", "hard disk=disco r\u{ed}gido"]), Some("en")));
        let both = job.below(&of(&["disk=disquete", "mouse=rato"]));
        let text = "A disk, a hard disk, a mouse";
        let found: Vec<String> = both.find(text).into_iter().map(|term| term.target.to_string()).collect();
        assert_eq!(found, ["disquete", "disco r\u{ed}gido", "rato"], "the longest match first");
        assert_eq!(job.find(text).len(), 2, "the job's are as before");
    }

    #[test]
    fn entries_are_written_as_they_are_read() {
        for entry in ["a=b", "a b", "a==b", "a=="] {
            assert_eq!(entry.parse::<Term>().unwrap().to_string(), entry);
        }
        for entry in ["", "=b", " = ", "a=b\nc"] {
            let error = entry.parse::<Term>().unwrap_err().to_string();
            assert!(error.starts_with("the term `"), "{error}");
        }
    }
}
