//! Rows that may choose among some tokens only.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::sync::Arc;

use baton_decoding::{Characters, Copying, Generation, GenerationOptions, Vocabulary};
use support::{Caller, EOS, FakeModel, ROOMY, beam, greedy, plain_sampling, request, row, sampling};

const MODEL: FakeModel = FakeModel { vocab_size: 60, spread: 3.0, end_bonus: 1.0 };
const NUM_ROWS: u32 = 40;

fn is_listed(token: u32) -> bool {
    token % 3 == 1
}

fn with_list(generation: &Generation) -> Generation {
    Generation {
        listed: Some((0..MODEL.vocab_size).filter(|&token| is_listed(token)).collect()),
        ..generation.clone()
    }
}

/// All outputs of some rows: tokens and scores.
fn outputs(caller: &mut Caller, generation: &Generation) -> Vec<(Vec<u32>, f32)> {
    for index in 0..NUM_ROWS {
        caller.scheduler.submit(request(row(0, index), 3, generation.clone())).unwrap();
    }
    let finished = caller.run().into_values().flat_map(|row| row.outputs);
    finished.map(|output| (output.tokens, output.score)).collect()
}

#[test]
fn a_row_chooses_among_its_candidates_as_if_no_other_token_were_possible() {
    let constrained = GenerationOptions {
        min_new_tokens: 3,
        repetition_penalty: 1.3,
        no_repeat_ngram: 2,
        ..GenerationOptions::default()
    };
    let nucleus = GenerationOptions { top_k: Some(9), top_p: Some(0.8), n_best: 2, ..plain_sampling() };
    for generation in [
        greedy(0, 25),
        beam(4, 25),
        sampling(3, 25),
        Generation::new(nucleus, 25),
        Generation::new(constrained.clone(), 25),
        Generation::new(GenerationOptions { beams: 3, ..constrained.clone() }, 25),
        Generation { stop_tokens: vec![5, 9], ..Generation::new(constrained, 25) },
        Generation { first_token: Some(6), ..beam(2, 25) },
    ] {
        let needed = |token: u32| {
            token == EOS || generation.stop_tokens.contains(&token) || generation.first_token == Some(token)
        };
        let mut all = Caller::new(MODEL, ROOMY);
        all.impossible = (0..MODEL.vocab_size).filter(|&token| !is_listed(token) && !needed(token)).collect();
        let expected = outputs(&mut all, &generation);
        let found = outputs(&mut Caller::new(MODEL, ROOMY), &with_list(&generation));
        assert_eq!(found.len(), expected.len());
        for ((tokens, score), (expected_tokens, expected_score)) in found.iter().zip(&expected) {
            assert_eq!(tokens, expected_tokens, "{generation:?}");
            assert!((score - expected_score).abs() < 1e-4, "{score}, not {expected_score}");
        }
        assert!(expected.iter().any(|(tokens, _)| tokens.len() > 3), "rows write something");
    }
}

#[test]
fn rows_with_and_without_candidates_share_a_batch_and_do_not_see_each_other() {
    let generations = [greedy(0, 20), with_list(&greedy(0, 20)), beam(3, 20), with_list(&beam(3, 20))];
    let alone: Vec<_> =
        generations.iter().map(|generation| outputs(&mut Caller::new(MODEL, ROOMY), generation)).collect();
    let mut caller = Caller::new(MODEL, ROOMY);
    for index in 0..NUM_ROWS {
        for (group, generation) in (0..).zip(&generations) {
            caller.scheduler.submit(request(row(group, index), 3, generation.clone())).unwrap();
        }
    }
    let mut together: Vec<Vec<(Vec<u32>, f32)>> = vec![Vec::new(); generations.len()];
    for (row, finished) in caller.run() {
        let found = finished.outputs.into_iter().map(|output| (output.tokens, output.score));
        together[row.group.0 as usize].extend(found);
    }
    assert_eq!(together, alone);
}

/// Bytes, and a word of three of them.
fn spellings() -> Vec<Vec<u8>> {
    let mut spellings: Vec<Vec<u8>> = vec![Vec::new(); 3];
    spellings.extend([&b" X"[..], b"7", b"X7", b"\xC3", b"\xA9", b"\xA8", b"a"].map(<[u8]>::to_vec));
    spellings.resize(MODEL.vocab_size as usize, Vec::new());
    spellings
}

#[test]
fn whatever_a_row_has_to_write_is_a_candidate() {
    let vocabulary = Arc::new(Vocabulary::new(spellings()));
    let base = Generation { listed: Some([9].into()), ..greedy(0, 6) };
    let written = |generation: &Generation| -> Vec<u32> {
        let mut tokens: Vec<u32> = outputs(&mut Caller::new(MODEL, ROOMY), generation)
            .into_iter()
            .flat_map(|(tokens, _)| tokens)
            .collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    };
    assert_eq!(written(&base), [9]);
    let terms = Generation { copying: Some(Copying::of_terms("X7", vocabulary)), ..base.clone() };
    assert_eq!(written(&terms), [3, 4, 5, 9], "the pieces of a term");

    let characters = Some(Arc::new(Characters::new(&spellings(), &[])));
    let whole = Generation { characters: characters.clone(), ..base.clone() };
    assert_eq!(written(&whole), [9]);
    let begun = Generation { characters, listed: Some([6].into()), ..base };
    assert_eq!(written(&begun), [6, 7, 8], "the rest of a character that may be begun");
}

#[test]
fn a_prompts_tokens_can_be_spelled_at_any_place_of_an_output() {
    let vocabulary = Vocabulary::new(spellings());
    let elsewhere = |token| vocabulary.elsewhere(token).collect::<Vec<u32>>();
    assert_eq!(elsewhere(3), Vec::<u32>::new(), "there is no X");
    assert_eq!(elsewhere(5), Vec::<u32>::new());
    let spellings = [" X1", "X", "1", " X", "X1"].map(|spelling| spelling.as_bytes().to_vec());
    let mut vocabulary = Vocabulary::new(spellings.to_vec());
    let elsewhere = |vocabulary: &Vocabulary, token| vocabulary.elsewhere(token).collect::<Vec<u32>>();
    assert_eq!(elsewhere(&vocabulary, 0), [4]);
    assert_eq!(elsewhere(&vocabulary, 1), [3]);
    assert_eq!(elsewhere(&vocabulary, 4), [0]);
    vocabulary = Vocabulary::new(spellings[..4].to_vec());
    assert_eq!(elsewhere(&vocabulary, 0), [1, 2], "in parts, where there is no whole");
}
