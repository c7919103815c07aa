//! How outputs are generated, on its way to a decoder.

use baton_job::{EarlyStopping, GenerationOptions};

use crate::{WireError, wire};

impl From<GenerationOptions> for wire::Generation {
    fn from(options: GenerationOptions) -> Self {
        wire::Generation {
            max_new_tokens: options.max_new_tokens,
            min_new_tokens: options.min_new_tokens,
            max_new_tokens_per_prompt_token: options.max_new_tokens_per_prompt_token,
            min_new_tokens_per_prompt_token: options.min_new_tokens_per_prompt_token,
            beams: options.beams,
            length_penalty: options.length_penalty,
            early_stopping: options.early_stopping.map(|kind| kind.as_str().to_owned()),
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            seed: options.seed,
            repetition_penalty: options.repetition_penalty,
            no_repeat_ngram: options.no_repeat_ngram,
            copy_bias: options.copy_bias,
            name_bias: options.name_bias,
            by_sentence: options.by_sentence,
            n_best: options.n_best,
            stop_tokens: options.stop_tokens,
            stop_strings: options.stop_strings,
        }
    }
}

impl TryFrom<wire::Generation> for GenerationOptions {
    type Error = WireError;

    /// Only what the types cannot hold is refused here; whether the values make sense is the decoder's to check.
    fn try_from(generation: wire::Generation) -> Result<Self, WireError> {
        let early_stopping = generation.early_stopping.map(|name| early_stopping_named(&name)).transpose()?;
        Ok(GenerationOptions {
            max_new_tokens: generation.max_new_tokens,
            max_new_tokens_per_prompt_token: generation.max_new_tokens_per_prompt_token,
            min_new_tokens: generation.min_new_tokens,
            min_new_tokens_per_prompt_token: generation.min_new_tokens_per_prompt_token,
            beams: generation.beams,
            length_penalty: generation.length_penalty,
            early_stopping,
            temperature: generation.temperature,
            top_k: generation.top_k,
            top_p: generation.top_p,
            min_p: generation.min_p,
            seed: generation.seed,
            repetition_penalty: generation.repetition_penalty,
            no_repeat_ngram: generation.no_repeat_ngram,
            copy_bias: generation.copy_bias,
            name_bias: generation.name_bias,
            by_sentence: generation.by_sentence,
            n_best: generation.n_best,
            stop_tokens: generation.stop_tokens,
            stop_strings: generation.stop_strings,
        })
    }
}

fn early_stopping_named(name: &str) -> Result<EarlyStopping, WireError> {
    EarlyStopping::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| WireError::InvalidField {
        field: "Generation.early_stopping",
        detail: format!("{name:?}; known are {}", EarlyStopping::ALL.map(EarlyStopping::as_str).join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_survives_the_wire() {
        let options = GenerationOptions {
            max_new_tokens: Some(64),
            max_new_tokens_per_prompt_token: Some(1.5),
            min_new_tokens: 1,
            min_new_tokens_per_prompt_token: Some(0.25),
            beams: 4,
            length_penalty: Some(0.6),
            early_stopping: Some(EarlyStopping::AtOnce),
            temperature: Some(0.7),
            top_k: Some(50),
            top_p: Some(0.9),
            min_p: Some(0.05),
            seed: Some(u64::MAX),
            repetition_penalty: 1.2,
            no_repeat_ngram: 3,
            copy_bias: 2.5,
            name_bias: 0.5,
            by_sentence: true,
            n_best: 2,
            stop_tokens: vec!["</s>".into()],
            stop_strings: vec!["\n\n".into(), "END".into()],
        };
        for options in [options, GenerationOptions::default()] {
            assert_eq!(GenerationOptions::try_from(wire::Generation::from(options.clone())), Ok(options));
        }
    }

    #[test]
    fn an_unknown_kind_of_early_stopping_is_refused() {
        let generation =
            wire::Generation { early_stopping: Some("soon".into()), ..GenerationOptions::default().into() };
        let error = GenerationOptions::try_from(generation).unwrap_err().to_string();
        assert!(error.contains("Generation.early_stopping") && error.contains("at_once"), "{error}");
    }
}
