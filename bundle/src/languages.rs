//! The languages of a small model that knows several, and the tokens that choose among them.
//!
//! Such a model has a token for each language. Its prompt templates can have a token that the job chooses,
//! `{source_language}` or `{target_language}`, and its outputs can begin with one.

use std::collections::BTreeMap;

use baton_job::{GenerationOptions, LanguageChoice};
use serde::{Deserialize, Serialize};

use crate::SlmPart;

/// In a template: the token of the language that is read.
pub const SOURCE_LANGUAGE_PLACEHOLDER: &str = "{source_language}";
/// In a template: the token of the language that is written.
pub const TARGET_LANGUAGE_PLACEHOLDER: &str = "{target_language}";

/// Characters of a record's language that a message shows at most.
const MAX_CODE_CHARS: usize = 32;

/// The languages of a small model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlmLanguages {
    /// The token of each language, by the language's code.
    pub tokens: BTreeMap<String, String>,
    /// The language that is read in a job that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The same for the language that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether every output begins with the token of its language, without the model's choice.
    #[serde(default)]
    pub target_first: bool,
}

impl SlmPart {
    /// A template with the tokens of languages in it.
    ///
    /// # Errors
    /// In words: a language is unknown, or missing.
    pub fn template_for(&self, template: &str, choice: &LanguageChoice) -> Result<String, String> {
        let mut filled = template.to_owned();
        for (placeholder, side) in
            [(SOURCE_LANGUAGE_PLACEHOLDER, Side::Source), (TARGET_LANGUAGE_PLACEHOLDER, Side::Target)]
        {
            if filled.contains(placeholder) {
                filled = filled.replace(placeholder, self.token_of(side, choice)?);
            }
        }
        Ok(filled)
    }

    /// The token that every output begins with because of its language.
    ///
    /// # Errors
    /// As for [`template_for`](Self::template_for).
    pub fn first_token(&self, choice: &LanguageChoice) -> Result<Option<&str>, String> {
        match &self.languages {
            Some(languages) if languages.target_first => self.token_of(Side::Target, choice).map(Some),
            _ => Ok(None),
        }
    }

    /// The problem with a choice of languages for a template: one is not known, or it would change nothing.
    #[must_use]
    pub fn language_problem(&self, template: &str, choice: &LanguageChoice) -> Option<String> {
        for (side, code) in [(Side::Source, &choice.source), (Side::Target, &choice.target)] {
            if let Some(code) = code.as_ref().filter(|_| !self.is_told(side, template)) {
                return Some(format!("{}, so it cannot be `{code}`", not_told(side)));
            }
        }
        self.template_for(template, choice).err().or_else(|| self.first_token(choice).err())
    }

    /// The problem with the fields that name records' languages, for a template: they would change nothing.
    #[must_use]
    pub fn language_field_problem(&self, template: &str, options: &GenerationOptions) -> Option<String> {
        let fields =
            [(Side::Source, &options.source_language_field), (Side::Target, &options.target_language_field)];
        let (side, field) = fields.into_iter().find_map(|(side, field)| {
            Some((side, field.as_ref()?)).filter(|_| !self.is_told(side, template))
        })?;
        Some(format!("{}, so no field `{field}` can name it", not_told(side)))
    }

    /// The problem with the languages that a record's fields name: one is not known. The message names the
    /// field.
    #[must_use]
    pub fn problem_of_record(&self, own: &LanguageChoice, options: &GenerationOptions) -> Option<String> {
        let sides =
            [(&own.source, &options.source_language_field), (&own.target, &options.target_language_field)];
        sides.into_iter().find_map(|(code, field)| {
            let (code, tokens) = (code.as_ref()?, self.languages.as_ref().map(|languages| &languages.tokens));
            if tokens.is_some_and(|tokens| tokens.contains_key(code)) {
                return None;
            }
            let known = tokens.into_iter().flat_map(BTreeMap::keys);
            let field = field.as_deref().unwrap_or("language");
            let shown: String = code.chars().take(MAX_CODE_CHARS).flat_map(char::escape_debug).collect();
            let known = number_and_some(code, known);
            Some(format!("field `{field}` is `{shown}`, a language that the bundle lacks; it has {known}"))
        })
    }

