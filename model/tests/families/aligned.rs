//! A small model that reads its own tokens takes the states of an LLM by characters.

use baton_bundle::{
    Alignment, Bundle, BundleManifest, DEFAULT_TEMPLATE, Fusion, ProjectorPart, PromptEmbeddingSource,
    Reading, SegmentPrompt, Span, TokenAlignment, arithmetic_of_mode, write_manifest,
};
use baton_job::Mode;
use baton_model::{
    AlignedRows, Checkpoint, Compute, LanguageModel, ModelParts, PackedLayout, Projector, PromptEncoder,
    PromptStates, RandomWeights, TensorSource, take_counted_flops, write_safetensors,
};
use tch::{Kind, Tensor};

use crate::hybrid::{PAIRS, bundle, projector_weights};
use crate::{checkpoint, config, ids, relative_difference};

/// The same parts, aligned by characters; the last layer of the projector is zero or random, after this many
/// blocks.
fn aligned_bundle(path: &std::path::Path, pair: (&str, &str), (is_new, blocks): (bool, usize)) -> Bundle {
    let by_tokens = bundle(path, pair, Fusion::Add);
    let manifest = by_tokens.manifest().clone();
    let (mut projector, mut slm) = (manifest.projector.clone().unwrap(), manifest.slm.clone().unwrap());
    projector.prompt_embedding = PromptEmbeddingSource::Slm;
    projector.blocks = blocks;
    slm.templates.insert(DEFAULT_TEMPLATE.to_owned(), "{text}</s>".to_owned());
    let mut weights = projector_weights(projector.d_llm, projector.d_slm);
    for (name, shape) in projector.block_shapes() {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        weights.insert(name.clone(), RandomWeights { seed: 4 }.tensor(&name, &shape).unwrap());
    }
    if is_new {
        for name in ["projector.output.weight", "projector.output.bias"] {
            let zeros = weights[name].zeros_like();
            weights.insert(name.to_owned(), zeros);
        }
    }
    write_safetensors(&path.join("projector/model.safetensors"), &weights, Kind::Float).unwrap();
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
    let inner = alignment.aligned().map(|(_, taken)| {
        let taken = taken.iter().map(|&at| states.narrow(0, i64::from(at), 1));
        let len = taken.len() as f64;
        let mean = taken.reduce(|sum, state| sum + state).unwrap() / len;
        mean.matmul(&layer("projector.input.weight", &[d_slm, d_llm]).tr())
            + layer("projector.input.bias", &[d_slm])
    });
    let inner = Tensor::cat(&inner.collect::<Vec<_>>(), 0);
    let part = bundle.manifest().projector.as_ref().unwrap();
    let inner = if part.blocks > 0 { blocks_by_hand(inner, part, &weights) } else { inner.relu() };
    let projected = inner.matmul(&layer("projector.output.weight", &[d_slm, d_slm]).tr())
        + layer("projector.output.bias", &[d_slm]);
    let mut next = 0;
    let rows = tokens.iter().enumerate().map(|(place, token)| {
        let embedding = slm.embed(&ids(&[*token]));
        if alignment.of_token(place).is_empty() {
            return embedding;
        }
        next += 1;
        embedding + projected.narrow(0, next - 1, 1)
    });
    Tensor::cat(&rows.collect::<Vec<_>>(), 0)
}

/// A Llama's blocks and norm (arXiv 2302.13971), where each row of a prompt sees all its rows. `x`: `[rows,
/// d]`.
fn blocks_by_hand(mut x: Tensor, part: &ProjectorPart, weights: &Checkpoint) -> Tensor {
    let shape = part.block_config();
    let (heads, head_dim, d) =
        (shape.num_attention_heads as i64, shape.head_dim as i64, shape.hidden_size as i64);
    let ff = shape.intermediate_size as i64;
    let weight = |name: String, shape: &[i64]| {
        weights.tensor(&format!("projector.model.{name}.weight"), shape).unwrap().to_kind(Kind::Float)
    };
    let norm = |x: &Tensor, name: String| {
        let mean_square = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        x / (mean_square + 1e-5).sqrt() * weight(name, &[d])
    };
    let rows = x.size()[0];
    let options = (Kind::Float, tch::Device::Cpu);
    let frequencies =
        Tensor::from(10_000f32).pow(&(Tensor::arange(head_dim / 2, options) * (-2.0 / head_dim as f64)));
    let angles = Tensor::arange(rows, options).view([rows, 1]) * frequencies.view([1, -1]);
    let angles = Tensor::cat(&[&angles, &angles], 1).view([rows, 1, head_dim]);
    let rotated = |heads: &Tensor| {
        let halves = heads.chunk(2, -1);
        heads * angles.cos() + Tensor::cat(&[-&halves[1], halves[0].shallow_clone()], -1) * angles.sin()
    };
    for block in 0..part.blocks {
        let name = |part: &str| format!("layers.{block}.{part}");
        let normed = norm(&x, name("input_layernorm"));
        let project = |part: &str| {
            normed
                .matmul(&weight(name(&format!("self_attn.{part}")), &[d, d]).tr())
                .view([rows, heads, head_dim])
        };
        let (q, k) = (rotated(&project("q_proj")), rotated(&project("k_proj")));
        let by_head = |t: &Tensor| t.transpose(0, 1); // [heads, rows, head_dim]
        let scores = by_head(&q).matmul(&by_head(&k).transpose(1, 2)) / (head_dim as f64).sqrt();
        let seen = scores.softmax(-1, Kind::Float).matmul(&by_head(&project("v_proj")));
        let seen = seen.transpose(0, 1).reshape([rows, d]);
        x += seen.matmul(&weight(name("self_attn.o_proj"), &[d, d]).tr());
        let normed = norm(&x, name("post_attention_layernorm"));
        let [gate, up] = ["gate_proj", "up_proj"]
            .map(|part| normed.matmul(&weight(name(&format!("mlp.{part}")), &[ff, d]).tr()));
        x += (gate.silu() * up).matmul(&weight(name("mlp.down_proj"), &[d, ff]).tr());
    }
    norm(&x, "norm".to_owned())
}

