//! LoRA adapters (Hu et al., arXiv 2106.09685) of an LLM, in the layout of the library PEFT:
//! `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Owns reading and writing the two files, and checking them against the LLM's shape. `baton-model` computes
//! an adapted matrix, `W + scale * B A`. Settings that Baton does not implement are refused by name, so that
//! no adapter is read in part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::file::read_bytes;
use crate::{BundleError, LinearLayer, ModelConfig, SafetensorsFile, StoredTensor};

/// Name of the settings in an adapter's directory.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Name of the weights there.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

const PREFIX: &str = "base_model.model.";

/// Fields that say where an adapter comes from, how it was trained, or which modules it has, which its
/// tensors say, too.
const FIELDS_WITHOUT_EFFECT: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
];

/// Rank and scale of an adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraShape {
    /// Rows of each A, columns of each B.
    pub rank: usize,
    /// `lora_alpha`: the addition is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Whether it is scaled by `alpha / sqrt(rank)` instead (arXiv 2312.03732).
    pub rank_stabilized: bool,
}

impl LoraShape {
    /// The factor of `B A`.
    #[must_use]
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// The text of an `adapter_config.json` for these layers, as PEFT reads it.
    #[must_use]
    pub fn to_json(&self, llm: &ModelConfig, layers: &[LinearLayer]) -> String {
        let json = json!({
            "peft_type": "LORA",
            "task_type": if llm.encoder_decoder().is_some() { "SEQ_2_SEQ_LM" } else { "CAUSAL_LM" },
            "base_model_name_or_path": null,
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "use_rslora": self.rank_stabilized,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": layers.iter().any(|layer| layer.transposed),
            "target_modules": layers.iter().map(|layer| &layer.module).collect::<Vec<_>>(),
        });
        let mut text = serde_json::to_string_pretty(&json).expect("plain data");
        text.push('\n');
        text
    }

    fn read(path: &Path) -> Result<Self, BundleError> {
        let json: Map<String, Value> = serde_json::from_slice(&read_bytes(path)?)
            .map_err(|source| BundleError::Json { path: path.to_owned(), source })?;
        let refused = |problem| BundleError::Adapter { path: path.to_owned(), problem };
        let must_be = |field: &str, accepted: &[Value]| match json.get(field) {
            Some(value) if !accepted.contains(value) => {
                let accepted: Vec<String> = accepted.iter().map(Value::to_string).collect();
                Err(refused(format!("`{field}` is {value}; Baton reads {} alone", accepted.join(" or "))))
            }
            _ => Ok(()),
        };
        must_be("peft_type", &["LORA".into()])?;
        must_be("bias", &["none".into()])?;
        // Other ways to begin change the LLM's own matrices as well.
        must_be("init_lora_weights", &[true.into(), false.into(), "gaussian".into(), Value::Null])?;
        must_be("use_rslora", &[true.into(), false.into()])?;
        let known = ["peft_type", "bias", "init_lora_weights", "use_rslora", "r", "lora_alpha"];
        let unknown = |name: &str| !known.contains(&name) && !FIELDS_WITHOUT_EFFECT.contains(&name);
        if let Some((name, value)) = json.iter().find(|(name, value)| unknown(name) && is_set(value)) {
            return Err(refused(format!("`{name}` is {value}; Baton only reads adapters without it")));
        }
        let number = |field: &str| json.get(field).and_then(Value::as_f64).filter(|&number| number > 0.0);
        let needed = |field: &str| refused(format!("`{field}` must be a number above 0"));
        let rank = json.get("r").and_then(Value::as_u64).filter(|&rank| rank > 0);
        Ok(Self {
            rank: rank.ok_or_else(|| needed("r"))? as usize,
            alpha: number("lora_alpha").ok_or_else(|| needed("lora_alpha"))?,
            rank_stabilized: json.get("use_rslora") == Some(&true.into()),
        })
    }
}

/// Whether a field says more than that something is not used.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        _ => true,
    }
}

/// Names of a layer's A, `[rank, inputs]`, and B, `[outputs, rank]`, in an adapter's weights.
#[must_use]
pub fn lora_tensor_names(layer: &LinearLayer) -> [String; 2] {
    ["A", "B"].map(|part| format!("{PREFIX}{}.lora_{part}.weight", layer.module))
}

/// An adapter whose settings and header have been read and fit the LLM.
#[derive(Debug)]
pub struct LoraAdapter {
    shape: LoraShape,
    weights: SafetensorsFile,
    layers: BTreeMap<String, LinearLayer>, // by the name of the LLM's tensor
}

impl LoraAdapter {
    /// Opens the adapter in `directory` for a model of shape `llm`. Reads no weights.
    ///
    /// # Errors
    /// A file is missing or broken; a setting is not implemented; a tensor belongs to no linear layer of the
    /// LLM, has another shape, or lacks its other half.
    pub fn open(directory: &Path, llm: &ModelConfig) -> Result<Self, BundleError> {
        let shape = LoraShape::read(&directory.join(ADAPTER_CONFIG))?;
        let path = directory.join(ADAPTER_WEIGHTS);
        let weights = SafetensorsFile::open(&path)?;
        let problem = |tensor: &str, problem: String| BundleError::Tensor {
            path: path.clone(),
            tensor: tensor.to_owned(),
            problem,
        };
        let mut names = weights.names();
        let mut layers = BTreeMap::new();
        for layer in llm.linear_layers() {
            let [a, b] = lora_tensor_names(&layer);
            if weights.info(&a).is_none() && weights.info(&b).is_none() {
                continue;
            }
            for (name, expected) in [(&a, [shape.rank, layer.inputs]), (&b, [layer.outputs, shape.rank])] {
                let info = weights.info(name).ok_or_else(|| problem(name, "is missing".to_owned()))?;
                if info.shape != expected {
                    let found = &info.shape;
                    return Err(problem(
                        name,
                        format!("has shape {found:?}, but the LLM and `r` call for {expected:?}"),
                    ));
                }
                if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                    return Err(problem(name, format!("is {}, but should be a float type", info.dtype)));
                }
            }
            names.retain(|name| *name != a && *name != b);
            layers.insert(format!("{}.weight", layer.module), layer);
        }
        if let Some(name) = names.first() {
            let known = llm.linear_layers();
            let mut known: Vec<&str> = known.iter().map(LinearLayer::short_name).collect();
            known.sort_unstable();
            known.dedup();
            let known = known.join(", ");
            return Err(problem(name, format!("adapts no linear layer of the LLM; there are: {known}")));
        }
        if layers.is_empty() {
            return Err(BundleError::Adapter { path, problem: "it has no tensors".to_owned() });
        }
        Ok(Self { shape, weights, layers })
    }

    /// Rank and scale.
    #[must_use]
    pub fn shape(&self) -> LoraShape {
        self.shape
    }

    /// The layers that it adapts, by the name of the LLM's tensor.
    #[must_use]
    pub fn layers(&self) -> &BTreeMap<String, LinearLayer> {
        &self.layers
    }

    /// A and B of one of [`layers`](Self::layers).
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(&self, layer: &LinearLayer) -> Result<[StoredTensor; 2], BundleError> {
        let [a, b] = lora_tensor_names(layer);
        Ok([self.weights.read(&a)?, self.weights.read(&b)?])
    }
}

/// The two files of an adapter in `directory`.
#[must_use]
pub fn adapter_files(directory: &Path) -> [PathBuf; 2] {
    [directory.join(ADAPTER_CONFIG), directory.join(ADAPTER_WEIGHTS)]
}
