//! From master weights to a bundle on disk.

use std::{collections::BTreeMap, fs, path::Path};

use baton_bundle::{
    BundleManifest, InputNorm, Limits, LlmPart, MANIFEST_FORMAT, ModelConfig, PartOrigin, ProjectorPart,
    PromptEmbeddingSource, SlmPart, write_manifest,
};
use baton_job::Mode;
use baton_model::write_safetensors;
use serde_json::json;
use tch::Kind;

use crate::{
    Reads, TrainConfig, TrainError,
    checkpoint::BestValidation,
    slm_tokenizer::{BOS_TOKEN, EOS_TOKEN},
    states::write_atomically,
    weights::{Weights, belongs_to_projector, reads_prompt_embedding},
};

/// What goes into a bundle.
pub(crate) struct Export<'a> {
    pub(crate) config: &'a TrainConfig,
    pub(crate) slm_config: &'a ModelConfig,
    pub(crate) weights: &'a Weights,
    /// The small model's `tokenizer.json`.
    pub(crate) tokenizer: &'a Path,
    pub(crate) directory: &'a Path,
    pub(crate) best: BestValidation,
    pub(crate) train_pairs: usize,
    pub(crate) train_seconds: f64,
}

/// Writes a bundle: trained parts in bf16, the LLM as a symbolic link to where it was read from.
pub(crate) fn write_bundle(export: &Export<'_>) -> Result<(), TrainError> {
    let Export { config, slm_config, weights, directory, .. } = export;
    let (projector, slm) = (directory.join("projector"), directory.join("slm"));
    for part in [&projector, &slm] {
        fs::create_dir_all(part).map_err(TrainError::io("create", part))?;
    }
    let (projector_weights, slm_weights): (Weights, Weights) = weights
        .iter()
        .map(|(name, w)| (name.clone(), w.shallow_clone()))
        .partition(|(name, _)| belongs_to_projector(name));
    write_safetensors(&projector.join("model.safetensors"), &projector_weights, Kind::BFloat16)?;
    write_safetensors(&slm.join("model.safetensors"), &slm_weights, Kind::BFloat16)?;
    write_atomically(&slm.join("config.json"), slm_config.to_json().as_bytes())?;
    let tokenizer = fs::read(export.tokenizer).map_err(TrainError::io("read", export.tokenizer))?;
    write_atomically(&slm.join("tokenizer.json"), &tokenizer)?;

    let llm = directory.join("llm");
    let target = config.llm.canonicalize().map_err(TrainError::io("read", &config.llm))?;
    if llm.symlink_metadata().is_ok() {
        fs::remove_file(&llm).map_err(TrainError::io("replace", &llm))?;
    }
    std::os::unix::fs::symlink(&target, &llm).map_err(TrainError::io("write", &llm))?;

    write_manifest(directory, manifest(export)?)?;
    Ok(())
}

fn manifest(export: &Export<'_>) -> Result<BundleManifest, TrainError> {
    let Export { config, slm_config, .. } = export;
    let llm_config = ModelConfig::read(&config.llm.join("config.json"))?;
    let identity = &config.bundle;
    let origin = |path: &str, licence: &str, origin: &str| PartOrigin {
        path: path.into(),
        licence: licence.into(),
        origin: origin.into(),
    };
    let mode = match config.reads {
        Reads::Hybrid => Mode::Hybrid,
        Reads::Slm => Mode::Slm,
    };
    let prompt_embedding =
        if reads_prompt_embedding(config) { PromptEmbeddingSource::Llm } else { PromptEmbeddingSource::None };
    let rounded = |loss: f64| (loss * 1e4).round() / 1e4;
    let training = json!({
        "data": identity.data_origin,
        "pairs": export.train_pairs,
        "hyperparameters": config.hyperparameters,
        "steps_of_best": export.best.step,
        "validation_loss_nats_per_token": rounded(export.best.loss),
        "validation_loss_nats_per_byte": rounded(export.best.loss_per_byte),
        "train_seconds": export.train_seconds.round(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(BundleManifest {
        format: MANIFEST_FORMAT,
        name: identity.name.clone(),
        task: identity.task.clone(),
        llm: LlmPart {
            family: llm_config.family(),
            layers: config.llm_layer,
            d_model: llm_config.hidden_size,
            vocab_size: llm_config.vocab_size,
            writer: None,
        },
        projector: Some(ProjectorPart {
            d_llm: llm_config.hidden_size,
            d_slm: slm_config.hidden_size,
            input_norm: InputNorm::Rms,
            prompt_embedding,
        }),
        slm: Some(SlmPart {
            family: slm_config.family(),
            d_model: slm_config.hidden_size,
            vocab_size: slm_config.vocab_size,
            prompt_attention: config.prompt_attention,
            bos_token: BOS_TOKEN.into(),
            eos_token: EOS_TOKEN.into(),
        }),
        fusion: Some(config.fusion),
        modes: vec![mode],
        templates: BTreeMap::from([(baton_bundle::DEFAULT_TEMPLATE.to_owned(), config.template.clone())]),
        limits: Limits {
            max_prompt_tokens: config.max_prompt_tokens,
            max_new_tokens: config.max_response_tokens,
        },
        parts: vec![
            origin("llm", &identity.llm_licence, &identity.llm_origin),
            origin("projector", &identity.licence, &identity.data_origin),
            origin("slm", &identity.licence, &identity.data_origin),
        ],
        training: training.as_object().expect("an object was just built").clone(),
        files: BTreeMap::new(),
    })
}
