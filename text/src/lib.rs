//! Decides which parts of a segment's text a model sees, and puts the rest back.
//!
//! A model that translates is no safe place for `${HOME}`, `<b>`, a URL or an emoji: it drops, alters and
//! invents them. So they are *units*: found before tokenizing ([`TextRules::prepare`]) and compared with what
//! the model wrote ([`Prepared::finish`]). In a translation the output has exactly the units of its source.
//!
//! | what | the model sees | afterwards |
//! |---|---|---|
//! | edges: white space, list markers, emoji, tags, quotes around all | nothing | stand where they were |
//! | text without a letter | nothing, no model runs | is the output |
//! | tags, emphasis, emoji, signs, other scripts | the text without them | placed by rule |
//! | placeholders, links, paths, code, amounts, codes | the unit | repaired, or placed by rule |
//! | plain numbers | the number | digits compared: repaired, or placed by rule |
//! | sentences in capitals or Title Case | small letters | case restored |
//! | odd spaces, zero-width and bidirectional marks, full-width letters, ligatures | plain text | |
//!
//! Everything here is a function of the segment's text and the options: no IO, no models, no tokens.

mod carrier;
mod case;
mod code;
mod dashes;
mod edges;
mod finish;
mod flaws;
mod language;
mod magnitudes;
mod markdown;
mod normal;
mod number_words;
mod numbers;
mod pattern;
mod placeholder;
mod placing;
mod plain_words;
mod prepare;
mod repair;
mod script;
mod separators;
mod tally;
mod term;
mod unit;
mod view;

pub use baton_markup::Markup;
pub use finish::{Finished, Warning};
pub use language::OtherLanguage;
pub use prepare::Prepared;
pub use tally::TermTally;
pub use term::{MAX_TERM_BYTES, MAX_TERMS, Term, TermError};
pub use unit::UnitKind;
pub use view::View;

use std::ops::Range;
use std::sync::Arc;

use language::LanguageCheck;
use separators::Separators;
use term::TermFinder;
use unit::UnitFinder;

/// The rules for a job's texts. Make them once a job, because they compile patterns.
#[derive(Debug, Clone)]
pub struct TextRules {
    /// None: texts go to the model unchanged.
    finder: Option<Arc<UnitFinder>>,
    terms: Arc<TermFinder>,
    finds_terms: bool,
    /// Finds the units of a view, whatever the job's own are.
    judge: Arc<UnitFinder>,
    /// As `language_check`, but always there if the languages are known.
    judge_language: Option<LanguageCheck>,
    must_have_all: bool,
    /// The language of the outputs, if it is known.
    target_language: Option<String>,
    /// How the texts' language and the outputs' write numbers, if both languages are known.
    separators: Option<(Separators, Separators)>,
    /// `None`: the languages are unknown.
    language_check: Option<LanguageCheck>,
    other_language: OtherLanguage,
    is_strict: bool,
    leaves_numbers: bool,
    markup: Markup,
}

/// A job's settings for its texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Regular expressions of further units; each match is one, and is not translated.
    pub protect: Vec<String>,
    /// The job's glossary.
    pub terms: Vec<Term>,
    /// Kinds of units that are left to the model.
    pub unprotected: Vec<UnitKind>,
    /// Whether plain numbers are left to the model, too.
    pub leaves_numbers: bool,
    /// The language of the texts, such as `en`: letters of another script than its own are units. Without it,
    /// the script of most letters of a text counts as its own.
    pub language: Option<String>,
    /// The language of the outputs of a translation.
    pub target_language: Option<String>,
    /// Outputs may leave units out, as summaries do.
    pub may_leave_out: bool,
    /// The treatment of texts in another language than `language`.
    pub other_language: OtherLanguage,
    /// Whether a wrong output fails its record.
    pub is_strict: bool,
    /// The markup of texts, whose segments are parts of documents.
    pub markup: Markup,
}

/// An invalid pattern of a job.
#[derive(Debug, thiserror::Error)]
#[error("the pattern `{pattern}` of `protect` is no regular expression: {reason}")]
pub struct PatternError {
    pattern: String,
    reason: String,
}

