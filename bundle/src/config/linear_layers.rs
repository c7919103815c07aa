//! The linear layers of a checkpoint, which an adapter can adapt.

use super::{FamilyConfig, ModelConfig};

/// A linear layer by the name that Hugging Face gives its module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearLayer {
    /// Path of the module, such as `model.layers.3.self_attn.q_proj`; its matrix is the tensor
    /// `MODULE.weight`.
    pub module: String,
    /// Numbers that it reads.
    pub inputs: usize,
    /// Numbers that it gives.
    pub outputs: usize,
    /// Whether its matrix is stored as `[inputs, outputs]`, as by GPT-2, and not as `[outputs, inputs]`.
    pub transposed: bool,
}

impl LinearLayer {
    /// The module's own name, which its counterparts in other blocks share, such as `q_proj`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.module.rsplit('.').next().expect("split gives at least one piece")
    }

    /// Whether `target` names it: by its whole path, or by the end of it after a point.
    #[must_use]
    pub fn is_named_by(&self, target: &str) -> bool {
        let rest = self.module.strip_suffix(target);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl ModelConfig {
    /// All linear layers of all blocks, and the head if it has its own matrix, in the order of the forward
    /// pass. Embeddings and other look-up tables are not included.
    #[must_use]
    pub fn linear_layers(&self) -> Vec<LinearLayer> {
        let layout = self.tensor_layout();
        let tensors = layout
            .blocks
            .into_iter()
            .flatten()
            .chain(layout.decoder_blocks.into_iter().flatten())
            .chain(layout.after);
        let layer = |(name, shape): (String, Vec<usize>)| {
            let module = name.strip_suffix(".weight")?.to_owned();
            let transposed = matches!(self.family, FamilyConfig::Gpt2(_)) && module != "lm_head";
            match shape[..] {
                [_, _] if module.ends_with("relative_attention_bias") => None,
                [_, _] if module.ends_with("embed_positions") => None,
                [inputs, outputs] if transposed => Some(LinearLayer { module, inputs, outputs, transposed }),
                [outputs, inputs] => Some(LinearLayer { module, inputs, outputs, transposed }),
                _ => None,
            }
        };
        tensors.filter_map(layer).collect()
    }
}
