//! The rules for the texts of a job, in the languages of its records.
//!
//! Owns which languages the rules are for: a record's own, else the job's, else those of the bundle's task.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use baton_job::{GenerationOptions, LanguageChoice, OptionError, TextTask};
use baton_text::TextRules;

use crate::Task;

/// The rules for a job's texts. Those of further languages are made when a record needs them.
#[derive(Debug)]
pub struct RulesByLanguage {
    task: Task,
    options: GenerationOptions,
    /// For records that name no language.
    own: Arc<TextRules>,
    others: Mutex<BTreeMap<LanguageChoice, Arc<TextRules>>>,
}

impl RulesByLanguage {
    /// The rules of a job with these options for a task.
    ///
    /// # Errors
    /// An option of the texts is invalid.
    pub fn new(task: &Task, options: &GenerationOptions) -> Result<Self, OptionError> {
        let own = Arc::new(task.text_rules(options, &LanguageChoice::default())?);
        Ok(Self { task: task.clone(), options: options.clone(), own, others: Mutex::default() })
    }

    /// No rules, for any language.
    #[must_use]
    pub fn none() -> Self {
        let task = Task::Summarization { language: String::new() };
        let options =
            GenerationOptions { unprotected: vec!["all".to_owned()], ..GenerationOptions::default() };
        Self { task, options, own: Arc::new(TextRules::none()), others: Mutex::default() }
    }

    /// The rules for a record whose fields name these languages.
    ///
    /// # Panics
    /// Never: options that are valid for one language are so for all.
    #[must_use]
    pub fn of(&self, languages: &LanguageChoice) -> Arc<TextRules> {
        if languages.is_empty() {
            return Arc::clone(&self.own);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = others.get(languages) {
            return Arc::clone(rules);
        }
        let rules = self.task.text_rules(&self.options, languages);
        let rules = Arc::new(rules.expect("the same options were valid for the job's languages"));
        others.insert(languages.clone(), Arc::clone(&rules));
        rules
    }
}

impl Task {
    /// The rules that texts follow in a job with these options, of a record with these languages of its own.
    /// A summary may omit units that a translation must keep.
    ///
    /// # Errors
    /// An option of the texts is invalid.
    pub fn text_rules(
        &self,
        options: &GenerationOptions,
        languages: &LanguageChoice,
    ) -> Result<TextRules, OptionError> {
        let LanguageChoice { source, target } = languages.or(&LanguageChoice::of(options));
        let language = Some(source.as_deref().unwrap_or(self.source_language()));
        let target_language = self.target_language().map(|own| target.as_deref().unwrap_or(own));
        let may_leave_out = target_language.is_none();
        options.text_rules(TextTask { language, target_language, may_leave_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_language_of_the_record_then_of_the_job_then_of_the_task() {
        let task = Task::Translation { source: "en".to_owned(), target: "it".to_owned() };
        let target =
            |code: &str| LanguageChoice { target: Some(code.to_owned()), ..LanguageChoice::default() };
        let finished = |options: &GenerationOptions, languages: &LanguageChoice| {
            let rules = RulesByLanguage::new(&task, options).unwrap().of(languages);
            rules.prepare("It has 1,234.5 lines.").finish("Zeilen").text
        };
        let plain = GenerationOptions::default();
        let none = LanguageChoice::default();
        assert!(finished(&plain, &none).contains("1.234,5"));
        assert!(finished(&plain, &target("fra_Latn")).contains("1\u{a0}234,5"));
        let job = GenerationOptions { target_language: Some("eng_Latn".to_owned()), ..plain };
        assert!(finished(&job, &none).contains("1,234.5"));
        assert!(finished(&job, &target("deu_Latn")).contains("1.234,5"));
    }

    #[test]
    fn rules_are_made_once_for_each_choice_of_languages() {
        let task = Task::Summarization { language: "en".to_owned() };
        let rules = RulesByLanguage::new(&task, &GenerationOptions::default()).unwrap();
        let source = LanguageChoice { source: Some("de".to_owned()), ..LanguageChoice::default() };
        assert!(Arc::ptr_eq(&rules.of(&source), &rules.of(&source)));
        assert!(!Arc::ptr_eq(&rules.of(&source), &rules.of(&LanguageChoice::default())));
    }
}
