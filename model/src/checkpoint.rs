//! Weights by name: from safetensors files, or from any other [`TensorSource`].
//!
//! Only the tensors that are asked for are read, so an LLM cut at layer 20 never loads layers 21 and up. The
//! file format itself is `baton-bundle`'s.

use std::{collections::BTreeMap, path::Path};

use baton_bundle::{StoredTensor, StoredWeights, WeightDtype};
use tch::{Kind, Tensor};

use crate::{LowRank, ModelError};

/// Gives out tensors by the checkpoint's name. Models are built from one.
///
/// Inference builds from a [`Checkpoint`]; the trainer builds from its f32 master weights at every step, so
/// that gradients flow through the same model code.
pub trait TensorSource {
    /// The tensor called `name`, on any device, in any float type.
    ///
    /// # Errors
    /// The tensor is absent, or has another shape than `shape`.
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError>;

    /// The learned part beside the frozen matrix called `name`. Present only if an adapter is trained.
    fn low_rank(&self, _name: &str) -> Option<LowRank> {
        None
    }
}

impl TensorSource for BTreeMap<String, Tensor> {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let tensor = self.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_owned() })?;
        check_shape(name, shape, &tensor.size())?;
        Ok(tensor.shallow_clone())
    }
}

/// One `model.safetensors` file, with the changes beside it, opened but not loaded.
#[derive(Debug)]
pub struct Checkpoint {
    weights: StoredWeights,
}

impl Checkpoint {
    /// Opens a safetensors file, and `changes.safetensors` beside it if there is one, and checks their
    /// headers.
    ///
    /// # Errors
    /// A file cannot be read or is not a complete safetensors file, or the changes are those of other
    /// weights.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Ok(Self { weights: StoredWeights::open(path)? })
    }
}

impl TensorSource for Checkpoint {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let stored = stored_tensor(&self.weights.read(name)?)?;
        check_shape(name, shape, &stored.size())?;
        Ok(stored)
    }
}

/// The tensor of a file, in the type that it has there.
pub(crate) fn stored_tensor(stored: &StoredTensor) -> Result<Tensor, ModelError> {
    let kind = match stored.dtype {
        WeightDtype::F32 => Kind::Float,
        WeightDtype::Bf16 => Kind::BFloat16,
        WeightDtype::F16 => Kind::Half,
    };
    let shape: Vec<i64> = stored.shape.iter().map(|&size| size as i64).collect();
    Tensor::f_from_data_size(&stored.bytes, &shape, kind)
        .map_err(|source| ModelError::Torch { doing: "copying weights into a tensor", source })
}

fn check_shape(name: &str, expected: &[i64], found: &[i64]) -> Result<(), ModelError> {
    if expected == found {
        return Ok(());
    }
    Err(ModelError::Shape { name: name.to_owned(), expected: expected.to_vec(), found: found.to_vec() })
}

/// Writes named tensors as one safetensors file, converted to `kind`, atomically (a temporary file, then a
/// rename).
///
/// # Errors
/// The directory cannot be written.
pub fn write_safetensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    kind: Kind,
) -> Result<(), ModelError> {
    let converted: Vec<(&str, Tensor)> =
        tensors.iter().map(|(name, t)| (name.as_str(), t.detach().to_kind(kind).contiguous())).collect();
    let write_error = |source| ModelError::Write { path: path.to_owned(), source };
    let temporary = path.with_extension("safetensors.partial");
    Tensor::write_safetensors(&converted, &temporary)
        .map_err(|error| write_error(std::io::Error::other(error)))?;
    std::fs::rename(&temporary, path).map_err(write_error)
}
