//! Readers make prompts of texts: one for each mode and template of the bundle, and for each choice of
//! languages that jobs have asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use baton_bundle::{Bundle, BundleError, DEFAULT_TEMPLATE, LanguageChoice, PromptReader};
use baton_job::Mode;
use baton_proto::{ShardAttempt, WireError};

/// Maximum of readers that are kept; each has its own tokenizer. A job has one choice of languages, so few
/// are in use at a time.
const MAX_READERS: usize = 32;

/// A bundle's readers.
#[derive(Debug)]
pub(crate) struct PromptReaders {
    bundle: Bundle,
    known: Mutex<BTreeMap<Key, Arc<PromptReader>>>,
}

/// Mode, name of the template, languages.
type Key = (Mode, String, LanguageChoice);

impl PromptReaders {
    /// Loads the readers of some modes in the bundle's own languages.
    ///
    /// # Errors
    /// A tokenizer does not load.
    pub(crate) fn load(bundle: &Bundle, modes: &[Mode]) -> Result<Self, BundleError> {
        let templates = |&mode: &Mode| bundle.manifest().template_names().map(move |name| (mode, name));
        let reader = |(mode, name): (Mode, &String)| {
            let reader = bundle.prompt_reader(mode, Some(name))?;
            Ok(((mode, name.clone(), LanguageChoice::default()), Arc::new(reader)))
        };
        let known = modes.iter().flat_map(templates).map(reader).collect::<Result<_, BundleError>>()?;
        Ok(Self { bundle: bundle.clone(), known: Mutex::new(known) })
    }

    /// The reader of an attempt's texts.
    ///
    /// # Errors
    /// There is no such template or language.
    pub(crate) fn of(&self, attempt: &ShardAttempt) -> Result<Arc<PromptReader>, WireError> {
        let template = attempt.task.as_deref().unwrap_or(DEFAULT_TEMPLATE);
        let languages = LanguageChoice::of(&attempt.generation);
        let key = (attempt.mode, template.to_owned(), languages);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = known.get(&key) {
            return Ok(Arc::clone(reader));
        }
        let field = match key.2 == LanguageChoice::default() {
            true => "ShardHeader.task",
            false => "ShardHeader.generation",
        };
        let reader = self.bundle.prompt_reader_for(key.0, Some(template), &key.2);
        let refused = |error: BundleError| WireError::InvalidField { field, detail: error.to_string() };
        let reader = Arc::new(reader.map_err(refused)?);
        if known.len() >= MAX_READERS {
            known.retain(|(_, _, languages), _| *languages == LanguageChoice::default());
        }
        known.insert(key, Arc::clone(&reader));
        Ok(reader)
    }
}
