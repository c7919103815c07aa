//! From a job's generation options to what the scheduler obeys: the bundle's limits, the output tokenizer's ids, stop strings.

use std::sync::Arc;

use baton_bundle::TextTokenizer;
use baton_decoding::{BeamOptions, Generation, GenerationLimits, Method, SamplingOptions, StopCondition};
use baton_job::{EarlyStopping, GenerationMethod, GenerationOptions};

use crate::DecoderError;

/// Tokens looked at beyond the bytes of a stop string: special tokens have no text.
const WINDOW_MARGIN_TOKENS: usize = 8;

/// How the rows of a job are generated.
///
/// # Errors
/// No row could obey the options, or a stop token is not in the vocabulary.
pub(crate) fn generation(
    options: &GenerationOptions,
    bundle_max_new_tokens: usize,
    tokenizer: &TextTokenizer,
) -> Result<Generation, DecoderError> {
    let max_new_tokens = options.max_new_tokens.map_or(bundle_max_new_tokens, |tokens| tokens as usize);
    let stop_token = |token: &String| {
        tokenizer.token_id(token).ok_or_else(|| DecoderError::UnknownStopToken { token: token.clone() })
    };
    let generation = Generation {
        limits: GenerationLimits {
            max_new_tokens: max_new_tokens.min(bundle_max_new_tokens),
            min_new_tokens: options.min_new_tokens as usize,
            max_new_tokens_per_prompt_token: options.max_new_tokens_per_prompt_token,
            min_new_tokens_per_prompt_token: options.min_new_tokens_per_prompt_token,
        },
        method: method(options.method()),
        num_outputs: options.n_best as usize,
        repetition_penalty: options.repetition_penalty,
        no_repeat_ngram: options.no_repeat_ngram as usize,
        copying: None, // each row has a text of its own
        stop_tokens: options.stop_tokens.iter().map(stop_token).collect::<Result<_, _>>()?,
        stop_when: StopStrings::new(&options.stop_strings, tokenizer)
            .map(|strings| Arc::new(strings) as Arc<dyn StopCondition>),
    };
    generation.check().map_err(|source| DecoderError::Generation { source })?;
    Ok(generation)
}

fn method(method: GenerationMethod) -> Method {
    match method {
        GenerationMethod::Greedy => Method::Greedy,
        GenerationMethod::Beam { beams, length_penalty, early_stopping } => Method::Beam(BeamOptions {
            num_beams: beams as usize,
            length_penalty,
            early_stopping: match early_stopping {
                EarlyStopping::Heuristic => baton_decoding::EarlyStopping::Heuristic,
                EarlyStopping::AtOnce => baton_decoding::EarlyStopping::AtOnce,
                EarlyStopping::Never => baton_decoding::EarlyStopping::Never,
            },
        }),
        GenerationMethod::Sample { temperature, top_k, top_p, min_p, seed } => {
            let top_k = top_k.map(|top_k| top_k as usize);
            Method::Sample(SamplingOptions { temperature, top_k, top_p, min_p, seed })
        }
    }
}

/// The text before the first stop string.
pub(crate) fn cut_at_stop_string(mut text: String, stop_strings: &[String]) -> String {
    if let Some(end) = stop_strings.iter().filter_map(|string| text.find(string)).min() {
        text.truncate(end);
    }
    text
}

/// Ends a sequence whose last token completes one of these texts.
#[derive(Debug)]
struct StopStrings {
    strings: Vec<String>,
    tokenizer: TextTokenizer,
    window_tokens: usize,
}

impl StopStrings {
    fn new(strings: &[String], tokenizer: &TextTokenizer) -> Option<Self> {
        // A token that adds text adds a byte or more, so a string ends in the last of at most as many tokens as it has bytes.
        let longest_num_bytes = strings.iter().map(String::len).max()?;
        let window_tokens = longest_num_bytes + WINDOW_MARGIN_TOKENS;
        Some(Self { strings: strings.to_vec(), tokenizer: tokenizer.clone(), window_tokens })
    }
}

impl StopCondition for StopStrings {
    fn is_met(&self, tokens: &[u32]) -> bool {
        let window = &tokens[tokens.len().saturating_sub(self.window_tokens)..];
        let text = self.tokenizer.decode(window);
        text.is_ok_and(|text| self.strings.iter().any(|string| text.contains(string)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_the_first_stop_string_of_any() {
        let stop = ["END".to_owned(), "\n".to_owned()];
        assert_eq!(cut_at_stop_string("uno\ndue END".into(), &stop), "uno");
        assert_eq!(cut_at_stop_string("uno END\ndue".into(), &stop), "uno ");
        assert_eq!(cut_at_stop_string("uno due".into(), &stop), "uno due");
        assert_eq!(cut_at_stop_string("uno due".into(), &[]), "uno due");
    }

    #[test]
    fn options_become_what_the_scheduler_knows() {
        let early_stopping = EarlyStopping::Never;
        let beam = method(GenerationMethod::Beam { beams: 4, length_penalty: 0.6, early_stopping });
        let expected = BeamOptions {
            num_beams: 4,
            length_penalty: 0.6,
            early_stopping: baton_decoding::EarlyStopping::Never,
        };
        assert_eq!(beam, Method::Beam(expected));
        let (temperature, top_k, top_p, min_p, seed) = (0.7, Some(5), Some(0.9), Some(0.1), 3);
        let sample = method(GenerationMethod::Sample { temperature, top_k, top_p, min_p, seed });
        assert_eq!(
            sample,
            Method::Sample(SamplingOptions { temperature, top_k: Some(5), top_p, min_p, seed })
        );
    }
}
