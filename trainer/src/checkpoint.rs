//! A run's state on disk: weights, moments, step and best validation loss.
//!
//! A checkpoint is a directory that appears by rename when it is complete; the one before it is deleted after
//! that. So a run that is killed at any moment finds one whole checkpoint.

use std::{
    fs,
    path::{Path, PathBuf},
};

use baton_model::{Checkpoint, write_safetensors};
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::{TrainError, optimizer::AdamW, states::write_atomically, weights::Weights};

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// Steps done.
    pub(crate) step: usize,
    /// Lowest validation loss so far.
    pub(crate) best: Option<BestValidation>,
    /// Seconds of training over all sessions of the run.
    pub(crate) train_seconds: f64,
}

/// The best validation of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct BestValidation {
    pub(crate) step: usize,
    /// Nats per token.
    pub(crate) loss: f64,
    /// Nats per byte of target text.
    pub(crate) loss_per_byte: f64,
}

const PREFIX: &str = "checkpoint-";

/// Saves a checkpoint into `run_directory` and deletes older ones.
pub(crate) fn save(
    run_directory: &Path,
    state: &RunState,
    weights: &Weights,
    optimizer: &AdamW,
) -> Result<(), TrainError> {
    let path = run_directory.join(format!("{PREFIX}{:08}", state.step));
    if path.exists() {
        return Ok(());
    }
    let partial = run_directory.join("partial-checkpoint");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(TrainError::io("create", &partial))?;
    write_safetensors(&partial.join("weights.safetensors"), weights, Kind::Float)?;
    write_safetensors(&partial.join("first_moments.safetensors"), &optimizer.first_moments, Kind::Float)?;
    write_safetensors(&partial.join("second_moments.safetensors"), &optimizer.second_moments, Kind::Float)?;
    let state_json = serde_json::to_vec_pretty(state).expect("a run state is plain data");
    write_atomically(&partial.join("state.json"), &state_json)?;
    fs::rename(&partial, &path).map_err(TrainError::io("write", &path))?;
    for older in checkpoints(run_directory)?.into_iter().filter(|p| *p != path) {
        fs::remove_dir_all(&older).map_err(TrainError::io("delete", &older))?;
    }
    Ok(())
}

/// Loads the newest checkpoint into `weights` and `optimizer`, or reports that there is none.
pub(crate) fn load_newest(
    run_directory: &Path,
    weights: &mut Weights,
    optimizer: &mut AdamW,
) -> Result<Option<RunState>, TrainError> {
    let Some(path) = checkpoints(run_directory)?.pop() else { return Ok(None) };
    let state_path = path.join("state.json");
    let bytes = fs::read(&state_path).map_err(TrainError::io("read", &state_path))?;
    let state: RunState = serde_json::from_slice(&bytes).map_err(|e| TrainError::Io {
        doing: "parse",
        path: state_path,
        source: e.into(),
    })?;
    load_into(&path.join("weights.safetensors"), weights)?;
    load_into(&path.join("first_moments.safetensors"), &mut optimizer.first_moments)?;
    load_into(&path.join("second_moments.safetensors"), &mut optimizer.second_moments)?;
    Ok(Some(state))
}

/// Replaces the values of `weights` by a file's.
pub(crate) fn load_into(path: &Path, weights: &mut Weights) -> Result<(), TrainError> {
    let checkpoint = Checkpoint::open(path)?;
    tch::no_grad(|| {
        for (name, weight) in weights.iter_mut() {
            let stored = baton_model::TensorSource::tensor(&checkpoint, name, &weight.size())?;
            weight.copy_(&stored);
        }
        Ok(())
    })
}

/// Whole checkpoints, oldest first.
fn checkpoints(run_directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found: Vec<PathBuf> = fs::read_dir(run_directory)
        .map_err(TrainError::io("read", run_directory))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(PREFIX)))
        .collect();
    found.sort();
    Ok(found)
}
