//! A smaller copy of a bundle: the small model's matrices in int8, or only the differences to published
//! weights from which training started.
//!
//! An int8 matrix has a scale for each row, so the largest number of a row is 127 steps; see
//! [`crate::SafetensorsFile`]. Embeddings, norms and biases stay unchanged. The difference of a matrix may
//! also be stored as the product of two narrow matrices, which takes less room and loses some of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::file::{io_error, read_bytes, write_atomically};
use crate::low_rank::factors;
use crate::safetensors_file::scales_name;
use crate::stored_weights::factor_names;
use crate::{
    Bundle, BundleError, DirectoryInProgress, SLM_CHANGES, SafetensorsFile, StoredTensor, StoredWeights,
    write_manifest,
};

const SLM_WEIGHTS: &str = "slm/model.safetensors";
/// Steps of the largest number of a row.
const MAX_STEPS: f32 = 127.0;

/// The bundle to copy, its base and the place of the copy.
#[derive(Debug, Clone)]
pub struct CompactOptions {
    /// The bundle.
    pub bundle: PathBuf,
    /// The weights from which training started, if the copy has them and the changes of training beside them.
    pub base: Option<CompactBase>,
    /// The directory to create.
    pub out: PathBuf,
}

/// The weights from which training started.
#[derive(Debug, Clone)]
pub struct CompactBase {
    /// A bundle whose small model has them.
    pub bundle: PathBuf,
    /// The rank of products that replace the differences of matrices, where that takes less room. None stores
    /// whole differences.
    pub rank: Option<usize>,
    /// How much of each difference is kept: 1 is all, less lies between base and trained bundle.
    pub share: f32,
}

