//! Tiny checkpoints and bundles for the tests of this crate: a Llama of two layers with known weights.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use baton_bundle::{
    Alignment, BundleManifest, DecoderConfig, Family, FamilyConfig, Fusion, InputNorm, Limits, LlmPart,
    LlmWriter, ModelConfig, OutputRules, PartOrigin, ProjectorPart, PromptAttention, PromptEmbeddingSource,
    SlmPart, SlmTokenizer, Task, WeightDtype, write_manifest,
};
use baton_job::Mode;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

pub(crate) const SPECIAL_TOKENS: [&str; 3] = ["<|im_start|>", "<|im_end|>", "</s>"];
pub(crate) const VOCAB_SIZE: usize = SPECIAL_TOKENS.len() + 256 + 2;

/// The vocabulary of every tiny tokenizer: special tokens, the 256 bytes, and two merged pieces.
pub(crate) fn vocabulary() -> Vec<String> {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort_unstable();
    let special = SPECIAL_TOKENS.map(str::to_owned);
    special.into_iter().chain(bytes.into_iter().map(String::from)).chain(merged_pieces()).collect()
}

pub(crate) fn merged_pieces() -> [String; 2] {
    ["Ġ1".to_owned(), "12".to_owned()]
}

pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        vocab_size: VOCAB_SIZE,
        max_position_embeddings: 64,
        tie_word_embeddings: true,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Decoder(DecoderConfig::llama(1e-5, 10_000.0)),
    }
}

/// Distinct values: element `i` of the `n`-th tensor.
pub(crate) fn values(tensor_number: usize, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|i| tensor_number as f32 + i as f32 / 1024.0).collect()
}

pub(crate) fn write_tensors(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .enumerate()
        .map(|(number, (_, shape))| values(number, shape).iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

pub(crate) fn tokenizer() -> Tokenizer {
    let vocabulary: Vocab = vocabulary().into_iter().zip(0..).collect();
    let merges = vec![("Ġ".to_owned(), "1".to_owned()), ("1".to_owned(), "2".to_owned())];
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).build().unwrap();
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let special = SPECIAL_TOKENS.map(|token| AddedToken::from(token, true).normalized(false));
    tokenizer.add_special_tokens(special).unwrap();
    tokenizer
}

/// Writes a checkpoint in the Hugging Face layout.
pub(crate) fn write_checkpoint(directory: &Path, config: &ModelConfig) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("config.json"), config.to_json()).unwrap();
    write_tensors(&directory.join("model.safetensors"), &config.tensor_shapes());
    tokenizer().save(directory.join("tokenizer.json"), true).unwrap();
}

pub(crate) fn projector_tensors(d_llm: usize, d_slm: usize) -> Vec<(String, Vec<usize>)> {
    [("projector.input", d_llm), ("projector.output", d_slm), ("prompt_embedding.map", d_llm)]
        .into_iter()
        .flat_map(|(layer, d_in)| {
            [(format!("{layer}.weight"), vec![d_slm, d_in]), (format!("{layer}.bias"), vec![d_slm])]
        })
        .collect()
}

pub(crate) fn manifest() -> BundleManifest {
    let part = |path: &str| PartOrigin {
        path: path.to_owned(),
        licence: "Apache-2.0".to_owned(),
        origin: "made by a test".to_owned(),
    };
    BundleManifest {
        format: 1,
        name: "tiny".to_owned(),
        task: Task::Translation { source: "en".to_owned(), target: "it".to_owned() },
        llm: Some(LlmPart {
            family: Family::Llama,
            layers: 1,
            d_model: 8,
            vocab_size: VOCAB_SIZE,
            writer: Some(LlmWriter {
                prompt_end: "<|im_start|>1".to_owned(),
                eos_token: "<|im_end|>".to_owned(),
                max_new_tokens: 48,
            }),
            adapter: None,
        }),
        projector: Some(ProjectorPart {
            d_llm: 8,
            d_slm: 8,
            input_norm: InputNorm::Rms,
            prompt_embedding: PromptEmbeddingSource::Llm,
            mixed_layers: Vec::new(),
            depth: ProjectorPart::USUAL_DEPTH,
            blocks: 0,
        }),
        slm: Some(SlmPart {
            family: Family::Llama,
            d_model: 8,
            vocab_size: VOCAB_SIZE,
            prompt_attention: PromptAttention::Bidirectional,
            bos_token: "<|im_start|>".to_owned(),
            eos_token: "<|im_end|>".to_owned(),
            templates: BTreeMap::new(),
            languages: None,
            tokenizer: SlmTokenizer::Json,
        }),
        fusion: Some(Fusion::Add),
        alignment: Alignment::Tokens,
        modes: vec![Mode::Hybrid, Mode::Llm],
        templates: BTreeMap::from([("default".to_owned(), "<|im_start|>{text}<|im_end|>".to_owned())]),
        generation: BTreeMap::new(),
        quality: BTreeMap::new(),
        limits: Limits { max_prompt_tokens: 32, max_new_tokens: 32, max_slm_prompt_tokens: None },
        parts: vec![part("llm"), part("projector"), part("slm")],
        training: serde_json::Map::new(),
        files: BTreeMap::new(),
    }
}

/// The LLM of a manifest that has one.
pub(crate) fn llm(manifest: &mut BundleManifest) -> &mut LlmPart {
    manifest.llm.as_mut().unwrap()
}

/// The parts of a bundle, not sealed yet.
pub(crate) struct TinyBundle {
    directory: tempfile::TempDir,
}

impl TinyBundle {
    pub(crate) fn unsealed() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for part in ["llm", "slm"] {
            write_checkpoint(&directory.path().join(part), &config());
        }
        fs::create_dir(directory.path().join("projector")).unwrap();
        write_tensors(&directory.path().join("projector/model.safetensors"), &projector_tensors(8, 8));
        Self { directory }
    }

    pub(crate) fn sealed() -> Self {
        let bundle = Self::unsealed();
        write_manifest(bundle.path(), manifest()).unwrap();
        bundle
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// The whole chain of an error, as the command line prints it.
pub(crate) fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

pub(crate) fn assert_says(error: &dyn std::error::Error, pieces: &[&str]) {
    let text = message(error);
    for piece in pieces {
        assert!(text.contains(piece), "`{piece}` is not in: {text}");
    }
    assert!(!text.contains('\n'), "more than one line: {text}");
}
