//! The parts of an output that the model does not choose, by `config.json` and `generation_config.json`.

use serde_json::Value;

use super::{UnsupportedSetting, fields::Fields};

/// The forced first token of outputs, and the tokens that they never have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputRules {
    /// The forced first token: `forced_bos_token_id`.
    pub first_token_id: Option<u32>,
    /// Tokens that are never written: `suppress_tokens`, or `bad_words_ids` of one token each. Rising.
    pub suppressed_token_ids: Vec<u32>,
}

impl OutputRules {
    /// Adds the rules of a file.
    pub(super) fn read(&mut self, fields: &Fields<'_>) -> Result<(), UnsupportedSetting> {
        if let Some(first) = fields.optional_token_id("forced_bos_token_id")? {
            self.first_token_id = Some(first);
        }
        self.suppressed_token_ids.extend(fields.token_ids("suppress_tokens")?);
        for words in fields.get("bad_words_ids").and_then(Value::as_array).into_iter().flatten() {
            let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
            let ids: Option<Vec<u32>> = words.as_array().and_then(|ids| ids.iter().map(id).collect());
            let Some([id]) = ids.as_deref() else {
                let supported = "lists of one token id each";
                return Err(UnsupportedSetting::new("bad_words_ids", words, supported));
            };
            self.suppressed_token_ids.push(*id);
        }
        self.suppressed_token_ids.sort_unstable();
        self.suppressed_token_ids.dedup();
        Ok(())
    }

    /// Refuses tokens that do not exist.
    pub(super) fn check(&self, vocab_size: usize) -> Result<(), UnsupportedSetting> {
        let first = self.first_token_id.iter().map(|id| ("forced_bos_token_id", id));
        let mut all = first.chain(self.suppressed_token_ids.iter().map(|id| ("suppress_tokens", id)));
        match all.find(|(_, id)| **id as usize >= vocab_size) {
            None => Ok(()),
            Some((field, id)) => Err(UnsupportedSetting::new(field, id, "a token below vocab_size")),
        }
    }

    /// The fields of these rules.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value)> {
        let first = self.first_token_id.map(|id| ("forced_bos_token_id", id.into()));
        let suppressed = self.suppressed_token_ids.as_slice();
        let suppressed = (!suppressed.is_empty()).then(|| ("suppress_tokens", suppressed.into()));
        first.into_iter().chain(suppressed).collect()
    }
}
