//! From master weights to a bundle on disk.

use std::{collections::BTreeMap, fs, path::Path};

use baton_bundle::{
    Alignment, BundleManifest, LlmAdapter, LlmPart, MANIFEST_FORMAT, ModelConfig, PartOrigin, SlmPart,
    SlmTokenizer, TextTokenizer, adapter_files, write_manifest,
};
use baton_job::Mode;
use baton_model::write_safetensors;
use serde_json::json;
use tch::Kind;

use crate::{
    Reads, TrainConfig, TrainError,
    learner::Finished,
    own_tokens::OwnTokens,
    states::write_atomically,
    weights::{Weights, belongs_to_projector},
};

/// Writes a bundle: trained parts in bf16, the LLM as a symbolic link to its source, and the adapter that it
/// was read with.
pub(crate) fn write_bundle(
    config: &TrainConfig,
    (slm_config, own_tokens): (&ModelConfig, Option<&OwnTokens>),
    finished: &Finished<'_>,
) -> Result<(), TrainError> {
    let directory = finished.bundle;
    let [projector, slm] = ["projector", "slm"].map(|part| directory.join(part));
    fs::create_dir_all(&slm).map_err(TrainError::io("create", &slm))?;
    let (projector_weights, slm_weights): (Weights, Weights) = finished
        .weights
        .iter()
        .map(|(name, w)| (name.clone(), w.shallow_clone()))
        .partition(|(name, _)| belongs_to_projector(name));
    if !projector_weights.is_empty() {
        fs::create_dir_all(&projector).map_err(TrainError::io("create", &projector))?;
        write_safetensors(&projector.join("model.safetensors"), &projector_weights, Kind::BFloat16)?;
    }
    write_safetensors(&slm.join("model.safetensors"), &slm_weights, Kind::BFloat16)?;
    write_atomically(&slm.join("config.json"), slm_config.to_json().as_bytes())?;
    match own_tokens {
        Some(own) => own.copy_tokenizer(&slm)?,
        None => copy(&finished.run.join("tokenizer.json"), &slm.join("tokenizer.json"))?,
    }
    if config.has_llm() {
        link_llm(config, directory)?;
    }
    if let Some(from) = read_adapter(config) {
        let to = directory.join("adapter");
        fs::create_dir_all(&to).map_err(TrainError::io("create", &to))?;
        for (from, to) in adapter_files(from).iter().zip(&adapter_files(&to)) {
            copy(from, to)?;
        }
    }
    let manifest = match own_tokens {
        Some(own) => own_tokens_manifest(config, own, finished)?,
        None => slm_manifest(config, slm_config, finished)?,
    };
    write_manifest(directory, manifest)?;
    Ok(())
}

/// The adapter that took part.
fn read_adapter(config: &TrainConfig) -> Option<&Path> {
    config.llm_adapter.as_deref().filter(|_| config.reads == Reads::Hybrid)
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), TrainError> {
    write_atomically(to, &fs::read(from).map_err(TrainError::io("read", from))?)
}

/// Links `llm` in `directory` to the LLM that was read.
pub(crate) fn link_llm(config: &TrainConfig, directory: &Path) -> Result<(), TrainError> {
    let llm = directory.join("llm");
    let target = config.llm.canonicalize().map_err(TrainError::io("read", &config.llm))?;
    if llm.symlink_metadata().is_ok() {
        fs::remove_file(&llm).map_err(TrainError::io("replace", &llm))?;
    }
    std::os::unix::fs::symlink(&target, &llm).map_err(TrainError::io("write", &llm))
}

/// Licence and origin of the LLM and of the `trained` parts.
pub(crate) fn origins(config: &TrainConfig, trained: &[&str]) -> Vec<PartOrigin> {
    let identity = &config.bundle;
    let origin = |path: &str, licence: &str, origin: &str| PartOrigin {
        path: path.into(),
        licence: licence.into(),
        origin: origin.into(),
    };
    let llm = origin("llm", &identity.llm_licence, &identity.llm_origin);
    let trained = trained.iter().map(|path| origin(path, &identity.licence, &identity.data_origin));
    std::iter::once(llm).chain(trained).collect()
}

