//! From a trained LLM to a bundle that serves mode `llm`.

use std::fs;

use baton_bundle::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, LinearLayer, LlmAdapter, LlmPart, LoraShape, ModelConfig, WeightDtype,
    write_manifest,
};
use baton_job::Mode;
use baton_model::write_safetensors;
use tch::Kind;

use crate::{
    TrainConfig, TrainError,
    export::{self, copy},
    learner::Finished,
    states::write_atomically,
};

/// Writes a bundle of an LLM alone: either the LLM as a symbolic link, with the trained `adapter` in bf16 (by
/// its shape and layers), or the whole LLM in bf16.
pub(crate) fn write_bundle(
    config: &TrainConfig,
    llm_config: &ModelConfig,
    adapter: Option<(LoraShape, &[LinearLayer])>,
    finished: &Finished<'_>,
) -> Result<(), TrainError> {
    let directory = |part: &str| -> Result<_, TrainError> {
        let path = finished.bundle.join(part);
        fs::create_dir_all(&path).map_err(TrainError::io("create", &path))?;
        Ok(path)
    };
    match adapter {
        Some((shape, layers)) => {
            let adapter = directory("adapter")?;
            write_safetensors(&adapter.join(ADAPTER_WEIGHTS), finished.weights, Kind::BFloat16)?;
            write_atomically(&adapter.join(ADAPTER_CONFIG), shape.to_json(llm_config, layers).as_bytes())?;
            export::link_llm(config, finished.bundle)?;
        }
        None => {
            let llm = directory("llm")?;
            write_safetensors(&llm.join("model.safetensors"), finished.weights, Kind::BFloat16)?;
            let as_written = ModelConfig { dtype: WeightDtype::Bf16, ..llm_config.clone() };
            write_atomically(&llm.join("config.json"), as_written.to_json().as_bytes())?;
            copy(&config.llm.join("tokenizer.json"), &llm.join("tokenizer.json"))?;
        }
    }
    let trained = if adapter.is_some() { "adapter" } else { "llm" };
    let mut parts = export::origins(config, &[trained]);
    if adapter.is_none() {
        // The published and the learned weights are one file now.
        parts[0].origin = format!("{}; fine-tuned: {}", config.bundle.llm_origin, config.bundle.data_origin);
        parts.truncate(1);
    }
    let llm = LlmPart {
        family: llm_config.family(),
        layers: llm_config.num_hidden_layers,
        d_model: llm_config.hidden_size,
        vocab_size: llm_config.vocab_size,
        writer: Some(config.llm_training().writer()),
        adapter: adapter.map(|_| LlmAdapter { hybrid_reads_it: false }),
    };
    write_manifest(finished.bundle, export::manifest(config, finished, (Some(llm), Mode::Llm, parts)))?;
    Ok(())
}
