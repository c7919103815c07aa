//! A reader in several parts gives the bytes of a whole one, wherever it is cut.

use baton_bundle::{Bundle, BundleManifest, Fusion, ProjectorPart, Reading, write_manifest};
use baton_job::Mode;
use baton_model::{
    Compute, LanguageModel, LayerStates, PackedLayout, PromptEncoder, ReaderPart, num_layers_of_part,
    write_safetensors,
};
use tch::{Kind, Tensor};

use crate::{
    FIXTURES, checkpoint, config, expected,
    hybrid::{bundle, projector_weights},
    ids,
};

/// All arithmetics of a CPU, and that of a GPU if there is one.
fn computes() -> Vec<Compute> {
    let mut computes = vec![Compute::CPU_F32, Compute::CPU_BF16, Compute::CPU_INT8];
    match Compute::cuda(0) {
        Ok(gpu) => computes.push(gpu),
        Err(error) => eprintln!("SKIPPED on a GPU: {error}"),
    }
    computes
}

#[test]
fn every_family_gives_the_same_bytes_in_two_parts() {
    baton_model::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    for fixture in FIXTURES {
        let (config, checkpoint) = (config(fixture), checkpoint(fixture));
        let prompts: Vec<Vec<u32>> =
            expected(fixture).prompts.into_iter().map(|prompt| prompt.tokens).collect();
        let layout = PackedLayout::prompts(prompts.iter().map(Vec::len));
        for compute in computes() {
            let part = |blocks| LanguageModel::load_blocks(&config, &checkpoint, blocks, compute).unwrap();
            let num_blocks = config.num_hidden_layers;
            let whole = part(0..num_blocks);
            let tokens = ids(&prompts.concat()).to_device(compute.device);
            let whole = whole.read(whole.embed(&tokens), &layout);
            for cut in 1..num_blocks {
                let (first, last) = (part(0..cut), part(cut..num_blocks));
                let states = first.read(first.embed(&tokens), &layout);
                assert!(last.read(states, &layout).equal(&whole), "{fixture} {compute:?}, cut at {cut}");
            }
        }
    }
}

/// The bundle of two fixtures, whose projector mixes all layers of the LLM if it is decoder-only.
fn mixing_bundle(path: &std::path::Path, pair: (&str, &str), fusion: Fusion) -> Bundle {
    let base = bundle(path, pair, fusion);
    let manifest = base.manifest().clone();
    let (mut llm, projector) = (manifest.llm.clone().unwrap(), manifest.projector.clone().unwrap());
    llm.layers = config(pair.0).num_hidden_layers;
    let mixed_layers: Vec<usize> =
        if llm.family.has_encoder() { Vec::new() } else { (1..llm.layers).collect() };
    let mut weights = projector_weights(projector.d_llm, projector.d_slm);
    if !mixed_layers.is_empty() {
        let shares: Vec<f32> = (0..=mixed_layers.len()).map(|layer| 0.3 * layer as f32).collect();
        weights.insert("projector.mix".to_owned(), Tensor::from_slice(&shares));
    }
    write_safetensors(&path.join("projector/model.safetensors"), &weights, Kind::Float).unwrap();
    let projector = Some(ProjectorPart { mixed_layers, ..projector });
    write_manifest(path, BundleManifest { llm: Some(llm), projector, ..manifest }).unwrap();
    Bundle::open(path).unwrap()
}

#[test]
fn a_reader_in_parts_gives_the_prompt_states_of_a_whole_one_also_over_a_wire() {
    baton_model::set_num_threads(1);
    let prompt = |len: u32| (0..len).map(|token| 3 + (token * 13) % 50).collect();
    let readings = [5, 1, 31].map(|len| Reading::of_llm_tokens(prompt(len)));
    for (pair, fusion) in [
        (("llama-untied", "t5-tied"), Fusion::Add),
        (("gemma3-tied", "gpt2-untied"), Fusion::Replace),
        (("gpt2-tied", "qwen2-tied"), Fusion::Add),
        (("qwen3-moe", "t5-tied"), Fusion::Replace),
        (("t5-tied", "llama-untied"), Fusion::Add),
        (("mbart", "marian"), Fusion::Add),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let bundle = mixing_bundle(directory.path(), pair, fusion);
        let (part, llm) = bundle.llm().unwrap();
        for compute in computes() {
            let whole = PromptEncoder::load(&bundle, &[Mode::Hybrid], compute).unwrap();
            let whole = whole.encode(Mode::Hybrid, &readings);
            for cut in 1..part.layers {
                let first = PromptEncoder::load_first(&bundle, &[Mode::Hybrid], (cut, compute)).unwrap();
                let blocks = cut..part.layers;
                let rest = ReaderPart::load(&bundle, blocks.clone(), compute).unwrap();
                let mut states = first.begin(&readings);
                let stream = states.take_stream();
                let [bytes] = &stream.to_bytes()[..] else { panic!("a stream is of one layer") };
                let lens = stream.prompt_lens().to_vec();
                let stream = LayerStates::from_bytes(lens.clone(), (1, llm.hidden_size), bytes).unwrap();
                let answer = rest.read(&stream).to_bytes();
                assert_eq!(answer.len(), num_layers_of_part(&bundle, &blocks).unwrap());
                let shape = (answer.len(), llm.hidden_size);
                states.continue_with(LayerStates::from_bytes(lens, shape, &answer.concat()).unwrap());
                let found = first.finish(Mode::Hybrid, &readings, &states);
                assert_eq!(found, whole, "{pair:?} {compute:?}, cut at {cut}");
            }
        }
    }
}
