//! The options about texts: pieces that come back unchanged.

use baton_text::{TextOptions, TextRules, UnitKind};

use crate::{GenerationOptions, OptionError};

/// In place of a kind of unit: no rules at all.
const ALL: &str = "all";

impl GenerationOptions {
    /// The rules for texts in `language` (its code, such as `en`). Where outputs may leave units out, as
    /// summaries do, none is put back that the model has left out.
    ///
    /// # Errors
    /// A pattern is no regular expression, or there is no such kind of unit.
    pub fn text_rules(&self, language: Option<&str>, may_leave_out: bool) -> Result<TextRules, OptionError> {
        let mut unprotected = Vec::new();
        for name in self.unprotected.iter().filter(|name| *name != ALL) {
            let kind: UnitKind = name.parse().map_err(|allowed| OptionError {
                option: "unprotected",
                value: format!("{name:?}"),
                allowed: format!("a kind of unit, or `{ALL}`; {allowed}"),
            })?;
            unprotected.push(kind);
        }
        let language = language.map(str::to_owned);
        let options = TextOptions { protect: self.protect.clone(), unprotected, language, may_leave_out };
        let rules = TextRules::new(&options).map_err(|error| OptionError {
            option: "protect",
            value: format!("{:?}", self.protect),
            allowed: format!("regular expressions; {error}"),
        })?;
        Ok(if self.unprotected.iter().any(|name| name == ALL) { TextRules::none() } else { rules })
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
        let all = GenerationOptions { unprotected: vec!["all".into()], ..GenerationOptions::default() };
        let rules = all.text_rules(Some("en"), false).unwrap();
        assert_eq!(rules.prepare(" <b> ").text(), " <b> ");
    }
}
