//! A tiny bundle with random weights: two-layer Llamas of width 32 and byte tokenizers. Its outputs mean
//! nothing, but they are made by the real models and depend on every byte of the prompt.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use baton_bundle::{
    Alignment, BundleManifest, DecoderConfig, Family, FamilyConfig, Fusion, InputNorm, Limits, LlmPart,
    LlmWriter, MANIFEST_FORMAT, ModelConfig, OutputRules, PartOrigin, ProjectorPart, PromptAttention,
    PromptEmbeddingSource, SlmPart, SlmTokenizer, T5Config, T5FeedForward, Task, WeightDtype, write_manifest,
};
use baton_job::{GenerationLayer, Mode, Setting};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

const WIDTH: usize = 32;
const BEGIN: &str = "<s>";
const END: &str = "</s>";
const SPECIAL_TOKENS: [&str; 2] = [BEGIN, END];
/// One token per byte, so a prompt has as many tokens as its text has bytes, and two for the template.
const VOCAB_SIZE: usize = SPECIAL_TOKENS.len() + 256;

/// Merges of the small model of an aligned bundle.
const MERGES: [(&str, &str); 3] = [("o", "l"), ("Ġ", "m"), ("i", "t")];

pub(crate) const MAX_PROMPT_TOKENS: usize = 80;
pub(crate) const MAX_NEW_TOKENS: usize = 24;

/// The bundle that all tests share and none changes. It is written afresh by each test process and lies in
/// the build directory.
pub(crate) fn shared_bundle() -> &'static Path {
    static BUNDLE: OnceLock<PathBuf> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiny-bundle");
        if directory.exists() {
            fs::remove_dir_all(&directory).unwrap();
        }
        write_bundle(&directory, 1);
        directory
    })
}

/// Writes a bundle with weights drawn from `seed`.
pub(crate) fn write_bundle(directory: &Path, seed: u64) {
    let mut weights = Weights(ChaCha8Rng::seed_from_u64(seed));
    for part in ["llm", "slm"] {
        let part = directory.join(part);
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("config.json"), config().to_json()).unwrap();
        weights.write(&part.join("model.safetensors"), &config().tensor_shapes());
        tokenizer().save(part.join("tokenizer.json"), false).unwrap();
    }
    fs::create_dir(directory.join("projector")).unwrap();
    weights.write(&directory.join("projector/model.safetensors"), &projector_tensors());
    write_manifest(directory, manifest()).unwrap();
}

/// Writes a bundle whose LLM reads with four blocks of its five, and whose projector mixes layers of them.
#[allow(dead_code, reason = "each test binary uses a part of this file")]
pub(crate) fn write_deep_bundle(directory: &Path, seed: u64) {
    write_bundle(directory, seed);
    let config = ModelConfig { num_hidden_layers: 5, ..config() };
    fs::write(directory.join("llm/config.json"), config.to_json()).unwrap();
    let mut weights = Weights(ChaCha8Rng::seed_from_u64(seed + 1));
    weights.write(&directory.join("llm/model.safetensors"), &config.tensor_shapes());
    let mut tensors = projector_tensors();
    tensors.push(("projector.mix".to_owned(), vec![3]));
    weights.write(&directory.join("projector/model.safetensors"), &tensors);
    let shallow = manifest();
    let (mut llm, mut projector) = (shallow.llm.clone().unwrap(), shallow.projector.clone().unwrap());
    llm.layers = 4;
    projector.mixed_layers = vec![1, 2];
    let manifest = BundleManifest { llm: Some(llm), projector: Some(projector), ..shallow };
    write_manifest(directory, manifest).unwrap();
}

fn projector_tensors() -> Vec<(String, Vec<usize>)> {
    let layers = ["projector.input", "projector.output", "prompt_embedding.map"];
    let tensors = layers.map(|layer| {
        [(format!("{layer}.weight"), vec![WIDTH, WIDTH]), (format!("{layer}.bias"), vec![WIDTH])]
    });
    tensors.as_flattened().to_vec()
}

