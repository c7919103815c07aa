//! A summary of a bundle's parts for people, read only from headers.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::safetensors_file::SafetensorsFile;
use crate::{ADAPTER_WEIGHTS, Bundle, BundleError, LoraShape, ProjectorPart};

/// One part of a bundle, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartSummary {
    /// `llm`, `adapter`, `projector` or `slm`.
    pub path: &'static str,
    /// Shape in a few words.
    pub description: String,
    /// Number of numbers in its tensors.
    pub num_parameters: u64,
    /// Number types of its tensors.
    pub dtypes: Vec<String>,
    /// Size of its files.
    pub num_bytes: u64,
    /// SPDX expression, where the manifest has one.
    pub licence: Option<String>,
    /// Its origin, if the manifest states it.
    pub origin: Option<String>,
}

/// Summarizes the parts, in the order in which data passes them.
///
/// # Errors
/// A safetensors header cannot be read.
pub fn summarize(bundle: &Bundle) -> Result<Vec<PartSummary>, BundleError> {
    let mut descriptions = Vec::new();
    if let Ok((part, llm)) = bundle.llm() {
        descriptions.push((
            "llm",
            format!(
                "{}, {} of {} layers, d {}, vocabulary {}",
                llm.family().model_type(),
                part.layers,
                llm.num_hidden_layers,
                llm.hidden_size,
                llm.vocab_size
            ),
        ));
    }
    if let Some(adapter) = bundle.adapter()? {
        let LoraShape { rank, alpha, .. } = adapter.shape();
        descriptions
            .push(("adapter", format!("rank {rank}, alpha {alpha}, {} layers", adapter.layers().len())));
    }
    if let Ok((small_model, slm)) = bundle.small_model() {
        if let Some(ProjectorPart { d_llm, d_slm, depth, blocks, .. }) = small_model.projector() {
            let blocks = if *blocks > 0 { format!(", {blocks} blocks") } else { String::new() };
            descriptions.push(("projector", format!("d {d_llm} to d {d_slm}, {depth} layers{blocks}")));
        }
        descriptions.push((
            "slm",
            format!(
                "{}, {} layers, d {}, vocabulary {}",
                slm.family().model_type(),
                slm.num_hidden_layers,
                slm.hidden_size,
                slm.vocab_size
            ),
        ));
    }
    descriptions.into_iter().map(|(path, description)| summarize_part(bundle, path, description)).collect()
}

fn summarize_part(
    bundle: &Bundle,
    path: &'static str,
    description: String,
) -> Result<PartSummary, BundleError> {
    let manifest = bundle.manifest();
    let file = if path == "adapter" { ADAPTER_WEIGHTS } else { "model.safetensors" };
    let weights = SafetensorsFile::open(&bundle.path(path).join(file))?;
    let mut num_parameters = 0;
    let mut dtypes = BTreeSet::new();
    for info in weights.names().iter().filter_map(|name| weights.info(name)) {
        num_parameters += info.shape.iter().product::<usize>() as u64;
        dtypes.insert(info.dtype.to_string());
    }
    let prefix = format!("{path}/");
    let files = manifest.files.iter().filter(|(name, _)| name.starts_with(&prefix));
    let origin = manifest.origin_of(path);
    Ok(PartSummary {
        path,
        description,
        num_parameters,
        dtypes: dtypes.into_iter().collect(),
        num_bytes: files.map(|(_, file)| file.bytes).sum(),
        licence: origin.map(|part| part.licence.clone()),
        origin: origin.map(|part| part.origin.clone()),
    })
}
