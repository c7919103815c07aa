//! Tokens that a sequence may not choose next, and tokens that it is discouraged from: the changes to a row
//! of logits before a choice.

use crate::Generation;
use crate::candidates::Places;
use crate::characters::CharacterMask;
use crate::copying::WrittenWords;
use crate::kernels::{Shift, log_softmax};

/// The inputs of the constraints beside the logits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Constraints<'a> {
    pub(crate) generation: &'a Generation,
    pub(crate) end_of_sequence: u32,
    /// The forced first token of every sequence, if any.
    pub(crate) first_token: Option<u32>,
    /// The sequence's tokens.
    pub(crate) tokens: &'a [u32],
    /// Its progress with the words that it may copy, if there are any.
    pub(crate) written: Option<&'a WrittenWords>,
    pub(crate) min_new_tokens: usize,
    /// The mask that keeps its characters whole, if one is necessary.
    pub(crate) characters: Option<CharacterMask<'a>>,
    /// Where the logits of tokens are. All tokens that are written or forced have one.
    pub(crate) places: Places<'a>,
}

/// Memory for a changed row, used again and again.
#[derive(Debug, Default)]
pub(crate) struct ConstraintScratch {
    values: Vec<f32>,
    biases: Vec<(u32, f32)>,
}

impl Constraints<'_> {
    /// The shifted row under the constraints: `logits` itself and `shift`, if nothing is changed; otherwise a
    /// changed copy in `scratch`.
    ///
    /// The repetition penalty acts on shifted values, as in transformers: on logits where a token is chosen
    /// or drawn, on log-probabilities in a beam search.
    pub(crate) fn apply<'r>(
        self,
        logits: &'r [f32],
        shift: Shift,
        scratch: &'r mut ConstraintScratch,
    ) -> (&'r [f32], Shift) {
        let Constraints { generation, tokens, places, .. } = self;
        let may_stop = tokens.len() >= self.min_new_tokens;
        let is_penalized = generation.options.repetition_penalty != 1.0 && !tokens.is_empty();
        let ngram = generation.options.no_repeat_ngram as usize;
        let has_ngrams = ngram > 0 && tokens.len() >= ngram;
        let ConstraintScratch { values: copy, biases } = scratch;
        if let Some(first) = self.first_token.filter(|_| tokens.is_empty()) {
            copy.clear();
            copy.resize(logits.len(), f32::NEG_INFINITY);
            copy[places.place(first).expect("a forced token has a logit")] = 0.0;
            return (copy, Shift::NONE);
        }
        biases.clear();
        if let Some((copying, written)) = generation.copying.as_ref().zip(self.written) {
            copying.collect_biases(written, biases);
        }
        let is_free = may_stop && !is_penalized && !has_ngrams && biases.is_empty();
        if is_free && self.characters.is_none() {
            return (logits, shift);
        }
        copy.clear();
        match shift == Shift::NONE {
            true => copy.extend_from_slice(logits),
            false => copy.extend(logits.iter().map(|&logit| shift.apply(logit))),
        }
        if is_penalized {
            let penalty = generation.options.repetition_penalty as f32;
            for place in tokens.iter().filter_map(|&token| places.place(token)) {
                // The unchanged value, because a token may occur here twice.
                let value = shift.apply(logits[place]);
                copy[place] = if value < 0.0 { value * penalty } else { value / penalty };
            }
        }
        if !biases.is_empty() {
            for (place, bias) in biases.iter().filter_map(|&(token, bias)| Some((places.place(token)?, bias)))
            {
                copy[place] += bias;
            }
            if shift != Shift::NONE {
                let normalized = log_softmax(copy);
                copy.iter_mut().for_each(|value| *value = normalized.apply(*value));
            }
        }
        if has_ngrams {
            let begun = &tokens[tokens.len() + 1 - ngram..];
            let repeating = tokens.windows(ngram).filter(|window| window[..ngram - 1] == *begun);
            for place in repeating.filter_map(|window| places.place(window[ngram - 1])) {
                copy[place] = f32::NEG_INFINITY;
            }
        }
        if !may_stop {
            let ends = generation.stop_tokens.iter().chain([&self.end_of_sequence]);
            ends.filter_map(|&token| places.place(token)).for_each(|place| copy[place] = f32::NEG_INFINITY);
        }
        if let Some(mask) = self.characters {
            mask.apply(copy, places, |place| shift.apply(logits[place]));
        }
        (copy, Shift::NONE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use baton_generation::GenerationOptions;

    use crate::{Copying, Vocabulary};

    const LOGITS: [f32; 6] = [1.0, -2.0, 3.0, -4.0, 5.0, 0.5];
    const OFF: f32 = f32::NEG_INFINITY;

    fn constrained(generation: &Generation, tokens: &[u32], min_new_tokens: usize) -> Vec<f32> {
        let written = generation.written(tokens);
        let written = written.as_ref();
        let constraints = Constraints {
            generation,
            end_of_sequence: 0,
            first_token: None,
            tokens,
            written,
            min_new_tokens,
            characters: None,
            places: Places::All,
        };
        let mut scratch = ConstraintScratch::default();
        let (logits, shift) = constraints.apply(&LOGITS, Shift::NONE, &mut scratch);
        assert_eq!(shift, Shift::NONE);
        logits.to_vec()
    }

    fn generation() -> Generation {
        Generation::of_new_tokens(0, 100)
    }

    fn of_options(options: GenerationOptions) -> Generation {
        Generation::new(options, 100)
    }

    fn penalized(repetition_penalty: f64) -> Generation {
        of_options(GenerationOptions { repetition_penalty, ..GenerationOptions::default() })
    }

    fn without_ngrams_of(no_repeat_ngram: u32) -> Generation {
        of_options(GenerationOptions { no_repeat_ngram, ..GenerationOptions::default() })
    }

    #[test]
    fn stop_tokens_are_masked_until_the_minimum_is_written() {
        let generation = Generation { stop_tokens: vec![4], ..generation() };
        assert_eq!(constrained(&generation, &[2, 3], 3), [OFF, -2.0, 3.0, -4.0, OFF, 0.5]);
        assert_eq!(constrained(&generation, &[2, 3], 2), LOGITS);
    }

    #[test]
    fn a_first_token_is_certain_and_nothing_is_said_of_the_second() {
        let generation = Generation { stop_tokens: vec![4], ..generation() };
        let of = |tokens: &[u32], shift| {
            let constraints = Constraints {
                generation: &generation,
                end_of_sequence: 0,
                first_token: Some(3),
                tokens,
                written: None,
                min_new_tokens: 0,
                characters: None,
                places: Places::All,
            };
            let mut scratch = ConstraintScratch::default();
            let (values, shift) = constraints.apply(&LOGITS, shift, &mut scratch);
            (values.to_vec(), shift)
        };
        let in_a_beam = Shift { max: 5.0, log_sum: 0.25, score: 0.0 };
        for shift in [Shift::NONE, in_a_beam] {
            assert_eq!(of(&[], shift), (vec![OFF, OFF, OFF, 0.0, OFF, OFF], Shift::NONE));
            assert_eq!(of(&[3], shift), (LOGITS.to_vec(), shift));
        }
    }

    #[test]
    fn tokens_written_before_are_penalized_once_each() {
        let generation = penalized(2.0);
        assert_eq!(constrained(&generation, &[2, 3, 2, 2], 0), [1.0, -2.0, 1.5, -8.0, 5.0, 0.5]);
    }

    #[test]
    fn a_token_that_would_repeat_an_ngram_is_masked() {
        let bigrams = without_ngrams_of(2);
        assert_eq!(constrained(&bigrams, &[2, 3, 2, 4, 2], 0), [1.0, -2.0, 3.0, OFF, OFF, 0.5]);
        assert_eq!(constrained(&bigrams, &[2], 0), LOGITS);
        assert_eq!(constrained(&bigrams, &[2, 2], 0), [1.0, -2.0, OFF, -4.0, 5.0, 0.5]);
        let trigrams = without_ngrams_of(3);
        assert_eq!(constrained(&trigrams, &[2, 3, 4, 2, 3], 0), [1.0, -2.0, 3.0, -4.0, OFF, 0.5]);
        let unigrams = without_ngrams_of(1);
        assert_eq!(constrained(&unigrams, &[5, 1], 0), [1.0, OFF, 3.0, -4.0, 5.0, OFF]);
    }

    #[test]
    fn in_a_beam_the_penalty_acts_on_log_probabilities() {
        let generation = penalized(2.0);
        let (generation, tokens, written) = (&generation, &[4][..], None);
        let constraints = Constraints {
            generation,
            end_of_sequence: 0,
            first_token: None,
            tokens,
            written,
            min_new_tokens: 0,
            characters: None,
            places: Places::All,
        };
        let mut scratch = ConstraintScratch::default();
        let shift = Shift { max: 5.0, log_sum: 0.25, score: 0.0 };
        let (values, shift) = constraints.apply(&LOGITS, shift, &mut scratch);
        assert_eq!((values[4], values[5], shift), (-0.5, -4.75, Shift::NONE));
    }

    /// The word to copy is "ab", of the tokens 2 and 3.
    fn copying(copy_bias: f32) -> Generation {
        let spellings = ["", ";", "a", "b", " c", "."].map(|spelling| spelling.as_bytes().to_vec());
        let vocabulary = Arc::new(Vocabulary::new(spellings.into()));
        Generation { copying: Some(Copying::of_text("ab", copy_bias, 0.0, vocabulary)), ..generation() }
    }

    #[test]
    fn biases_for_copying_are_added_to_the_logits() {
        assert_eq!(constrained(&copying(6.0), &[2], 0), [1.0, -2.0, 3.0, 2.0, 5.0, 0.5]);
        assert_eq!(constrained(&copying(6.0), &[4], 0), LOGITS);
    }

    #[test]
    fn in_a_beam_probabilities_sum_to_one_with_words_favoured_however_much() {
        let log_sum = LOGITS.iter().map(|logit| (logit - 5.0).exp()).sum::<f32>().ln();
        let shift = Shift { max: 5.0, log_sum, score: 0.0 };
        for copy_bias in [0.0, 6.0, 2000.0] {
            let generation = &copying(copy_bias);
            let (tokens, written) = (&[2][..], generation.written(&[2]));
            let written = written.as_ref();
            let constraints = Constraints {
                generation,
                end_of_sequence: 0,
                first_token: None,
                tokens,
                written,
                min_new_tokens: 0,
                characters: None,
                places: Places::All,
            };
            let mut scratch = ConstraintScratch::default();
            let (values, shift) = constraints.apply(&LOGITS, shift, &mut scratch);
            let sum: f32 = values.iter().map(|&value| shift.apply(value).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-3, "{sum}");
            assert!((values[3] - values[4] - (copy_bias - 9.0)).abs() < 1e-3, "logits of -4 and 5");
        }
    }
}
