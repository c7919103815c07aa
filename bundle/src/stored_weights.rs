//! The weights of a checkpoint on disk: `model.safetensors`, and the changes of training if they are stored
//! apart.
//!
//! A bundle with a published small model can have the published weights unchanged, and `changes.safetensors`
//! beside them. That file has the difference for each changed tensor, under the same name and in the same
//! shape. Every reader of weights gets the sum.

use std::path::Path;

use crate::{BundleError, SafetensorsFile, StoredTensor, WeightDtype};

/// Name of the file with the changes, beside the weights.
pub(crate) const CHANGES_FILE: &str = "changes.safetensors";

/// Weights, opened but not read.
#[derive(Debug)]
pub struct StoredWeights {
    weights: SafetensorsFile,
    changes: Option<SafetensorsFile>,
}

impl StoredWeights {
    /// Opens a `model.safetensors`, and the changes beside it.
    ///
    /// # Errors
    /// A file cannot be read or is not a complete safetensors file. Or the changes have a tensor that the
    /// weights lack or have in another shape.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let weights = SafetensorsFile::open(path)?;
        let changes_path = path.with_file_name(CHANGES_FILE);
        let changes = changes_path.exists().then(|| SafetensorsFile::open(&changes_path)).transpose()?;
        for name in changes.iter().flat_map(SafetensorsFile::names) {
            let shape_in = |file: &SafetensorsFile| file.info(&name).map(|info| info.shape.clone());
            let (found, expected) = (changes.as_ref().and_then(shape_in), shape_in(&weights));
            if found != expected {
                let expected = expected.map_or("no such tensor".to_owned(), |shape| format!("{shape:?}"));
                let problem = format!(
                    "changes one of shape {:?}, but {} has {expected}; these changes belong to other weights",
                    found.unwrap_or_default(),
                    path.display(),
                );
                return Err(BundleError::Tensor { path: changes_path, tensor: name, problem });
            }
        }
        Ok(Self { weights, changes })
    }

    /// Reads one floating-point tensor: in its stored type, or in f32 if it was changed.
    ///
    /// # Errors
    /// As [`SafetensorsFile::read`].
    pub fn read(&self, name: &str) -> Result<StoredTensor, BundleError> {
        let stored = self.weights.read(name)?;
        let Some(changes) = self.changes.as_ref().filter(|changes| changes.info(name).is_some()) else {
            return Ok(stored);
        };
        let sums =
            stored.to_f32().into_iter().zip(changes.read_f32(name)?).map(|(before, change)| before + change);
        let bytes = sums.flat_map(f32::to_le_bytes).collect();
        Ok(StoredTensor { dtype: WeightDtype::F32, shape: stored.shape, bytes })
    }
}
