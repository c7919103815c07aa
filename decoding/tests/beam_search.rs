//! Beam search against all sequences there are, and against a plain rendering of
//! transformers' algorithm.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::sync::Arc;

use baton_decoding::{
    Copying, EarlyStopping, FinishReason, FinishedSequence, Generation, GenerationOptions, RowId, Vocabulary,
};
use support::{EOS, FakeModel, alone, beam, greedy, log_softmax, request, row};

const ALL_EARLY_STOPPING: [EarlyStopping; 3] =
    [EarlyStopping::Heuristic, EarlyStopping::AtOnce, EarlyStopping::Never];

#[test]
fn a_beam_that_holds_everything_finds_the_best_of_all_sequences() {
    const MAX_NEW_TOKENS: usize = 4;
    const NAME: [u32; 2] = [2, 3];
    let num_names = |tokens: &[u32]| tokens.windows(2).filter(|window| *window == NAME).count() as f64;
    let spellings = [";", "", " x", "-9", "."].map(|spelling| spelling.as_bytes().to_vec());
    let vocabulary = Arc::new(Vocabulary::new(spellings.into()));
    let model = FakeModel { vocab_size: 5, spread: 2.0, end_bonus: 0.5 };
    for (length_penalty, name_bias) in [(0.5, 0.0), (1.0, 0.0), (2.0, 0.0), (1.0, 2.0)] {
        let (beams, early_stopping) = (400, EarlyStopping::Never);
        let plain = GenerationOptions::default();
        let options = GenerationOptions { beams, length_penalty, early_stopping, ..plain };
        for index in 0..30 {
            let mut best: Option<(Vec<u32>, f64)> = None;
            let mut open = vec![(Vec::new(), 0.0)];
            while let Some((tokens, sum)) = open.pop() {
                let mut log_probabilities = log_softmax(&model.logits(row(0, index), &tokens));
                if num_names(&tokens) == 0.0 {
                    log_probabilities[NAME[0] as usize] += f64::from(name_bias);
                    let sum: f64 = log_probabilities.iter().map(|value| value.exp()).sum();
                    log_probabilities.iter_mut().for_each(|value| *value -= sum.ln());
                }
                for (token, log_probability) in log_probabilities.into_iter().enumerate() {
                    let (mut tokens, sum) = (tokens.clone(), sum + log_probability);
                    tokens.push(token as u32);
                    if token as u32 != EOS && tokens.len() < MAX_NEW_TOKENS {
                        open.push((tokens, sum));
                        continue;
                    }
                    let wanted = num_names(&tokens).min(1.0);
                    let reward = f64::from(name_bias) * (wanted - (num_names(&tokens) - wanted));
                    let score = (sum + reward) / (tokens.len() as f64).powf(length_penalty);
                    if best.as_ref().is_none_or(|(_, best)| score > *best) {
                        best = Some((tokens, score));
                    }
                }
            }
            let (mut tokens, score) = best.unwrap();
            let copying = Some(Copying::of_text("x-9", 0.0, name_bias, Arc::clone(&vocabulary)));
            let generation = Generation { copying, ..Generation::new(options.clone(), MAX_NEW_TOKENS) };
            let mut caller = support::Caller::new(
                model,
                baton_decoding::SchedulerLimits { max_slots: 400, ..support::ROOMY },
            );
            caller.scheduler.submit(request(row(0, index), 3, generation)).unwrap();
            let found = caller.run().remove(&row(0, index)).unwrap().outputs.remove(0);
            assert!((f64::from(found.score) - score).abs() < 1e-5);
            if tokens.last() == Some(&EOS) {
                tokens.pop();
            }
            assert_eq!(found.tokens, tokens);
        }
    }
}

/// One sequence of the reference, as a row of transformers' tensors.
#[derive(Debug, Clone)]
struct Beam {
    tokens: Vec<u32>,
    score: f64,
    is_finished: bool,
}

const IMPOSSIBLE: f64 = -1.0e9;

/// The best `k` by score; of equals, the first.
fn top_k(beams: &[Beam], k: usize) -> Vec<Beam> {
    let mut sorted = beams.to_vec();
    sorted.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap());
    sorted.truncate(k);
    sorted
}

