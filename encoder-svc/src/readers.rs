//! Readers make prompts of texts: one for each mode and template of the bundle, and for the languages that
//! jobs and their records name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use baton_bundle::{Bundle, BundleError, DEFAULT_TEMPLATE, LanguageChoice, PromptReader};
use baton_job::Mode;
use baton_proto::{ShardAttempt, WireError};

/// Maximum of readers that are kept for templates with other languages. They share their tokenizers, so each
/// has only the few tokens of its template; to make one takes as long as to copy a tokenizer.
const MAX_OTHERS: usize = 1024;

/// A bundle's readers.
#[derive(Debug)]
pub(crate) struct PromptReaders {
    bundle: Bundle,
    /// In the bundle's own languages.
    own: BTreeMap<Key, Arc<PromptReader>>,
    /// By the small model's template, languages filled in.
    others: Mutex<BTreeMap<(Key, String), Arc<PromptReader>>>,
}

/// Mode, name of the template.
type Key = (Mode, String);

impl PromptReaders {
    /// Loads the readers of some modes in the bundle's own languages.
    ///
    /// # Errors
    /// A tokenizer does not load.
    pub(crate) fn load(bundle: &Bundle, modes: &[Mode]) -> Result<Self, BundleError> {
        let templates = |&mode: &Mode| bundle.manifest().template_names().map(move |name| (mode, name));
        let reader = |(mode, name): (Mode, &String)| {
            let reader = bundle.prompt_reader(mode, Some(name))?;
            Ok(((mode, name.clone()), Arc::new(reader)))
        };
        let own = modes.iter().flat_map(templates).map(reader).collect::<Result<_, BundleError>>()?;
        Ok(Self { bundle: bundle.clone(), own, others: Mutex::default() })
    }

    /// The problem with the languages that the fields of a record name, in words.
    pub(crate) fn problem_of_record(
        &self,
        attempt: &ShardAttempt,
        of_record: &LanguageChoice,
    ) -> Option<String> {
        let slm = self.bundle.manifest().slm.as_ref()?;
        slm.problem_of_record(of_record, &attempt.generation)
    }

    /// The reader of an attempt's texts, of those records that name the languages `of_record`.
    ///
    /// # Errors
    /// There is no such template or language.
    pub(crate) fn of(
        &self,
        attempt: &ShardAttempt,
        of_record: &LanguageChoice,
    ) -> Result<Arc<PromptReader>, WireError> {
        let template = attempt.task.as_deref().unwrap_or(DEFAULT_TEMPLATE);
        let key = (attempt.mode, template.to_owned());
        let refused = |field, error: &BundleError| WireError::invalid(field, error);
        let Some(own) = self.own.get(&key) else {
            let problem = self.bundle.prompt_reader(attempt.mode, Some(template)).err();
            let detail = problem.map_or_else(|| "no such template".to_owned(), |error| error.to_string());
            return Err(WireError::InvalidField { field: "ShardHeader.task", detail });
        };
        let languages = of_record.or(&LanguageChoice::of(&attempt.generation));
        if languages.is_empty() || matches!(**own, PromptReader::LlmTokens(_)) {
            return Ok(Arc::clone(own));
        }
        let field = match of_record.is_empty() {
            true => "ShardHeader.generation_json",
            false => "Record.languages",
        };
        let filled = self.bundle.slm_template(Some(template), &languages);
        let key = (key, filled.map_err(|error| refused(field, &error))?);
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = others.get(&key) {
            return Ok(Arc::clone(reader));
        }
        let reader = Arc::new(own.with_slm_template(&key.1).map_err(|error| refused(field, &error))?);
        if others.len() >= MAX_OTHERS {
            others.clear();
        }
        others.insert(key, Arc::clone(&reader));
        Ok(reader)
    }
}
