//! An LLM of one family reads, a small model of another writes.

use std::{collections::BTreeMap, fs, path::Path};

use baton_bundle::{
    Alignment, Bundle, BundleManifest, DEFAULT_TEMPLATE, Fusion, InputNorm, Limits, LlmPart, MANIFEST_FORMAT,
    ProjectorPart, PromptAttention, PromptEmbeddingSource, Reading, SlmPart, SlmTokenizer, Task,
    arithmetic_of_mode, write_manifest,
};
use baton_decoding::{SlotId, StepRow};
use baton_job::Mode;
use baton_model::{
    BatchDecoder, CacheLimits, Compute, LanguageModel, ModelParts, PackedLayout, PrefillRow, Projector,
    Prompt, PromptEmbedding, PromptEncoder, PromptStates, RandomWeights, TensorSource, fuse,
    take_counted_flops, write_safetensors,
};
use tch::{Kind, Tensor};

use crate::{checkpoint, config, directory, ids, of_writable, relative_difference};

/// Each family once as LLM, and each that small models are trained from once or more as SLM.
pub(crate) const PAIRS: [(&str, &str); 10] = [
    ("t5-untied", "t5-tied"),
    ("mt5-untied", "gpt2-tied"),
    ("llama-untied", "t5-tied-unscaled"),
    ("qwen2-sliding", "llama-untied"),
    ("qwen3-tied", "qwen2-tied"),
    ("gemma3-tied", "gpt2-untied"),
    ("gpt2-tied", "qwen2-sliding"),
    ("bart", "marian"),
    ("qwen3-untied", "m2m-100"),
    ("m2m-100", "mbart"),
];

const PROMPT_LENS: [usize; 3] = [5, 1, 31];
const NUM_WRITTEN: usize = 12;

pub(crate) fn projector_weights(d_llm: usize, d_slm: usize) -> BTreeMap<String, Tensor> {
    let layers = [("projector.input", d_llm), ("projector.output", d_slm), ("prompt_embedding.map", d_llm)];
    let tensors = layers.into_iter().flat_map(|(layer, d_in)| {
        let tensor = |name: String, shape: &[usize]| {
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            let tensor = RandomWeights { seed: 3 }.tensor(&name, &shape).unwrap();
            (name, tensor)
        };
        [tensor(format!("{layer}.weight"), &[d_slm, d_in]), tensor(format!("{layer}.bias"), &[d_slm])]
    });
    tensors.collect()
}

/// A bundle of two fixtures. Its tokenizers are never read.
pub(crate) fn bundle(path: &Path, (llm, slm): (&str, &str), fusion: Fusion) -> Bundle {
    for (part, fixture) in [("llm", llm), ("slm", slm)] {
        let part = path.join(part);
        fs::create_dir(&part).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(directory(fixture).join(name), part.join(name)).unwrap();
        }
        fs::write(part.join("tokenizer.json"), "{}").unwrap();
    }
    let (llm, slm) = (config(llm), config(slm));
    let (d_llm, d_slm) = (llm.hidden_size, slm.hidden_size);
    fs::create_dir(path.join("projector")).unwrap();
    let weights = projector_weights(d_llm, d_slm);
    write_safetensors(&path.join("projector/model.safetensors"), &weights, Kind::Float).unwrap();
    let layers =
        if llm.encoder_decoder().is_some() { llm.num_hidden_layers } else { llm.num_hidden_layers - 1 };
    let manifest = BundleManifest {
        format: MANIFEST_FORMAT,
        name: "tiny".to_owned(),
        task: Task::Summarization { language: "en".to_owned() },
        llm: Some(LlmPart {
            family: llm.family(),
            layers,
            d_model: d_llm,
            vocab_size: llm.vocab_size,
            writer: None,
            adapter: None,
        }),
        projector: Some(ProjectorPart {
            d_llm,
            d_slm,
            input_norm: InputNorm::Rms,
            prompt_embedding: PromptEmbeddingSource::Llm,
            mixed_layers: Vec::new(),
            depth: ProjectorPart::USUAL_DEPTH,
            blocks: 0,
        }),
        slm: Some(SlmPart {
            family: slm.family(),
            d_model: d_slm,
            vocab_size: slm.vocab_size,
            prompt_attention: PromptAttention::Bidirectional,
            bos_token: "<s>".to_owned(),
            eos_token: "</s>".to_owned(),
            templates: BTreeMap::new(),
            languages: None,
            tokenizer: SlmTokenizer::Json,
        }),
        fusion: Some(fusion),
        alignment: Alignment::Tokens,
        modes: vec![Mode::Hybrid],
        templates: BTreeMap::from([(DEFAULT_TEMPLATE.to_owned(), "summarize: {text}".to_owned())]),
        generation: BTreeMap::new(),
        quality: BTreeMap::new(),
        limits: Limits { max_prompt_tokens: 32, max_new_tokens: NUM_WRITTEN, max_slm_prompt_tokens: None },
        parts: Vec::new(),
        training: serde_json::Map::new(),
        files: BTreeMap::new(),
    };
    write_manifest(path, manifest).unwrap();
    Bundle::open(path).unwrap()
}

fn prompt(len: usize) -> Vec<u32> {
    (0..len as u32).map(|token| 3 + (token * 13) % 50).collect()
}