/// Writes a bundle of an LLM and a small model of other tokens, aligned by characters. A new projector's last
/// layer is zero.
#[allow(dead_code, reason = "each test binary uses a part of this file")]
pub(crate) fn write_aligned_bundle(directory: &Path, seed: u64, is_new: bool) {
    write_bundle(directory, seed);
    fs::remove_dir_all(directory.join("slm")).unwrap();
    write_small_model(&directory.join("slm"), seed + 1);
    let layers = ["projector.input", "projector.output"].map(|layer| {
        [(format!("{layer}.weight"), vec![WIDTH, WIDTH]), (format!("{layer}.bias"), vec![WIDTH])]
    });
    let mut weights = Weights(ChaCha8Rng::seed_from_u64(seed + 2));
    let draw = |(name, shape): &(String, Vec<usize>)| match is_new && name.starts_with("projector.output") {
        true => vec![0; 4 * shape.iter().product::<usize>()],
        false => weights.draw(name, shape),
    };
    let bytes: Vec<Vec<u8>> = layers.as_flattened().iter().map(draw).collect();
    write_f32(&directory.join("projector/model.safetensors"), layers.as_flattened(), &bytes);
    let by_tokens = manifest();
    let (mut projector, mut slm) = (by_tokens.projector.clone().unwrap(), by_tokens.slm.clone().unwrap());
    projector.prompt_embedding = PromptEmbeddingSource::Slm;
    slm.family = Family::T5;
    slm.vocab_size = small_config().vocab_size;
    slm.templates = BTreeMap::from([("default".to_owned(), format!("{{text}}{END}"))]);
    let manifest = BundleManifest {
        projector: Some(projector),
        slm: Some(slm),
        alignment: Alignment::Characters,
        modes: vec![Mode::Hybrid, Mode::Slm],
        generation: BTreeMap::new(),
        ..by_tokens
    };
    write_manifest(directory, manifest).unwrap();
}

/// Writes a T5 in the Hugging Face layout. Its tokenizer merges some bytes and ends every text with `</s>`.
#[allow(dead_code, reason = "each test binary uses a part of this file")]
pub(crate) fn write_small_model(directory: &Path, seed: u64) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("config.json"), small_config().to_json()).unwrap();
    let mut weights = Weights(ChaCha8Rng::seed_from_u64(seed));
    weights.write(&directory.join("model.safetensors"), &small_config().tensor_shapes());
    let mut tokenizer = byte_tokenizer(&MERGES);
    let end = tokenizer.token_to_id(END).unwrap();
    let mut ended = TemplateProcessing::builder();
    ended.try_single(format!("$A {END}")).unwrap().special_tokens(vec![(END, end)]);
    tokenizer.with_post_processor(Some(ended.build().unwrap()));
    tokenizer.save(directory.join("tokenizer.json"), false).unwrap();
}

/// Writes an opus-mt with several target languages in a hub's form: two SentencePiece models, `vocab.json`.
#[allow(dead_code, reason = "each test binary uses a part of this file")]
pub(crate) fn write_marian(directory: &Path, seed: u64) {
    let crates = workspace();
    let (files, models) =
        (crates.join("import/tests/fixtures/marian"), crates.join("bundle/tests/fixtures/sentencepiece"));
    fs::create_dir_all(directory).unwrap();
    for (from, to) in [
        (files.join("vocab.json"), "vocab.json"),
        (files.join("tokenizer_config.json"), "tokenizer_config.json"),
        (models.join("unigram.spm"), "source.spm"),
        (models.join("bpe-plain.spm"), "target.spm"),
    ] {
        fs::copy(from, directory.join(to)).unwrap();
    }
    let ids: BTreeMap<String, usize> =
        serde_json::from_slice(&fs::read(directory.join("vocab.json")).unwrap()).unwrap();
    let (pad, inner) = (ids["<pad>"], 2 * WIDTH);
    let config = serde_json::json!({
        "model_type": "marian", "d_model": WIDTH, "vocab_size": pad + 1, "encoder_layers": 2,
        "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": inner, "decoder_ffn_dim": inner, "activation_function": "swish",
        "scale_embedding": true, "static_position_embeddings": true, "normalize_before": false,
        "max_position_embeddings": 512, "max_length": 512, "eos_token_id": 0, "forced_eos_token_id": 0,
        "pad_token_id": pad, "decoder_start_token_id": pad, "bad_words_ids": [[pad]],
        "share_encoder_decoder_embeddings": true, "decoder_vocab_size": pad + 1,
    });
    write_model(directory, &config, seed);
}