    /// Whether a language has a part in the prompts of a template, or in outputs.
    fn is_told(&self, side: Side, template: &str) -> bool {
        let target_first = self.languages.as_ref().is_some_and(|languages| languages.target_first);
        match side {
            Side::Source => template.contains(SOURCE_LANGUAGE_PLACEHOLDER),
            Side::Target => target_first || template.contains(TARGET_LANGUAGE_PLACEHOLDER),
        }
    }

    fn token_of(&self, side: Side, choice: &LanguageChoice) -> Result<&str, String> {
        let Some(SlmLanguages { tokens, source, target, .. }) = &self.languages else {
            return Err("its small model has no languages to choose from".to_owned());
        };
        let (named, own) = match side {
            Side::Source => (&choice.source, source),
            Side::Target => (&choice.target, target),
        };
        let Some(code) = named.as_ref().or(own.as_ref()) else {
            return Err(format!("name the {0} language: --{0}-language CODE", side.name()));
        };
        tokens.get(code).map(String::as_str).ok_or_else(|| unknown_language(code, tokens.keys()))
    }
}

fn not_told(side: Side) -> String {
    format!("its small model is not told the {} language", side.name())
}

/// The message about a language that is not among `known`, with those that might have been meant.
pub fn unknown_language<'a>(code: &str, known: impl Iterator<Item = &'a String> + Clone) -> String {
    format!("it has no language `{code}`, but {}", number_and_some(code, known))
}

/// The number of languages in `known`, and some of them: first those that resemble `code`.
fn number_and_some<'a>(code: &str, known: impl Iterator<Item = &'a String> + Clone) -> String {
    const NUM_SHOWN: usize = 8;
    let begin: String = code.chars().take(2).collect();
    let (alike, others): (Vec<_>, Vec<_>) = known.clone().partition(|other| other.starts_with(&begin));
    let shown: Vec<&str> = alike.into_iter().chain(others).map(String::as_str).take(NUM_SHOWN).collect();
    format!("{}, such as {}", known.count(), shown.join(", "))
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Source,
    Target,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// The code of the language that a token stands for, by the ways in which public models write such tokens:
/// `eng_Latn` (NLLB-200), `en_XX` (mBART), `__en__` (M2M-100), `>>eng<<` (opus-mt).
#[must_use]
pub fn language_of_token(token: &str) -> Option<&str> {
    let enclosed = |begin, end| token.strip_prefix(begin)?.strip_suffix(end);
    if let Some(code) = enclosed(">>", "<<").or_else(|| enclosed("__", "__")) {
        let is_code = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        return (!code.is_empty() && code.chars().all(is_code)).then_some(code);
    }
    let (language, rest) = token.split_once('_')?;
    let is_language = (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_lowercase());
    let is_script = rest.len() == 4
        && rest.as_bytes()[0].is_ascii_uppercase()
        && rest.bytes().skip(1).all(|b| b.is_ascii_lowercase());
    let is_region = rest.len() == 2 && rest.bytes().all(|b| b.is_ascii_uppercase());
    (is_language && (is_script || is_region)).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_languages_are_told_from_others() {
        for (token, code) in [
            ("eng_Latn", "eng_Latn"),
            ("en_XX", "en_XX"),
            ("__zh__", "zh"),
            (">>pt_br<<", "pt_br"),
            (">>zho_Hans<<", "zho_Hans"),
        ] {
            assert_eq!(language_of_token(token), Some(code));
        }
        for token in
            ["", "▁en_XX", "snake_case", "en_xx", "ENG_Latn", "____", ">><<", ">>a b<<", "</s>", "a_bc"]
        {
            assert_eq!(language_of_token(token), None, "{token}");
        }
    }

    #[test]
    fn an_unknown_language_is_refused_with_similar_ones() {
        let known = ["abc_Latn", "eng_Latn", "est_Latn", "fra_Latn"].map(str::to_owned);
        let said = unknown_language("en", known.iter());
        assert_eq!(said, "it has no language `en`, but 4, such as eng_Latn, abc_Latn, est_Latn, fra_Latn");
    }
}