/// The method by its formula: the LLM's states, projected, or added to the projected embeddings.
/// `[prompt_len, d_slm]`
fn states_by_hand(bundle: &Bundle, llm: &str, fusion: Fusion, prompt: &[u32]) -> Tensor {
    let (manifest, compute) = (bundle.manifest(), Compute::CPU_F32);
    let parts = ModelParts { blocks: bundle.llm().unwrap().0.layers, lm_head: false };
    let model = LanguageModel::load(&config(llm), &checkpoint(llm), parts, compute).unwrap();
    let (d_llm, d_slm) = (bundle.llm().unwrap().0.d_model, manifest.slm.as_ref().unwrap().d_model);
    let weights = projector_weights(d_llm, d_slm);
    let embeddings = model.embed(&ids(prompt));
    let embedded = PromptEmbedding::load(&weights, d_llm, d_slm, compute).unwrap().forward(&embeddings);
    let layout = PackedLayout::prompts([prompt.len()]);
    let states = model.read(embeddings, &layout);
    let projector = Projector::load(&weights, manifest.projector.as_ref().unwrap(), compute).unwrap();
    let projected = projector.forward(&states, &layout);
    fuse(fusion, projected, || embedded)
}

fn decoder(bundle: &Bundle, compute: Compute) -> BatchDecoder {
    let limits = CacheLimits { max_slots: 3, max_cache_tokens: 3 * 48 };
    BatchDecoder::load(bundle, compute, limits).unwrap()
}

fn rows(prompts: &[PromptStates]) -> Vec<PrefillRow<'_>> {
    let row = |(slot, states)| {
        let prompt = Prompt::States(states);
        PrefillRow { slot: SlotId(slot), prompt, capacity_tokens: prompt.len() + NUM_WRITTEN }
    };
    prompts.iter().enumerate().map(row).collect()
}

/// Feeds this many tokens into each row. Logits by step and row.
fn write(decoder: &mut BatchDecoder, rows: &[PrefillRow<'_>]) -> Vec<Vec<Vec<f32>>> {
    decoder.prefill(rows);
    let begin = decoder.special_tokens().begin_of_sequence;
    let steps = (0..NUM_WRITTEN as u32).map(|step| {
        let token = if step == 0 { begin } else { 3 + (step * 11) % 50 };
        let fed: Vec<StepRow> = rows.iter().map(|row| StepRow { slot: row.slot, token }).collect();
        let logits = decoder.step(&fed);
        (0..rows.len()).map(|row| logits.row(row).to_vec()).collect()
    });
    let logits = steps.collect();
    rows.iter().for_each(|row| decoder.release(row.slot));
    logits
}

#[test]
fn a_run_takes_as_many_operations_as_are_computed_from_the_shapes() {
    baton_model::set_num_threads(1);
    for (pair, fusion) in PAIRS.into_iter().zip([Fusion::Add, Fusion::Replace].into_iter().cycle()) {
        let directory = tempfile::tempdir().unwrap();
        let bundle = bundle(directory.path(), pair, fusion);
        let arithmetic = arithmetic_of_mode(&bundle, Mode::Hybrid).unwrap();
        let expected = |prompt_len: usize| arithmetic.flops_per_record(prompt_len as u64, NUM_WRITTEN as u64);
        for compute in [Compute::CPU_F32, Compute::CPU_INT8] {
            let encoder = PromptEncoder::load(&bundle, &[Mode::Hybrid], compute).unwrap();
            let mut decoder = decoder(&bundle, compute);
            let prompts = PROMPT_LENS.map(prompt);
            let _ = take_counted_flops();
            let states = encoder.encode(Mode::Hybrid, &prompts.map(Reading::of_llm_tokens)).concat();
            let _ = write(&mut decoder, &rows(&states));
            let expected: u64 = PROMPT_LENS.into_iter().map(expected).sum();
            assert_eq!(take_counted_flops(), expected, "{pair:?}, {compute:?}");
        }
    }
}

#[test]
fn states_of_every_llm_enter_every_small_model_and_rows_do_not_see_each_other() {
    baton_model::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    for (pair, fusion) in PAIRS.into_iter().zip([Fusion::Add, Fusion::Replace].into_iter().cycle()) {
        let directory = tempfile::tempdir().unwrap();
        let bundle = bundle(directory.path(), pair, fusion);
        let compute = Compute::CPU_F32;
        let encoder = PromptEncoder::load(&bundle, &[Mode::Hybrid], compute).unwrap();
        let prompts = PROMPT_LENS.map(prompt);
        let together = encoder.encode(Mode::Hybrid, &prompts.clone().map(Reading::of_llm_tokens)).concat();
        for (prompt, states) in prompts.iter().zip(&together) {
            let alone = encoder.encode(Mode::Hybrid, &[Reading::of_llm_tokens(prompt.clone())]);
            assert_eq!(alone[0], std::slice::from_ref(states), "{pair:?}");
            let by_hand = states_by_hand(&bundle, pair.0, fusion, prompt).to_kind(Kind::BFloat16);
            let shape = [states.prompt_len as i64, states.d_slm as i64];
            let found = Tensor::from_data_size(&states.data, &shape, Kind::BFloat16);
            let by_hand: Vec<f64> = Vec::try_from(by_hand.to_kind(Kind::Double).flatten(0, -1)).unwrap();
            let difference = relative_difference(&found, &by_hand);
            assert!(difference < 5e-3, "{pair:?} {fusion:?}: {difference}"); // one step of bf16
        }

        let mut decoder = decoder(&bundle, compute);
        let rows = rows(&together);
        let together = write(&mut decoder, &rows);
        for (index, row) in rows.iter().enumerate() {
            for (step, (alone, together)) in write(&mut decoder, &[*row]).iter().zip(&together).enumerate() {
                assert!(of_writable(&config(pair.1), &alone[0]).iter().all(|logit| logit.is_finite()));
                assert_eq!(alone[0], together[index], "{pair:?}, row {index}, step {step}");
            }
        }
        assert_ne!(together[1][0], together[1][1], "{pair:?}: what is written follows from the prompt");
    }
}
