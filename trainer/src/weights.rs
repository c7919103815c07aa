//! The master weights: every trained tensor, f32, by its checkpoint name, with its initialization.

use std::collections::BTreeMap;

use baton_bundle::{Alignment, ModelConfig, PromptEmbeddingSource};
use tch::{Device, Kind, Tensor};

use crate::{TrainConfig, config::Reads, slm_family::first_deviation};

/// Trained tensors by name. SLM tensors bear the names of their family's Hugging Face checkpoint.
pub(crate) type Weights = BTreeMap<String, Tensor>;

/// Fresh weights. The same seed gives the same weights.
///
/// Matrices of the small model: normal, as large as [`first_deviation`] says; projector and prompt embedding:
/// normal with deviation fan_in^-1/2, but zero in the projector's last layer where tokens are aligned by
/// characters; norms one; biases zero.
pub(crate) fn initial_weights(config: &TrainConfig, slm: &ModelConfig, d_llm: usize) -> Weights {
    tch::manual_seed(config.hyperparameters.seed as i64);
    let options = (Kind::Float, Device::Cpu);
    let normal = |shape: &[i64], deviation: f64| Tensor::randn(shape, options) * deviation;
    let mut weights = Weights::new();
    for (name, shape) in slm.tensor_shapes() {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let weight = match shape[..] {
            [_] if name.ends_with(".bias") => Tensor::zeros(shape, options),
            [_] => Tensor::ones(shape, options),
            _ => normal(&shape, first_deviation(slm, (&name, &shape))),
        };
        weights.insert(name, weight);
    }
    let d = slm.hidden_size;
    let projector = config.projector(d_llm, d);
    let by_characters = config.alignment == Alignment::Characters;
    let last_layer = projector.linear_layers().pop().map(|(name, _)| name).filter(|_| by_characters);
    let mut linears = match config.reads {
        Reads::Hybrid => projector.linear_layers(),
        Reads::Slm => Vec::new(),
    };
    if projector.prompt_embedding == PromptEmbeddingSource::Llm {
        linears.push(("prompt_embedding.map".to_owned(), d_llm));
    }
    if config.reads == Reads::Hybrid && !config.mixed_layers.is_empty() {
        let num_layers = config.mixed_layers.len() as i64 + 1;
        weights.insert("projector.mix".to_owned(), Tensor::zeros([num_layers], options)); // equal shares
    }
    for (name, fan_in) in linears {
        let shape = [d as i64, fan_in as i64];
        let weight = match Some(&name) == last_layer.as_ref() {
            true => Tensor::zeros(shape, options), // so that a hybrid begins as its small model
            false => normal(&shape, (fan_in as f64).powf(-0.5)),
        };
        weights.insert(format!("{name}.weight"), weight);
        weights.insert(format!("{name}.bias"), Tensor::zeros([d as i64], options));
    }
    let block_shapes = if config.reads == Reads::Hybrid { projector.block_shapes() } else { Vec::new() };
    for (name, shape) in block_shapes {
        let shape: Vec<i64> = shape.into_iter().map(|size| size as i64).collect();
        let weight = match shape[..] {
            [_, _] if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") => {
                Tensor::zeros(shape, options) // so that a block begins by changing nothing
            }
            [_, fan_in] => normal(&shape, (fan_in as f64).powf(-0.5)),
            _ => Tensor::ones(shape, options),
        };
        weights.insert(name, weight);
    }
    weights
}

/// Whether a name matches a pattern, in which `*` matches any characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let Some(behind) = name.strip_prefix(start) else { return false };
            let mut places = behind.char_indices().map(|(at, _)| at).chain([behind.len()]);
            places.any(|at| matches(rest, &behind[at..]))
        }
    }
}

/// Whether a tensor belongs in `projector/` rather than in `slm/`.
pub(crate) fn belongs_to_projector(name: &str) -> bool {
    name.starts_with("projector.") || name.starts_with("prompt_embedding.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_characters() {
        for (pattern, name, expected) in [
            ("shared.weight", "shared.weight", true),
            ("shared", "shared.weight", false),
            ("*embed*", "model.embed_tokens.weight", true),
            ("decoder.*", "decoder.block.0.weight", true),
            ("decoder.*", "encoder.block.0.weight", false),
            ("*.0.*.weight", "block.0.q.weight", true),
            ("*.0.*.weight", "block.10.q.weight", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