/// Writes an NLLB-200 in a hub's form, with the tokens of its 202 languages.
#[allow(dead_code, reason = "each test binary uses a part of this file")]
pub(crate) fn write_nllb(directory: &Path, seed: u64) {
    let files = workspace().join("import/tests/fixtures/nllb");
    fs::create_dir_all(directory).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(files.join(name), directory.join(name)).unwrap();
    }
    let inner = 2 * WIDTH;
    let config = serde_json::json!({
        "model_type": "m2m_100", "d_model": WIDTH, "vocab_size": 1704, "encoder_layers": 2,
        "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": inner, "decoder_ffn_dim": inner, "activation_function": "relu",
        "scale_embedding": true, "max_position_embeddings": 512, "max_length": 200, "bos_token_id": 0,
        "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    });
    write_model(directory, &config, seed);
}

/// The directory of the workspace, in which the crate of this test lies.
fn workspace() -> &'static Path {
    let is_workspace = |directory: &&Path| directory.join("Cargo.lock").exists();
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(is_workspace).unwrap()
}

/// Writes the settings of an encoder-decoder, and random weights.
fn write_model(directory: &Path, config: &serde_json::Value, seed: u64) {
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let shapes = ModelConfig::read(&directory.join("config.json")).unwrap().tensor_shapes();
    let mut weights = Weights(ChaCha8Rng::seed_from_u64(seed));
    // Without biases and with norms of either sign, the output depends on the earlier output.
    let draw = |(name, shape): &(String, Vec<usize>)| match name {
        name if name.ends_with("bias") => vec![0; 4 * shape.iter().product::<usize>()],
        name if name.contains("norm") => weights.uniform(2.0, shape),
        _ => weights.uniform(SPREAD, shape),
    };
    let bytes: Vec<Vec<u8>> = shapes.iter().map(draw).collect();
    write_f32(&directory.join("model.safetensors"), &shapes, &bytes);
}

fn small_config() -> ModelConfig {
    ModelConfig {
        num_key_value_heads: 4,
        vocab_size: VOCAB_SIZE + MERGES.len(),
        family: FamilyConfig::T5(T5Config {
            num_decoder_layers: 2,
            layer_norm_epsilon: 1e-6,
            relative_attention_num_buckets: 8,
            relative_attention_max_distance: 16,
            feed_forward_proj: T5FeedForward::GatedGelu,
            scale_decoder_outputs: true,
        }),
        ..config()
    }
}

struct Weights(ChaCha8Rng);

/// The largest magnitude of a matrix's numbers.
const SPREAD: f32 = 0.4;

impl Weights {
    fn write(&mut self, path: &Path, tensors: &[(String, Vec<usize>)]) {
        let bytes: Vec<Vec<u8>> = tensors.iter().map(|(name, shape)| self.draw(name, shape)).collect();
        write_f32(path, tensors, &bytes);
    }

    /// Uniform, with a spread that keeps the tiny model's logits far apart; norms are 1.
    fn draw(&mut self, name: &str, shape: &[usize]) -> Vec<u8> {
        match name.contains("norm") {
            true => 1.0_f32.to_le_bytes().repeat(shape.iter().product()),
            false => self.uniform(SPREAD, shape),
        }
    }

    /// Numbers between `-spread` and `spread`.
    fn uniform(&mut self, spread: f32, shape: &[usize]) -> Vec<u8> {
        let num_values: usize = shape.iter().product();
        let mut value = || self.0.random_range(-spread..spread);
        (0..num_values).flat_map(|_| value().to_le_bytes()).collect()
    }
}