impl TextRules {
    /// Compiles the rules of a job.
    ///
    /// # Errors
    /// One of the job's patterns is no regular expression, or matches the empty text.
    pub fn new(options: &TextOptions) -> Result<Self, PatternError> {
        let finder = Some(Arc::new(UnitFinder::new(options)?));
        let finds_terms = !options.unprotected.contains(&UnitKind::Term);
        let terms = if finds_terms { &options.terms[..] } else { &[] };
        let language_check =
            LanguageCheck::new(options.language.as_deref(), options.target_language.as_deref());
        let judge = TextOptions { language: options.language.clone(), ..TextOptions::default() };
        Ok(TextRules {
            judge: Arc::new(UnitFinder::new(&judge)?),
            judge_language: language_check,
            finder,
            terms: Arc::new(TermFinder::new(terms, options.language.as_deref())),
            finds_terms,
            must_have_all: !options.may_leave_out,
            target_language: options.target_language.clone(),
            separators: separators_of(options),
            language_check,
            other_language: options.other_language,
            is_strict: options.is_strict,
            leaves_numbers: options.leaves_numbers,
            markup: options.markup,
        })
    }

    /// No rules: a model sees each text unchanged, and its output is the output.
    #[must_use]
    pub fn none() -> Self {
        TextRules {
            finder: None,
            terms: Arc::new(TermFinder::new(&[], None)),
            finds_terms: false,
            judge: Arc::new(
                UnitFinder::new(&TextOptions::default()).expect("the patterns of all kinds are valid"),
            ),
            judge_language: None,
            must_have_all: false,
            target_language: None,
            separators: None,
            language_check: None,
            other_language: OtherLanguage::Translate,
            is_strict: false,
            leaves_numbers: false,
            markup: Markup::None,
        }
    }

    /// The same rules for a record with terms of its own, as a glossary has them. They precede the job's.
    ///
    /// # Errors
    /// One of them is no entry of a glossary.
    pub fn with_terms(&self, entries: &[String]) -> Result<Self, TermError> {
        let terms: Vec<Term> = entries.iter().map(|entry| entry.parse()).collect::<Result<_, _>>()?;
        let terms = if self.finds_terms { &terms[..] } else { &[] };
        Ok(Self { terms: Arc::new(self.terms.below(terms)), ..self.clone() })
    }

    /// The same languages, but no rules: a model sees each text unchanged, and its output is the output.
    #[must_use]
    pub fn leaving_all(self) -> Self {
        let TextRules { must_have_all, target_language, judge, judge_language, .. } = self;
        TextRules { must_have_all, target_language, judge, judge_language, ..Self::none() }
    }

    /// Whether there is a glossary, of the job or of the record.
    #[must_use]
    pub fn has_terms(&self) -> bool {
        !self.terms.is_empty()
    }

    /// How certainly an output is in the target language (1) rather than still in the source's (-1); 0 if
    /// that cannot be told.
    #[must_use]
    pub fn leaning_to_target(&self, output: &str) -> f64 {
        self.language_check.as_ref().map_or(0.0, |check| check.leaning_to_target(output))
    }

    /// The markup of texts.
    #[must_use]
    pub fn markup(&self) -> Markup {
        self.markup
    }

    /// The bytes of an output that nothing may part: its units.
    #[must_use]
    pub fn units_in(&self, output: &str) -> Vec<Range<usize>> {
        let units = self.finder.as_ref().map(|finder| finder.find(output)).unwrap_or_default();
        units.into_iter().map(|unit| unit.range).collect()
    }

    /// Splits a segment's text into the part for the model and the parts that are put back afterwards.
    #[must_use]
    pub fn prepare<'a>(&'a self, text: &'a str) -> Prepared<'a> {
        Prepared::of(self, text)
    }
}

fn separators_of(options: &TextOptions) -> Option<(Separators, Separators)> {
    let (from, to) = options.language.as_deref().zip(options.target_language.as_deref())?;
    Some((Separators::of_language(from), Separators::of_language(to)))
}