/// The LLM as the small model reads it.
fn llm_part(config: &TrainConfig, llm: &ModelConfig) -> LlmPart {
    LlmPart {
        family: llm.family(),
        layers: config.llm_layer,
        d_model: llm.hidden_size,
        vocab_size: llm.vocab_size,
        writer: None,
        adapter: read_adapter(config).map(|_| LlmAdapter { hybrid_reads_it: true }),
    }
}

fn trained_parts(config: &TrainConfig) -> &'static [&'static str] {
    match read_adapter(config) {
        Some(_) => &["adapter", "projector", "slm"],
        None => &["projector", "slm"],
    }
}

fn own_tokens_manifest(
    config: &TrainConfig,
    own: &OwnTokens,
    finished: &Finished<'_>,
) -> Result<BundleManifest, TrainError> {
    match config.has_llm() {
        true => {
            let llm = ModelConfig::read(&config.llm.join("config.json"))?;
            Ok(own.manifest(config, Some(llm_part(config, &llm)), finished, trained_parts(config)))
        }
        false => Ok(own.manifest(config, None, finished, &["slm"])),
    }
}

fn slm_manifest(
    config: &TrainConfig,
    slm_config: &ModelConfig,
    finished: &Finished<'_>,
) -> Result<BundleManifest, TrainError> {
    let llm_config = ModelConfig::read(&config.llm.join("config.json"))?;
    let mode = match config.reads {
        Reads::Hybrid => Mode::Hybrid,
        Reads::Slm => Mode::Slm,
    };
    let tokenizer_path = finished.run.join("tokenizer.json");
    let tokenizer = TextTokenizer::open(&tokenizer_path)?;
    let token = |id: Option<u32>| {
        let token = id.and_then(|id| tokenizer.token(id));
        token.ok_or_else(|| TrainError::Tokenizer(format!("{} lacks token {id:?}", tokenizer_path.display())))
    };
    let llm = llm_part(config, &llm_config);
    let trained = trained_parts(config);
    Ok(BundleManifest {
        projector: Some(config.projector(llm_config.hidden_size, slm_config.hidden_size)),
        slm: Some(SlmPart {
            family: slm_config.family(),
            d_model: slm_config.hidden_size,
            vocab_size: slm_config.vocab_size,
            prompt_attention: config.prompt_attention,
            bos_token: token(slm_config.bos_token_id)?,
            eos_token: token(slm_config.eos_token_ids.first().copied())?,
            templates: BTreeMap::new(),
            languages: None,
            tokenizer: SlmTokenizer::Json,
        }),
        fusion: Some(config.fusion),
        ..manifest(config, finished, (Some(llm), mode, origins(config, trained)))
    })
}

/// The common parts of all runs' manifests: a bundle with an LLM, still without a small model.
pub(crate) fn manifest(
    config: &TrainConfig,
    finished: &Finished<'_>,
    (llm, mode, parts): (Option<LlmPart>, Mode, Vec<PartOrigin>),
) -> BundleManifest {
    let identity = &config.bundle;
    let rounded = |loss: f64| (loss * 1e4).round() / 1e4;
    let training = json!({
        "data": identity.data_origin,
        "pairs": finished.train_pairs,
        "hyperparameters": config.hyperparameters,
        "steps_of_best": finished.best.step,
        "validation_loss_nats_per_token": rounded(finished.best.loss),
        "validation_loss_nats_per_byte": rounded(finished.best.loss_per_byte),
        "train_seconds": finished.train_seconds.round(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    BundleManifest {
        format: MANIFEST_FORMAT,
        name: identity.name.clone(),
        task: identity.task.clone(),
        llm,
        projector: None,
        slm: None,
        fusion: None,
        alignment: Alignment::Tokens,
        modes: vec![mode],
        templates: BTreeMap::from([(baton_bundle::DEFAULT_TEMPLATE.to_owned(), config.template.clone())]),
        generation: identity.generation.clone().into_iter().filter(|(of, _)| *of == mode).collect(),
        quality: BTreeMap::new(),
        limits: config.limits(),
        parts,
        training: training.as_object().expect("an object was just built").clone(),
        files: BTreeMap::new(),
    }
}
