//! The weights of a checkpoint on disk: `model.safetensors`, and the changes of training if they are stored
//! apart.
//!
//! A bundle with a published small model can have the published weights unchanged, and `changes.safetensors`
//! beside them. That file has the difference for each changed tensor, under the same name and in the same
//! shape. Or it has two factors whose product is the difference: `NAME.left` `[rows, rank]` and `NAME.right`
//! `[rank, columns]`. Every reader of weights gets the sum.

use std::path::Path;

use crate::low_rank::product;
use crate::{BundleError, SafetensorsFile, StoredTensor, WeightDtype};

/// Name of the file with the changes, beside the weights.
pub(crate) const CHANGES_FILE: &str = "changes.safetensors";

const LEFT_SUFFIX: &str = ".left";
const RIGHT_SUFFIX: &str = ".right";

/// Names of the factors of a matrix's difference.
pub(crate) fn factor_names(matrix: &str) -> [String; 2] {
    [LEFT_SUFFIX, RIGHT_SUFFIX].map(|suffix| format!("{matrix}{suffix}"))
}

/// The tensor that an entry of the changes belongs to, and the shape of its difference. A factor without a
/// fitting other one stands for itself, and so names no tensor of the weights.
fn changed(changes: &SafetensorsFile, entry: &str) -> (String, Vec<usize>) {
    let matrix = [LEFT_SUFFIX, RIGHT_SUFFIX].iter().find_map(|suffix| entry.strip_suffix(suffix));
    let shape_of = |name: &str| changes.info(name).map(|info| info.shape.as_slice());
    if let Some(matrix) = matrix {
        let [left, right] = factor_names(matrix);
        if let (Some(&[rows, left_rank]), Some(&[right_rank, columns])) = (shape_of(&left), shape_of(&right))
            && left_rank == right_rank
        {
            return (matrix.to_owned(), vec![rows, columns]);
        }
    }
    (entry.to_owned(), shape_of(entry).unwrap_or_default().to_vec())
}

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
        if let Some(changes) = &changes {
            for entry in changes.names() {
                let (name, found) = changed(changes, &entry);
                let expected = weights.info(&name).map(|info| &info.shape);
                if expected != Some(&found) {
                    let expected = expected.map_or("no such tensor".to_owned(), |shape| format!("{shape:?}"));
                    let problem = format!(
                        "changes one of shape {found:?}, but {} has {expected}; these changes belong to \
                         other weights",
                        path.display(),
                    );
                    return Err(BundleError::Tensor { path: changes_path, tensor: name, problem });
                }
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
        let Some(changes) = self.change(name)? else { return Ok(stored) };
        let sums = stored.to_f32().into_iter().zip(changes).map(|(before, change)| before + change);
        let bytes = sums.flat_map(f32::to_le_bytes).collect();
        Ok(StoredTensor { dtype: WeightDtype::F32, shape: stored.shape, bytes })
    }

    /// The change of one tensor by training, if it has one.
    fn change(&self, name: &str) -> Result<Option<Vec<f32>>, BundleError> {
        let Some(changes) = &self.changes else { return Ok(None) };
        let [left, right] = factor_names(name);
        if let Some(&[_, rank]) = changes.info(&left).map(|info| info.shape.as_slice()) {
            return Ok(Some(product(&changes.read_f32(&left)?, &changes.read_f32(&right)?, rank)));
        }
        changes.info(name).map(|_| changes.read_f32(name)).transpose()
    }
}
