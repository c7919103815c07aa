//! The conventions of small models' families, beyond the tokens that their tokenizers put around a text:
//! tokens for languages, and tokens that are never written.
//!
//! The conventions are those of the tokenizers' classes in Hugging Face transformers.

use std::collections::BTreeMap;

use baton_bundle::{
    Family, ModelConfig, SOURCE_LANGUAGE_PLACEHOLDER, SlmLanguages, TARGET_LANGUAGE_PLACEHOLDER, Task,
    language_of_token, unknown_language,
};
use serde_json::{Map, Value};

/// The tokens that tell a model with several languages which to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LanguageConvention {
    /// The tokens before and behind a text.
    pub(crate) around: [String; 2],
    /// Whether an output begins with the token of its language.
    pub(crate) target_first: bool,
    /// Whether the token of the output's language replaces the begin token.
    pub(crate) target_begins: bool,
}

impl LanguageConvention {
    /// The convention of a family; none if it has no tokens for languages. `end`: the token that ends a text;
    /// `tokenizer_config`: the content of `tokenizer_config.json`.
    pub(crate) fn of(family: Family, end: &str, tokenizer_config: &Map<String, Value>) -> Option<Self> {
        let class = tokenizer_config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let is_legacy = tokenizer_config.get("legacy_behaviour") == Some(&Value::Bool(true));
        let source_before = [SOURCE_LANGUAGE_PLACEHOLDER.to_owned(), end.to_owned()];
        let source_behind = [String::new(), format!("{end}{SOURCE_LANGUAGE_PLACEHOLDER}")];
        let target_before = [TARGET_LANGUAGE_PLACEHOLDER.to_owned(), end.to_owned()];
        let (around, target_first, target_begins) = match family {
            Family::Marian => (target_before, false, false),
            Family::M2m100 if class.starts_with("SMALL100") => (target_before, false, false),
            Family::M2m100 if is_legacy => (source_behind, true, false),
            Family::M2m100 => (source_before, true, false),
            Family::Mbart if class.starts_with("MBart50") => (source_before, true, false),
            Family::Mbart => (source_behind, false, true),
            _ => return None,
        };
        Some(Self { around, target_first, target_begins })
    }

    /// The languages of a model by their tokens, with those of its task. None if the model has no tokens for
    /// languages.
    ///
    /// # Errors
    /// In words: the task names an unknown language.
    pub(crate) fn languages<'t>(
        &self,
        tokens: impl Iterator<Item = &'t String>,
        task: &Task,
    ) -> Result<Option<SlmLanguages>, String> {
        let by_code = |token: &String| Some((language_of_token(token)?.to_owned(), token.clone()));
        let tokens: BTreeMap<String, String> = tokens.filter_map(by_code).collect();
        if tokens.is_empty() {
            return Ok(None);
        }
        let (source, target) = match task {
            Task::Translation { source, target } => (source, target),
            Task::Summarization { language } => (language, language),
        };
        let takes = |placeholder: &str| self.around.iter().any(|side| side.contains(placeholder));
        let writes = self.target_first || takes(TARGET_LANGUAGE_PLACEHOLDER) || self.target_begins;
        let code = |is_taken: bool, wanted: &String| is_taken.then(|| code_of(wanted, &tokens)).transpose();
        let source = code(takes(SOURCE_LANGUAGE_PLACEHOLDER), source)?;
        let target = code(writes, target)?;
        Ok(Some(SlmLanguages { source, target, target_first: self.target_first, tokens }))
    }
}

/// The code of a language that the caller names: the code itself, or its part before script or region if that
/// is unique, such as `en` for `en_XX`.
fn code_of(wanted: &str, tokens: &BTreeMap<String, String>) -> Result<String, String> {
    if tokens.contains_key(wanted) {
        return Ok(wanted.to_owned());
    }
    let begins = |code: &&String| code.split_once('_').is_some_and(|(language, _)| language == wanted);
    let mut alike = tokens.keys().filter(begins);
    match (alike.next(), alike.next()) {
        (Some(only), None) => Ok(only.clone()),
        _ => Err(unknown_language(wanted, tokens.keys())),
    }
}

/// Notes the token that Marian never lets its models write: the unknown one.
pub(crate) fn suppress_unknown(config: &mut ModelConfig, unknown: Option<u32>) {
    if matches!(config.family(), Family::Marian | Family::Bergamot) {
        let suppressed = &mut config.output_rules.suppressed_token_ids;
        suppressed.extend(unknown);
        suppressed.sort_unstable();
        suppressed.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convention(family: Family, class: &str) -> LanguageConvention {
        let config = serde_json::json!({ "tokenizer_class": class });
        LanguageConvention::of(family, "</s>", config.as_object().unwrap()).unwrap()
    }

    fn translation(source: &str, target: &str) -> Task {
        Task::Translation { source: source.to_owned(), target: target.to_owned() }
    }

    #[test]
    fn each_family_says_languages_in_its_own_place() {
        for (family, class, [before, behind], target_first, target_begins) in [
            (Family::M2m100, "NllbTokenizer", ["{source_language}", "</s>"], true, false),
            (Family::M2m100, "SMALL100Tokenizer", ["{target_language}", "</s>"], false, false),
            (Family::Mbart, "MBart50TokenizerFast", ["{source_language}", "</s>"], true, false),
            (Family::Mbart, "MBartTokenizer", ["", "</s>{source_language}"], false, true),
            (Family::Marian, "MarianTokenizer", ["{target_language}", "</s>"], false, false),
        ] {
            let around = [before, behind].map(str::to_owned);
            let expected = LanguageConvention { around, target_first, target_begins };
            assert_eq!(convention(family, class), expected, "{class}");
        }
        assert_eq!(LanguageConvention::of(Family::T5, "</s>", &Map::new()), None);
    }

    #[test]
    fn the_languages_of_a_task_are_found_by_code_or_by_the_only_beginning() {
        let tokens = ["en_XX", "zho_Hans", "zho_Hant", "▁a", "</s>"].map(str::to_owned);
        let mbart = convention(Family::Mbart, "MBart50Tokenizer");
        let languages = |task| mbart.languages(tokens.iter(), &task);
        let found = languages(translation("en", "zho_Hans")).unwrap().unwrap();
        assert_eq!((found.source.as_deref(), found.target.as_deref()), (Some("en_XX"), Some("zho_Hans")));
        assert_eq!(found.tokens.len(), 3);
        let problem = languages(translation("en", "zho")).unwrap_err();
        assert_eq!(problem, "it has no language `zho`, but 3, such as zho_Hans, zho_Hant, en_XX");
        assert_eq!(mbart.languages(["▁a".to_owned()].iter(), &translation("en", "it")).unwrap(), None);
    }

    #[test]
    fn a_language_without_a_token_in_the_template_may_be_unknown() {
        let tokens = [">>fra<<".to_owned(), ">>ita<<".to_owned()];
        let marian = convention(Family::Marian, "MarianTokenizer");
        let found = marian.languages(tokens.iter(), &translation("en", "ita")).unwrap().unwrap();
        assert_eq!((found.source, found.target.as_deref()), (None, Some("ita")));
    }
}