/// Makes the copy. Its `llm/` is a link to the bundle's.
///
/// # Errors
/// The bundle or the base cannot be read or was changed, the base's small model is of another shape, or `out`
/// cannot be written.
pub fn compact(options: &CompactOptions) -> Result<Bundle, BundleError> {
    let bundle = Bundle::open(&options.bundle)?;
    let (_, config) = bundle.small_model()?;
    bundle.check_sha256(SLM_WEIGHTS)?;
    let trained = StoredWeights::open(&bundle.path(SLM_WEIGHTS))?;
    let base = options
        .base
        .as_ref()
        .map(|base| Ok::<_, BundleError>((Bundle::open(&base.bundle)?, base)))
        .transpose()?;
    // The published weights: the base's own changes to them are part of the differences.
    let base_weights =
        base.as_ref().map(|(base, _)| SafetensorsFile::open(&base.path(SLM_WEIGHTS))).transpose()?;
    let matrices: BTreeSet<String> =
        config.linear_layers().into_iter().map(|layer| format!("{}.weight", layer.module)).collect();

    let mut tensors = BTreeMap::new();
    for (name, shape) in config.tensor_shapes() {
        let stored = trained.read(&name)?;
        let fits = |found: &StoredTensor, bundle: &Bundle| match found.shape == shape {
            true => Ok(()),
            false => Err(BundleError::Tensor {
                path: bundle.path(SLM_WEIGHTS),
                tensor: name.clone(),
                problem: format!("has shape {:?}, but the other bundle's has {shape:?}", found.shape),
            }),
        };
        fits(&stored, &bundle)?;
        let Some(((base, kept), base_weights)) = base.as_ref().zip(base_weights.as_ref()) else {
            match matrices.contains(&name) {
                true => insert_int8(&mut tensors, &name, &stored.to_f32(), &shape),
                false => drop(tensors.insert(name, (stored.dtype.into(), shape, stored.bytes))),
            }
            continue;
        };
        let before = base_weights.read(&name)?;
        fits(&before, base)?;
        let after = stored.to_f32();
        let before = before.to_f32();
        // A frozen tensor may have been rounded when it was stored again, which is no change.
        if after.iter().zip(&before).all(|(&after, &before)| after == stored.dtype.rounded(before)) {
            continue;
        }
        let change = |(after, before): (f32, f32)| (after - before) * kept.share;
        let changes: Vec<f32> = after.into_iter().zip(before).map(change).collect();
        match matrices.contains(&name) {
            true => insert_changes(&mut tensors, &name, (changes.as_slice(), shape.as_slice()), kept.rank),
            false => {
                let bytes = changes.into_iter().flat_map(f32::to_le_bytes).collect();
                tensors.insert(name, (Dtype::F32, shape, bytes));
            }
        }
    }

    let directory = DirectoryInProgress::create(&options.out)?;
    copy_parts(&bundle, directory.path())?;
    match &base {
        None => write_tensors(&directory.path().join(SLM_WEIGHTS), &tensors)?,
        Some((base, _)) => {
            for name in [SLM_WEIGHTS, "slm/config.json"] {
                base.check_sha256(name)?;
                write_atomically(&directory.path().join(name), &read_bytes(&base.path(name))?)?;
            }
            write_tensors(&directory.path().join(SLM_CHANGES), &tensors)?;
        }
    }
    write_manifest(directory.path(), bundle.manifest().clone())?;
    directory.finish()?;
    Bundle::open(&options.out)
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Adds the difference of a matrix, as two factors of the given rank if these are smaller.
fn insert_changes(
    tensors: &mut Tensors,
    name: &str,
    (changes, shape): (&[f32], &[usize]),
    rank: Option<usize>,
) {
    let (rows, columns) = (shape[0], shape[1]);
    match rank.filter(|rank| rank * (rows + columns) < rows * columns) {
        None => insert_int8(tensors, name, changes, shape),
        Some(rank) => {
            let [left_name, right_name] = factor_names(name);
            let (left, right) = factors(changes, columns, rank);
            insert_int8(tensors, &left_name, &left, &[rows, rank]);
            insert_int8(tensors, &right_name, &right, &[rank, columns]);
        }
    }
}

/// Adds a matrix in int8 with the scales of its rows.
fn insert_int8(tensors: &mut Tensors, name: &str, values: &[f32], shape: &[usize]) {
    let (mut steps, mut scales) = (Vec::with_capacity(values.len()), Vec::with_capacity(shape[0]));
    for row in values.chunks(shape[1].max(1)) {
        let scale = row.iter().fold(0.0, |largest: f32, value| largest.max(value.abs())) / MAX_STEPS;
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, reason = "at most 127 by the choice of the scale")]
        steps.extend(
            row.iter()
                .map(|value| (value * inverse).round().clamp(-MAX_STEPS, MAX_STEPS) as i8)
                .map(i8::cast_unsigned),
        );
        scales.extend(scale.to_le_bytes());
    }
    tensors.insert(scales_name(name), (Dtype::F32, vec![shape[0]], scales));
    tensors.insert(name.to_owned(), (Dtype::I8, shape.to_vec(), steps));
}

fn write_tensors(path: &Path, tensors: &Tensors) -> Result<(), BundleError> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name.clone(), view.expect("the bytes are as many as the shape says"))
    });
    // Readers of the Hugging Face libraries ask for this entry.
    let framework = [("format".to_owned(), "pt".to_owned())].into();
    let file = safetensors::serialize(views, Some(framework));
    write_atomically(path, &file.expect("the header follows from the tensors"))
}

/// Copies the other files of the bundle, besides the weights of its small model.
fn copy_parts(bundle: &Bundle, to: &Path) -> Result<(), BundleError> {
    for name in bundle.manifest().file_names() {
        let path = to.join(name);
        let part = path.parent().unwrap_or(to);
        fs::create_dir_all(part).map_err(io_error("create", part))?;
        if !name.starts_with("llm/") && ![SLM_WEIGHTS, SLM_CHANGES].contains(&name) {
            bundle.check_sha256(name)?;
            write_atomically(&path, &read_bytes(&bundle.path(name))?)?;
        }
    }
    if bundle.manifest().llm.is_some() {
        let (from, link) = (bundle.path("llm"), to.join("llm"));
        let target = from.canonicalize().map_err(io_error("read", &from))?;
        fs::remove_dir(&link).map_err(io_error("replace", &link))?;
        symlink(target, &link).map_err(io_error("write", &link))?;
    }
    Ok(())
}
