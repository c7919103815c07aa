//! The options about texts: pieces that come back unchanged.

use baton_text::{MAX_TERM_BYTES, MAX_TERMS, Term, TextOptions, TextRules, UnitKind};

use crate::{GenerationOptions, OptionError};

/// In place of a kind of unit: no rules at all.
const ALL: &str = "all";
/// In place of a kind of unit: the rule of plain numbers.
const NUMBER: &str = "number";

/// The part of a task on which its texts' rules depend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextTask<'a> {
    /// The texts' language, a code such as `en`.
    pub language: Option<&'a str>,
    /// The outputs' language, of a translation.
    pub target_language: Option<&'a str>,
    /// Whether outputs may omit units, as summaries do.
    pub may_leave_out: bool,
}

impl GenerationOptions {
    /// The rules for the texts of a task. If outputs may omit units, as summaries do, units that the model
    /// omitted are not put back.
    ///
    /// # Errors
    /// A pattern is not a regular expression, a term is invalid, or no such kind of unit exists.
    pub fn text_rules(&self, task: TextTask<'_>) -> Result<TextRules, OptionError> {
        let mut unprotected = Vec::new();
        for name in self.unprotected.iter().filter(|name| *name != ALL && *name != NUMBER) {
            let kind: UnitKind = name.parse().map_err(|allowed| OptionError {
                option: "unprotected",
                value: format!("{name:?}"),
                allowed: format!("a kind of unit, `{NUMBER}` or `{ALL}`; {allowed}"),
            })?;
            unprotected.push(kind);
        }
        let options = TextOptions {
            protect: self.protect.clone(),
            terms: self.glossary()?,
            unprotected,
            leaves_numbers: self.unprotected.iter().any(|name| name == NUMBER),
            language: task.language.map(str::to_owned),
            target_language: task.target_language.map(str::to_owned),
            may_leave_out: task.may_leave_out,
            other_language: self.other_language,
            is_strict: self.strict,
            markup: self.markup,
        };
        let rules = TextRules::new(&options).map_err(|error| OptionError {
            option: "protect",
            value: format!("{:?}", self.protect),
            allowed: format!("regular expressions; {error}"),
        })?;
        Ok(if self.unprotected.iter().any(|name| name == ALL) { rules.leaving_all() } else { rules })
    }
}

impl GenerationOptions {
    /// The terms of the job's glossary.
    fn glossary(&self) -> Result<Vec<Term>, OptionError> {
        let refused = |value: String, allowed: String| OptionError { option: "terms", value, allowed };
        let num_bytes: usize = self.terms.iter().map(String::len).sum();
        if self.terms.len() > MAX_TERMS || num_bytes > MAX_TERM_BYTES {
            let value = format!("{} terms of {num_bytes} bytes", self.terms.len());
            return Err(refused(value, format!("{MAX_TERMS} terms of {MAX_TERM_BYTES} bytes together")));
        }
        let term = |entry: &String| {
            let allowed = |error| format!("`SOURCE=TARGET`, `SOURCE==TARGET` or `SOURCE`; {error}");
            entry.parse().map_err(|error| refused(format!("{entry:?}"), allowed(error)))
        };
        self.terms.iter().map(term).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_kinds_are_checked_by_name() {
        let refused = |options: GenerationOptions| options.validate().unwrap_err().to_string();
        let error = refused(GenerationOptions { protect: vec!["a(".into()], ..GenerationOptions::default() });
        assert!(error.starts_with("`generation.protect` is ") && error.contains("`a(`"), "{error}");
        let error =
            refused(GenerationOptions { unprotected: vec!["emojis".into()], ..GenerationOptions::default() });
        assert!(
            error.starts_with("`generation.unprotected` is \"emojis\"") && error.contains("emoji"),
            "{error}"
        );
        let error = refused(GenerationOptions { terms: vec!["=x".into()], ..GenerationOptions::default() });
        assert!(error.starts_with("`generation.terms` is \"=x\""), "{error}");
        let terms = vec!["x".to_owned(); 10_001];
        let error = refused(GenerationOptions { terms, ..GenerationOptions::default() });
        assert!(error.contains("10001 terms") && error.contains("allowed: 10000 terms"), "{error}");
        let all = GenerationOptions { unprotected: vec!["all".into()], ..GenerationOptions::default() };
        let rules = all.text_rules(TextTask::default()).unwrap();
        assert_eq!(rules.prepare(" <b> ").text(), " <b> ");
        let written = |unprotected: Vec<String>| {
            let options = GenerationOptions { unprotected, ..GenerationOptions::default() };
            let task = TextTask { language: Some("en"), target_language: Some("pt"), ..TextTask::default() };
            options.text_rules(task).unwrap().prepare("It has 481 parts.").finish("Tem 418 partes.").text
        };
        assert_eq!(written(Vec::new()), "Tem 481 partes.");
        assert_eq!(written(vec!["number".into()]), "Tem 418 partes.");
    }
}
