//! From the LLM's world into the SLM's: the projector, the prompt embedding, and their fusion.
//!
//! Projector (arXiv 2402.16844, section 3): `Linear(d_llm, d_slm), ReLU, Linear(d_slm, d_slm)` per position. Hidden states are
//! first scaled to unit RMS per position, because intermediate LLM states have a few positions hundreds of times larger than the rest.

use baton_bundle::Fusion;
use tch::{Kind, Tensor};

use crate::{Compute, Linear, ModelError, TensorSource, rms_scale};

const RMS_EPS: f64 = 1e-6;

/// The trained map from LLM hidden states to SLM embedding space.
#[derive(Debug)]
pub struct Projector {
    input: Linear,  // d_llm -> d_slm
    output: Linear, // d_slm -> d_slm
}

impl Projector {
    /// Builds from tensors named `projector.{input,output}.{weight,bias}`.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn load(
        source: &dyn TensorSource,
        d_llm: usize,
        d_slm: usize,
        compute: Compute,
    ) -> Result<Self, ModelError> {
        let (d_llm, d_slm) = (d_llm as i64, d_slm as i64);
        Ok(Self {
            input: linear_with_bias(source, "projector.input", d_llm, d_slm, compute)?,
            output: linear_with_bias(source, "projector.output", d_slm, d_slm, compute)?,
        })
    }

    /// `hidden_states`: `[rows, d_llm]` of any float type; result: projected states `[rows, d_slm]` f32.
    pub fn forward(&self, hidden_states: &Tensor) -> Tensor {
        let scaled = rms_scale(&hidden_states.to_kind(Kind::Float), RMS_EPS);
        self.output.forward(&self.input.forward(&scaled).relu()).to_kind(Kind::Float)
    }
}

/// The SLM's embedding of prompt tokens when it does not share the LLM's tokenizer: the LLM's frozen embedding, scaled to unit RMS,
/// followed by a trained linear map.
#[derive(Debug)]
pub struct PromptEmbedding {
    map: Linear, // d_llm -> d_slm
}

impl PromptEmbedding {
    /// Builds from tensors named `prompt_embedding.map.{weight,bias}`.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn load(
        source: &dyn TensorSource,
        d_llm: usize,
        d_slm: usize,
        compute: Compute,
    ) -> Result<Self, ModelError> {
        let map = linear_with_bias(source, "prompt_embedding.map", d_llm as i64, d_slm as i64, compute)?;
        Ok(Self { map })
    }

    /// `llm_embeddings`: `[rows, d_llm]`, the LLM's embeddings of the prompt tokens; result `[rows, d_slm]` f32.
    pub fn forward(&self, llm_embeddings: &Tensor) -> Tensor {
        let scaled = rms_scale(&llm_embeddings.to_kind(Kind::Float), RMS_EPS);
        self.map.forward(&scaled).to_kind(Kind::Float)
    }
}

/// Fuses projected states with prompt embeddings, both `[rows, d_slm]` f32: `replace` uses the projected states alone, `add` sums.
pub fn fuse(fusion: Fusion, projected: Tensor, prompt_embeddings: impl FnOnce() -> Tensor) -> Tensor {
    match fusion {
        Fusion::Replace => projected,
        Fusion::Add => projected + prompt_embeddings(),
    }
}

fn linear_with_bias(
    source: &dyn TensorSource,
    name: &str,
    width_in: i64,
    width_out: i64,
    compute: Compute,
) -> Result<Linear, ModelError> {
    let load = |suffix: &str, shape: &[i64]| source.tensor(&format!("{name}.{suffix}"), shape);
    let (weight, bias) = (load("weight", &[width_out, width_in])?, load("bias", &[width_out])?);
    // A hundredth of the encoder's work: int8 would save nothing.
    Ok(Linear::new(&weight, Some(&bias), compute.with_float_weights()))
}
