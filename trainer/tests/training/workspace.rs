//! A tiny random LLM and pairs that a tiny model can learn, for each test anew.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use baton_bundle::{
    Alignment, DecoderConfig, Family, FamilyConfig, Fusion, ModelConfig, OutputRules, PromptAttention,
    T5Config, T5FeedForward, Task, WeightDtype,
};
use baton_job::ReaderContext;
use baton_trainer::{
    BundleIdentity, Hyperparameters, Initialization, Reads, SlmShape, SlmTokenizer, TrainConfig, TrainEvent,
    Trains,
};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tokenizers::{
    AddedToken, TokenizerBuilder,
    decoders::byte_level::ByteLevel as ByteLevelDecoder,
    models::bpe::{BPE, BpeTrainerBuilder},
    normalizers::NFC,
    pre_tokenizers::byte_level::ByteLevel,
};

pub(crate) const COLOURS: [(&str, &str); 6] = [
    ("red", "rosso"),
    ("green", "verde"),
    ("blue", "blu"),
    ("white", "bianco"),
    ("black", "nero"),
    ("yellow", "giallo"),
];

/// A directory with a tiny LLM and pairs that translate short lists of colours. While it lives, no other test
/// of this file trains: libtorch's random numbers come from one generator for the whole process.
pub(crate) struct Workspace {
    directory: TempDir,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Workspace {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

pub(crate) fn workspace() -> Workspace {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    baton_model::set_num_threads(1);
    let directory = tempfile::tempdir().unwrap();
    write_tiny_llm(&directory.path().join("llm"));
    let pair = |i: usize| {
        let words: Vec<_> =
            (0..1 + i % 3).map(|j| COLOURS[(i / 3 + j * (1 + i % 5)) % COLOURS.len()]).collect();
        let side = |f: fn(&(&'static str, &'static str)) -> &'static str| {
            words.iter().map(f).collect::<Vec<_>>().join(" ")
        };
        serde_json::json!({ "source": side(|w| w.0), "target": side(|w| w.1) }).to_string()
    };
    let lines = |range: std::ops::Range<usize>| range.map(pair).collect::<Vec<_>>().join("\n");
    fs::write(directory.path().join("train.jsonl"), lines(0..300)).unwrap();
    fs::write(directory.path().join("dev.jsonl"), lines(300..330)).unwrap();
    Workspace { directory, _one_at_a_time: one_at_a_time }
}

pub(crate) fn write_tiny_llm(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(300)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from("<|im_start|>", true), AddedToken::from("<|im_end|>", true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_post_processor(Some(ByteLevel::default()))
        .with_decoder(Some(ByteLevelDecoder::default()))
        .build()
        .unwrap();
    tokenizer.train(&mut trainer, COLOURS.iter().map(|c| c.0)).unwrap();
    fs::write(directory.join("tokenizer.json"), serde_json::to_vec(&tokenizer).unwrap()).unwrap();
    let config = ModelConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 300,
        max_position_embeddings: 128,
        tie_word_embeddings: true,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Decoder(DecoderConfig::llama(1e-5, 10_000.0)),
    };
    write_random_weights(directory, &config);
}

/// Makes the tiny LLM an encoder-decoder.
pub(crate) fn write_tiny_t5(directory: &Path) {
    let constants = T5Config {
        num_decoder_layers: 1,
        layer_norm_epsilon: 1e-6,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 20,
        feed_forward_proj: T5FeedForward::Relu,
        scale_decoder_outputs: true,
    };
    let llm = ModelConfig::read(&directory.join("config.json")).unwrap();
    let llm = ModelConfig { num_key_value_heads: 4, family: FamilyConfig::T5(constants), ..llm };
    write_random_weights(directory, &llm);
}

pub(crate) fn write_random_weights(directory: &Path, config: &ModelConfig) {
    fs::write(directory.join("config.json"), config.to_json()).unwrap();
    tch::manual_seed(7);
    let tensors: BTreeMap<String, Tensor> = config
        .tensor_shapes()
        .into_iter()
        .map(|(name, shape)| {
            let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
            let values = Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu));
            let tensor = match &*name {
                norm if norm.contains("norm") => values.ones_like(),
                "shared.weight" => values, // as large as a T5's
                _ => values * 0.2,
            };
            (name, tensor)
        })
        .collect();
    baton_model::write_safetensors(&directory.join("model.safetensors"), &tensors, Kind::Float).unwrap();
}

pub(crate) fn config(workspace: &Path, steps: usize) -> TrainConfig {
    TrainConfig {
        trains: Trains::Slm,
        train: workspace.join("train.jsonl").into(),
        dev: workspace.join("dev.jsonl").into(),
        general: None,
        source_field: "source".into(),
        target_field: "target".into(),
        sentences_field: None,
        reader_context: ReaderContext::Segment,
        llm: workspace.join("llm"),
        llm_adapter: None,
        llm_layer: 1,
        mixed_layers: Vec::new(),
        projector_depth: 2,
        projector_blocks: 0,
        alignment: Alignment::Tokens,
        frozen: Vec::new(),
        reads: Reads::Hybrid,
        fusion: Fusion::Add,
        prompt_attention: PromptAttention::Bidirectional,
        template: "<|im_start|>{text}<|im_end|>".into(),
        max_prompt_tokens: 32,
        max_response_tokens: 32,
        slm: Some(SlmShape {
            family: Family::Llama,
            d_model: 32,
            blocks: 2,
            heads: 4,
            kv_heads: 2,
            intermediate: 64,
            vocab_size: 330,
            tokenizer: SlmTokenizer::Own,
            llm_tokens: 20,
            initialization: Initialization::Aligned,
        }),
        start_from: None,
        hyperparameters: Hyperparameters {
            steps,
            projector_steps: 0,
            batch_tokens: 256,
            learning_rate: 0.01,
            projector_learning_rate: None,
            warmup_steps: 10,
            weight_decay: 0.01,
            label_smoothing: 0.05,
            dropout: 0.05,
            clip_norm: 1.0,
            seed: 3,
            validate_every: 10,
            validation_pairs: 30,
        },
        llm_training: None,
        bundle: BundleIdentity {
            generation: BTreeMap::new(),
            name: "colours".into(),
            task: Task::Translation { source: "en".into(), target: "it".into() },
            licence: "CC0-1.0".into(),
            data_origin: "made by the test".into(),
            llm_origin: "random".into(),
            llm_licence: "CC0-1.0".into(),
        },
    }
}

pub(crate) fn shape(config: &mut TrainConfig) -> &mut SlmShape {
    config.slm.as_mut().unwrap()
}

pub(crate) fn quietly(_: &TrainEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn validation_losses(run_directory: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run_directory.join("log.jsonl")).unwrap();
    log.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|event| event["event"] == "validation")
        .map(|event| event["loss"].as_f64().unwrap())
        .collect()
}

pub(crate) fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_directory(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
