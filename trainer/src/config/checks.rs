//! Which settings of a training run make no sense, as far as no file is needed to tell.

use baton_bundle::{Alignment, Fusion};
use baton_job::ReaderContext;

use super::{Reads, SlmShape, TrainConfig, Trains, is_empty_path};
use crate::{TrainError, slm_family};

impl TrainConfig {
    /// Checks everything that needs no file.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn validate(&self) -> Result<(), TrainError> {
        if let Some(slm) = &self.slm {
            self.validate_shape(slm)?;
        }
        let h = &self.hyperparameters;
        match self.trains {
            Trains::Slm => self.validate_start()?,
            Trains::Llm => self.validate_llm_training()?,
        }
        let reads_by_characters = self.alignment == Alignment::Characters && self.reads == Reads::Hybrid;
        check(
            self.reader_context == ReaderContext::Segment || reads_by_characters,
            "reader_context",
            "record".to_owned(),
            "needs alignment characters and reads hybrid",
        )?;
        if let Some(general) = &self.general {
            let share = general.share;
            check(
                share > 0.0 && share < 1.0,
                "general.share",
                share.to_string(),
                "must be above 0 and below 1",
            )?;
        }
        check(
            h.projector_learning_rate.is_none_or(|rate| rate > 0.0),
            "hyperparameters.projector_learning_rate",
            h.projector_learning_rate.unwrap_or_default().to_string(),
            "must be above 0",
        )?;
        check(
            self.projector_depth > 0,
            "projector_depth",
            self.projector_depth.to_string(),
            "must be at least 1, which is usual",
        )?;
        check(
            self.projector_blocks == 0 || self.projector_depth > 1,
            "projector_blocks",
            self.projector_blocks.to_string(),
            "needs projector_depth of at least 2: blocks stand before the last layer",
        )?;
        check(h.steps > 0, "hyperparameters.steps", h.steps.to_string(), "must be at least 1")?;
        check(
            h.projector_steps < h.steps,
            "hyperparameters.projector_steps",
            h.projector_steps.to_string(),
            "must be below hyperparameters.steps",
        )?;
        check(
            h.batch_tokens > self.max_prompt_tokens + self.max_response_tokens,
            "hyperparameters.batch_tokens",
            h.batch_tokens.to_string(),
            "must exceed max_prompt_tokens + max_response_tokens, the longest pair",
        )?;
        check(
            (0.0..1.0).contains(&h.dropout),
            "hyperparameters.dropout",
            h.dropout.to_string(),
            "must be at least 0 and below 1",
        )?;
        check(
            (0.0..1.0).contains(&h.label_smoothing),
            "hyperparameters.label_smoothing",
            h.label_smoothing.to_string(),
            "must be at least 0 and below 1",
        )?;
        check(
            h.learning_rate > 0.0,
            "hyperparameters.learning_rate",
            h.learning_rate.to_string(),
            "must be above 0",
        )?;
        check(h.validate_every > 0, "hyperparameters.validate_every", "0".into(), "must be at least 1")?;
        Ok(())
    }

    fn validate_start(&self) -> Result<(), TrainError> {
        let by_characters = self.alignment == Alignment::Characters;
        check(
            !by_characters || (self.start_from.is_some() && self.fusion == Fusion::Add),
            "alignment",
            "characters".to_owned(),
            "needs start_from, a bundle of a small model that reads its own tokens, and fusion add",
        )?;
        check(
            !self.has_llm() || !(is_empty_path(&self.llm) || self.template.is_empty()),
            "llm",
            "missing".to_owned(),
            "give the LLM's directory and `template`; only a small model of its own tokens learns without",
        )?;
        check(
            self.slm.is_some() != self.start_from.is_some(),
            "slm",
            if self.slm.is_some() { "given" } else { "missing" }.to_owned(),
            "give one of the two: [slm], the shape of a new model, or start_from, a trained model",
        )
    }

    fn validate_shape(&self, slm: &SlmShape) -> Result<(), TrainError> {
        slm_family::check(slm, self.prompt_attention)?;
        check(
            slm.heads > 0 && slm.d_model.is_multiple_of(2 * slm.heads),
            "slm.d_model",
            slm.d_model.to_string(),
            "must be an even multiple of slm.heads",
        )?;
        check(
            slm.kv_heads > 0 && slm.heads.is_multiple_of(slm.kv_heads),
            "slm.kv_heads",
            slm.kv_heads.to_string(),
            "must divide slm.heads",
        )?;
        check(slm.blocks > 0, "slm.blocks", slm.blocks.to_string(), "must be at least 1")?;
        check(
            slm.vocab_size >= 320 || !slm.tokenizer.is_own(),
            "slm.vocab_size",
            slm.vocab_size.to_string(),
            "must be at least 320: 256 bytes, special tokens and some merges",
        )?;
        check(
            slm.llm_tokens < slm.vocab_size,
            "slm.llm_tokens",
            slm.llm_tokens.to_string(),
            "must be below slm.vocab_size",
        )?;
        Ok(())
    }
}

pub(crate) fn check(ok: bool, field: &'static str, value: String, rule: &str) -> Result<(), TrainError> {
    if ok { Ok(()) } else { Err(TrainError::Config { field, value, rule: rule.to_owned() }) }
}