fn write_f32(path: &Path, tensors: &[(String, Vec<usize>)], bytes: &[Vec<u8>]) {
    let views = tensors.iter().zip(bytes).map(|((name, shape), bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: WIDTH,
        intermediate_size: 2 * WIDTH,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: WIDTH / 4,
        vocab_size: VOCAB_SIZE,
        max_position_embeddings: 256,
        tie_word_embeddings: true,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Decoder(DecoderConfig::llama(1e-5, 10_000.0)),
    }
}

fn tokenizer() -> Tokenizer {
    byte_tokenizer(&[])
}

/// Bytes, and pairs of bytes that are one token.
fn byte_tokenizer(merges: &[(&str, &str)]) -> Tokenizer {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort_unstable();
    let tokens = SPECIAL_TOKENS.map(str::to_owned).into_iter().chain(bytes.into_iter().map(String::from));
    let tokens = tokens.chain(merges.iter().map(|(left, right)| format!("{left}{right}")));
    let vocab: Vocab = tokens.zip(0..).collect();
    let merges = merges.iter().map(|(left, right)| ((*left).to_owned(), (*right).to_owned())).collect();
    let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(vocab, merges).build().unwrap());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let special = SPECIAL_TOKENS.map(|token| AddedToken::from(token, true).normalized(false));
    tokenizer.add_special_tokens(special).unwrap();
    tokenizer
}

fn manifest() -> BundleManifest {
    let part = |path: &str| PartOrigin {
        path: path.to_owned(),
        licence: "Apache-2.0".to_owned(),
        origin: "drawn by a test".to_owned(),
    };
    BundleManifest {
        format: MANIFEST_FORMAT,
        name: "tiny".to_owned(),
        task: Task::Translation { source: "en".to_owned(), target: "it".to_owned() },
        llm: Some(LlmPart {
            family: Family::Llama,
            layers: 1,
            d_model: WIDTH,
            vocab_size: VOCAB_SIZE,
            writer: Some(LlmWriter {
                prompt_end: BEGIN.to_owned(),
                eos_token: END.to_owned(),
                max_new_tokens: MAX_NEW_TOKENS,
            }),
            adapter: None,
        }),
        projector: Some(ProjectorPart {
            d_llm: WIDTH,
            d_slm: WIDTH,
            input_norm: InputNorm::Rms,
            prompt_embedding: PromptEmbeddingSource::Llm,
            mixed_layers: Vec::new(),
            depth: ProjectorPart::USUAL_DEPTH,
            blocks: 0,
        }),
        slm: Some(SlmPart {
            family: Family::Llama,
            d_model: WIDTH,
            vocab_size: VOCAB_SIZE,
            prompt_attention: PromptAttention::Bidirectional,
            bos_token: BEGIN.to_owned(),
            eos_token: END.to_owned(),
            templates: BTreeMap::new(),
            languages: None,
            tokenizer: SlmTokenizer::Json,
        }),
        fusion: Some(Fusion::Add),
        alignment: Alignment::Tokens,
        modes: vec![Mode::Hybrid, Mode::Llm, Mode::Verified],
        templates: BTreeMap::from([("default".to_owned(), format!("{BEGIN}{{text}}{END}"))]),
        generation: [Mode::Hybrid, Mode::Llm, Mode::Verified].map(|mode| (mode, as_written())).into(),
        quality: BTreeMap::new(),
        limits: Limits {
            max_prompt_tokens: MAX_PROMPT_TOKENS,
            max_new_tokens: MAX_NEW_TOKENS,
            max_slm_prompt_tokens: None,
        },
        parts: ["llm", "projector", "slm"].map(part).to_vec(),
        training: serde_json::Map::new(),
        files: BTreeMap::new(),
    }
}

/// Proposes that no output is decoded twice: those of random weights have flaws, and mending them takes long.
fn as_written() -> GenerationLayer {
    GenerationLayer { retry_beams: Setting::To(0), ..GenerationLayer::default() }
}
