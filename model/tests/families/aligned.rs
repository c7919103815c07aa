//! A small model that reads its own tokens takes the states of an LLM by characters.

use baton_bundle::{
    Alignment, Bundle, BundleManifest, DEFAULT_TEMPLATE, Fusion, PromptEmbeddingSource, Reading,
    SegmentPrompt, Span, TokenAlignment, write_manifest,
};
use baton_job::Mode;
use baton_model::{
    Checkpoint, Compute, LanguageModel, ModelParts, PackedLayout, Projector, PromptEncoder, PromptStates,
    TensorSource, write_safetensors,
};
use tch::{Kind, Tensor};

use crate::hybrid::{PAIRS, bundle, projector_weights};
use crate::{checkpoint, config, ids, relative_difference};

/// The same parts, aligned by characters; the last layer of the projector is zero or random.
fn aligned_bundle(path: &std::path::Path, pair: (&str, &str), is_new: bool) -> Bundle {
    let by_tokens = bundle(path, pair, Fusion::Add);
    let manifest = by_tokens.manifest().clone();
    let (mut projector, mut slm) = (manifest.projector.clone().unwrap(), manifest.slm.clone().unwrap());
    projector.prompt_embedding = PromptEmbeddingSource::Slm;
    slm.templates.insert(DEFAULT_TEMPLATE.to_owned(), "{text}</s>".to_owned());
    if is_new {
        let mut weights = projector_weights(projector.d_llm, projector.d_slm);
        for name in ["projector.output.weight", "projector.output.bias"] {
            let zeros = weights[name].zeros_like();
            weights.insert(name.to_owned(), zeros);
        }
        write_safetensors(&path.join("projector/model.safetensors"), &weights, Kind::Float).unwrap();
    }
    let manifest = BundleManifest {
        alignment: Alignment::Characters,
        projector: Some(projector),
        slm: Some(slm),
        modes: vec![Mode::Hybrid, Mode::Slm],
        ..manifest
    };
    write_manifest(path, manifest).unwrap();
    Bundle::open(path).unwrap()
}

fn tokens(len: usize, step: u32) -> Vec<u32> {
    (0..len as u32).map(|token| 3 + (token * step) % 50).collect()
}

/// A text of `len` bytes. The LLM's tokens have two bytes each, after one that covers nothing; the small
/// model's have three, before one that covers nothing. One segment covers the text, the other its end.
fn reading(len: usize) -> Reading {
    let cut = |start: usize, size: usize| -> Vec<Span> {
        (start..len).step_by(size).map(|at| at..(at + size).min(len)).collect()
    };
    let llm: Vec<Span> = std::iter::once(0..0).chain(cut(0, 2)).collect();
    let segment = |start: usize, step: u32| {
        let spans: Vec<Span> = cut(start, 3).into_iter().chain(std::iter::once(0..0)).collect();
        SegmentPrompt {
            tokens: tokens(spans.len(), step),
            alignment: TokenAlignment::by_characters(&llm, &spans),
        }
    };
    Reading { llm_tokens: tokens(llm.len(), 13), segments: vec![segment(0, 7), segment(len / 2, 11)] }
}

fn tensor(states: &PromptStates) -> Tensor {
    Tensor::from_data_size(&states.data, &[states.prompt_len as i64, states.d_slm as i64], Kind::BFloat16)
}

/// The method by its formula, token by token: `[tokens, d_slm]`.
fn states_by_hand(bundle: &Bundle, pair: (&str, &str), reading: &Reading, segment: usize) -> Tensor {
    let compute = Compute::CPU_F32;
    let model = |fixture, blocks| {
        let parts = ModelParts { blocks, lm_head: false };
        LanguageModel::load(&config(fixture), &checkpoint(fixture), parts, compute).unwrap()
    };
    let (llm, slm) = (model(pair.0, bundle.llm().unwrap().0.layers), model(pair.1, 0));
    let projector = bundle.manifest().projector.as_ref().unwrap();
    let weights = Checkpoint::open(&bundle.path("projector/model.safetensors")).unwrap();
    let layer = |name: &str, shape: &[i64]| weights.tensor(name, shape).unwrap();
    let projector = Projector::load(&weights, projector, compute).unwrap();
    let layout = PackedLayout::prompts([reading.llm_tokens.len()]);
    let states = projector.scaled(&llm.read(llm.embed(&ids(&reading.llm_tokens)), &layout));

    let SegmentPrompt { tokens, alignment } = &reading.segments[segment];
    let (d_llm, d_slm) = (states.size()[1], config(pair.1).hidden_size as i64);
    let rows = tokens.iter().enumerate().map(|(place, token)| {
        let embedding = slm.embed(&ids(&[*token]));
        let taken: Vec<i64> = alignment.of_token(place).iter().map(|&at| i64::from(at)).collect();
        if taken.is_empty() {
            return embedding;
        }
        let sum = taken.iter().map(|&at| states.narrow(0, at, 1)).reduce(|sum, state| sum + state).unwrap();
        let mean = sum / taken.len() as f64;
        let inner = mean.matmul(&layer("projector.input.weight", &[d_slm, d_llm]).tr())
            + layer("projector.input.bias", &[d_slm]);
        embedding
            + inner.relu().matmul(&layer("projector.output.weight", &[d_slm, d_slm]).tr())
            + layer("projector.output.bias", &[d_slm])
    });
    Tensor::cat(&rows.collect::<Vec<_>>(), 0)
}

#[test]
fn each_token_takes_the_mean_of_the_states_of_its_characters_in_every_pair_of_families() {
    baton_model::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    for pair in PAIRS {
        let directory = tempfile::tempdir().unwrap();
        let bundle = aligned_bundle(directory.path(), pair, false);
        let encoder = PromptEncoder::load(&bundle, &[Mode::Hybrid], Compute::CPU_F32).unwrap();
        let readings = [7, 1, 30, 16].map(reading);
        let together = encoder.encode(Mode::Hybrid, &readings);
        for (reading, states) in readings.iter().zip(&together) {
            assert_eq!(encoder.encode(Mode::Hybrid, std::slice::from_ref(reading))[0], *states, "{pair:?}");
            for (segment, found) in states.iter().enumerate() {
                let by_hand = states_by_hand(&bundle, pair, reading, segment).to_kind(Kind::BFloat16);
                let by_hand: Vec<f64> = Vec::try_from(by_hand.to_kind(Kind::Double).flatten(0, -1)).unwrap();
                let difference = relative_difference(&tensor(found), &by_hand);
                assert!(difference < 5e-3, "{pair:?}, segment {segment}: {difference}"); // one step of bf16
            }
        }
    }
}

#[test]
fn a_hybrid_with_a_new_projector_equals_its_small_model_to_the_bit() {
    baton_model::set_num_threads(1);
    for pair in PAIRS {
        let directory = tempfile::tempdir().unwrap();
        let bundle = aligned_bundle(directory.path(), pair, true);
        for compute in [Compute::CPU_F32, Compute::CPU_INT8] {
            let encoder = PromptEncoder::load(&bundle, &[Mode::Hybrid, Mode::Slm], compute).unwrap();
            let readings = [7, 30].map(reading);
            let hybrid = encoder.encode(Mode::Hybrid, &readings);
            assert_eq!(hybrid, encoder.encode(Mode::Slm, &readings), "{pair:?}");
            let alone = PromptEncoder::load(&bundle, &[Mode::Slm], compute).unwrap();
            assert_eq!(hybrid, alone.encode(Mode::Slm, &readings), "{pair:?}");
        }
    }
}
