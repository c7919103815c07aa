//! The weights of a bundle's LLM, with its fine-tuning, if it has one.
//!
//! An adapter is merged while tensors are read: `W + scale * B A`, computed in f32. The model code does not
//! know about it.

use baton_bundle::{Bundle, LoraAdapter};
use tch::{Kind, Tensor};

use crate::{Checkpoint, ModelError, TensorSource, checkpoint::stored_tensor};

/// `llm/model.safetensors` with or without `adapter/`.
#[derive(Debug)]
pub struct LlmWeights {
    checkpoint: Checkpoint,
    adapter: Option<LoraAdapter>,
}

impl LlmWeights {
    /// As the LLM writes: with the adapter, if the bundle has one.
    ///
    /// # Errors
    /// A file is missing or broken.
    pub fn for_writing(bundle: &Bundle) -> Result<Self, ModelError> {
        Self::new(bundle, bundle.adapter()?)
    }

    /// As the LLM reads for the small model: with the adapter, if the small model learned from the adapted
    /// LLM.
    ///
    /// # Errors
    /// A file is missing or broken.
    pub fn for_reading(bundle: &Bundle) -> Result<Self, ModelError> {
        let reads_it = bundle.llm()?.0.adapter.is_some_and(|adapter| adapter.hybrid_reads_it);
        Self::new(bundle, if reads_it { bundle.adapter()? } else { None })
    }

    fn new(bundle: &Bundle, adapter: Option<LoraAdapter>) -> Result<Self, ModelError> {
        Ok(Self { checkpoint: Checkpoint::open(&bundle.path("llm/model.safetensors"))?, adapter })
    }

    /// Any checkpoint with any adapter that fits it.
    #[must_use]
    pub fn merged(checkpoint: Checkpoint, adapter: Option<LoraAdapter>) -> Self {
        Self { checkpoint, adapter }
    }
}

impl TensorSource for LlmWeights {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let weight = self.checkpoint.tensor(name, shape)?;
        let Some((adapter, layer)) =
            self.adapter.as_ref().and_then(|adapter| Some((adapter, adapter.layers().get(name)?)))
        else {
            return Ok(weight);
        };
        let [a, b] = adapter.read(layer)?;
        let [a, b] = [stored_tensor(&a)?.to_kind(Kind::Float), stored_tensor(&b)?.to_kind(Kind::Float)];
        let difference = b.matmul(&a) * adapter.shape().scale(); // [outputs, inputs]
        Ok(weight.to_kind(Kind::Float) + if layer.transposed { difference.tr() } else { difference })
    }
}