#[test]
fn each_token_takes_the_mean_of_the_states_of_its_characters_in_every_pair_of_families() {
    baton_model::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    for (pair, blocks) in PAIRS.into_iter().zip([0, 2, 0, 1, 0, 3, 1]) {
        let directory = tempfile::tempdir().unwrap();
        let bundle = aligned_bundle(directory.path(), pair, (false, blocks));
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
    for (pair, blocks) in PAIRS.into_iter().zip([0, 2, 0, 1, 0, 3, 1]) {
        let directory = tempfile::tempdir().unwrap();
        let bundle = aligned_bundle(directory.path(), pair, (true, blocks));
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

#[test]
fn blocks_learn_from_the_arithmetic_that_they_read_with() {
    baton_model::set_num_threads(1);
    let directory = tempfile::tempdir().unwrap();
    let bundle = aligned_bundle(directory.path(), PAIRS[2], (false, 2));
    let part = bundle.manifest().projector.as_ref().unwrap();
    let weights = Checkpoint::open(&bundle.path("projector/model.safetensors")).unwrap();
    let readings = [7, 30].map(reading);
    let num_states: i64 = readings.iter().map(|reading| reading.llm_tokens.len() as i64).sum();
    let num_rows: i64 = readings.iter().flat_map(Reading::prompt_lens).map(|len| len as i64).sum();
    let shape = [num_states, part.d_llm as i64];
    let states = RandomWeights { seed: 5 }.tensor("states", &shape).unwrap() * 20.0;
    let rows = AlignedRows::of_readings(&readings, tch::Device::Cpu);
    let project = |learns: bool| {
        let compute = Compute::CPU_F32.differentiable();
        let projector = Projector::load(&weights, part, compute).unwrap();
        let embeddings = Tensor::zeros([num_rows, part.d_slm as i64], (Kind::Float, tch::Device::Cpu));
        rows.add_projected(embeddings, &projector, &states.shallow_clone().set_requires_grad(learns))
    };
    let (reads, learns) = (project(false), project(true));
    let difference = (&reads - &learns).abs().max() / reads.abs().max();
    assert!(difference.double_value(&[]) < 1e-5, "{difference}");
    assert!(learns.requires_grad());
}

#[test]
fn the_cost_of_blocks_is_counted() {
    baton_model::set_num_threads(1);
    let directory = tempfile::tempdir().unwrap();
    let cost = |blocks: usize| {
        let path = directory.path().join(blocks.to_string());
        std::fs::create_dir(&path).unwrap();
        let bundle = aligned_bundle(&path, PAIRS[2], (false, blocks));
        let encoder = PromptEncoder::load(&bundle, &[Mode::Hybrid], Compute::CPU_F32).unwrap();
        // Each token of the small model covers characters, and therefore takes part in the blocks.
        let tokens = tokens(9, 7);
        let spans: Vec<Span> = (0..9).map(|at| at..at + 1).collect();
        let alignment = TokenAlignment::by_characters(&spans, &spans);
        let segment = SegmentPrompt { tokens: tokens.clone(), alignment };
        let _ = take_counted_flops();
        let _ = encoder.encode(Mode::Hybrid, &[Reading { llm_tokens: tokens, segments: vec![segment] }]);
        let arithmetic = arithmetic_of_mode(&bundle, Mode::Hybrid).unwrap();
        (take_counted_flops(), arithmetic.flops_per_record(9, 0), arithmetic.parameters)
    };
    let (none, two) = (cost(0), cost(2));
    assert_eq!(two.0 - none.0, two.1 - none.1);
    let block_parameters: u64 = Bundle::open(&directory.path().join("2"))
        .unwrap()
        .manifest()
        .projector
        .as_ref()
        .unwrap()
        .block_shapes()
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>() as u64)
        .sum();
    assert_eq!(two.2 - none.2, block_parameters);
}