/// `_beam_search` of transformers 5.24 for a batch of one, step by step with its masks of -1e9, all
/// candidates sorted.
fn reference(model: FakeModel, row: RowId, generation: &Generation) -> Vec<Beam> {
    let GenerationOptions { length_penalty, early_stopping, .. } = *generation.options;
    let (num_beams, max_new_tokens) = (generation.num_sequences(), generation.max_new_tokens());
    let stop_tokens = [&[EOS], generation.stop_tokens.as_slice()].concat();
    let beam = |score| Beam { tokens: Vec::new(), score, is_finished: false };
    let mut running: Vec<Beam> =
        (0..num_beams).map(|b| beam(if b == 0 { 0.0 } else { IMPOSSIBLE })).collect();
    let mut finished = vec![beam(IMPOSSIBLE); num_beams];
    for length in 1.. {
        let mut candidates = Vec::new();
        for beam in &running {
            let mut scores = log_softmax(&model.logits(row, &beam.tokens));
            process(generation, &beam.tokens, &stop_tokens, &mut scores);
            for (token, score) in scores.into_iter().enumerate() {
                let tokens = [beam.tokens.as_slice(), &[token as u32]].concat();
                candidates.push(Beam { tokens, score: beam.score + score, is_finished: false });
            }
        }
        let candidates = top_k(&candidates, (1 + stop_tokens.len()) * num_beams);
        let hits: Vec<bool> = candidates
            .iter()
            .map(|c| length == max_new_tokens || stop_tokens.contains(c.tokens.last().unwrap()))
            .collect();

        let mut open = candidates.clone();
        open.iter_mut().zip(&hits).for_each(|(beam, &hit)| beam.score += if hit { IMPOSSIBLE } else { 0.0 });
        running = top_k(&open, num_beams);

        let norm = |length: usize| (length as f64).powf(length_penalty);
        for (rank, (candidate, &hit)) in candidates.iter().zip(&hits).enumerate() {
            let is_finished = hit && rank < num_beams;
            let score = candidate.score / norm(length) + if is_finished { 0.0 } else { IMPOSSIBLE };
            finished.push(Beam { tokens: candidate.tokens.clone(), score, is_finished });
        }
        finished = top_k(&finished, num_beams);

        let best_length = match early_stopping {
            EarlyStopping::Never if length_penalty > 0.0 => max_new_tokens,
            _ => length,
        };
        let best_running = running[0].score / norm(best_length);
        let worst = finished.iter().map(|beam| beam.score).fold(f64::INFINITY, f64::min);
        let can_improve =
            finished.iter().any(|beam| best_running > if beam.is_finished { worst } else { IMPOSSIBLE });
        let is_full = finished.iter().all(|beam| beam.is_finished);
        if !can_improve || (is_full && early_stopping == EarlyStopping::AtOnce) || hits.iter().all(|&hit| hit)
        {
            break;
        }
    }
    finished.truncate(generation.options.n_best as usize);
    finished
}

/// Repetition penalty, n-gram ban and minimum length on log-probabilities, in transformers' order.
fn process(generation: &Generation, tokens: &[u32], stop_tokens: &[u32], scores: &mut [f64]) {
    let (unchanged, options) = (scores.to_vec(), &generation.options);
    for &token in tokens {
        let (score, penalty) = (unchanged[token as usize], options.repetition_penalty);
        scores[token as usize] = if score < 0.0 { score * penalty } else { score / penalty };
    }
    let n = options.no_repeat_ngram as usize;
    for token in 0..scores.len() as u32 {
        let end = [tokens, &[token]].concat();
        let repeats = n > 0 && end.len() >= n && tokens.windows(n).any(|seen| *seen == end[end.len() - n..]);
        let is_early = tokens.len() < options.min_new_tokens as usize && stop_tokens.contains(&token);
        if repeats || is_early {
            scores[token as usize] = f64::NEG_INFINITY;
        }
    }
}

#[test]
fn results_equal_those_of_the_reference_for_all_settings() {
    let model = FakeModel { vocab_size: 60, spread: 3.0, end_bonus: 3.5 };
    let mut num_compared = 0;
    let mut num_stopped = 0;
    let plain = GenerationOptions::default;
    for beams in [2, 4, 7] {
        for length_penalty in [-0.5, 0.0, 0.6, 1.0, 2.0] {
            for early_stopping in ALL_EARLY_STOPPING {
                for (index, (constraints, stop_tokens)) in [
                    (plain(), vec![]),
                    (GenerationOptions { min_new_tokens: 4, ..plain() }, vec![5, 6]),
                    (GenerationOptions { repetition_penalty: 1.4, ..plain() }, vec![]),
                    (GenerationOptions { no_repeat_ngram: 1, min_new_tokens: 3, ..plain() }, vec![]),
                    (GenerationOptions { no_repeat_ngram: 2, repetition_penalty: 0.6, ..plain() }, vec![]),
                ]
                .into_iter()
                .enumerate()
                {
                    let n_best = beams;
                    let options =
                        GenerationOptions { beams, n_best, length_penalty, early_stopping, ..constraints };
                    let generation = Generation { stop_tokens, ..Generation::new(options, 14) };
                    for row in (0..6).map(|round| row(0, round * 10 + index as u32)) {
                        let expected = reference(model, row, &generation);
                        let found = alone(model, request(row, 3, generation.clone())).outputs;
                        assert_eq!(found.len(), expected.len());
                        for (found, expected) in found.iter().zip(&expected) {
                            assert_eq!(chosen(found, &expected.tokens), expected.tokens, "{generation:?}");
                            let tolerance = 1e-4 * expected.score.abs().max(1.0);
                            assert!((f64::from(found.score) - expected.score).abs() < tolerance);
                            num_compared += 1;
                            num_stopped += usize::from(found.finish_reason == FinishReason::Stop);
                        }
                    }
                }
            }
        }
    }
    assert!(num_stopped > num_compared / 4 && num_stopped < num_compared, "{num_stopped} of {num_compared}");
}

/// Tokens with the one that stopped the sequence, which outputs leave out.
fn chosen(found: &FinishedSequence, expected: &[u32]) -> Vec<u32> {
    let mut tokens = found.tokens.clone();
    assert_eq!(found.num_tokens, expected.len());
    if found.num_tokens > tokens.len() {
        tokens.extend(expected.last());
    }
    tokens
}

#[test]
fn logits_without_numbers_end_the_row_with_a_score_of_nan() {
    let model = FakeModel { vocab_size: 10, spread: f32::NAN, end_bonus: 0.0 };
    for generation in [beam(3, 5), greedy(0, 5), support::sampling(2, 5)] {
        let outputs = alone(model, request(row(0, 0), 3, generation)).outputs;
        assert!(outputs[0].score.is_nan());
    }
}
