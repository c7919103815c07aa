//! From the LLM's world into the SLM's: the projector, the prompt embedding, and their fusion.
//!
//! Projector (arXiv 2402.16844, section 3): `Linear(d_llm, d_slm), ReLU, Linear(d_slm, d_slm)` per position,
//! or fewer or more such layers, and bidirectional blocks before the last one if the bundle has them
//! (`projector_blocks.rs`). Hidden states are first scaled to unit RMS per position, because intermediate LLM
//! states have a few positions hundreds of times larger than the rest.

use baton_bundle::{Fusion, ProjectorPart};
use tch::{Kind, Tensor};

use crate::{
    Compute, Linear, ModelError, PackedLayout, TensorSource, projector_blocks::ProjectorBlocks, rms_scale,
};

const RMS_EPS: f64 = 1e-6;
const MIX_NAME: &str = "projector.mix";

/// The trained map from LLM hidden states to SLM embedding space.
#[derive(Debug)]
pub struct Projector {
    mix: Option<Tensor>,             // [layers] f32, shares of the layers that are read
    layers: Vec<Linear>,             // d_llm -> d_slm, then d_slm -> d_slm
    blocks: Option<ProjectorBlocks>, // before the last layer
}

impl Projector {
    /// Builds from tensors named as [`ProjectorPart::linear_layers`], `.weight` and `.bias`. If states of
    /// several LLM layers are read, `projector.mix`, `[layers]`, gives their shares by its softmax (Peters et
    /// al., arXiv 1802.05365).
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn load(
        source: &dyn TensorSource,
        part: &ProjectorPart,
        compute: Compute,
    ) -> Result<Self, ModelError> {
        let mix = match part.mixed_layers.len() {
            0 => None,
            others => Some(source.tensor(MIX_NAME, &[others as i64 + 1])?),
        };
        let layers = part.linear_layers().into_iter().map(|(name, fan_in)| {
            linear_with_bias(source, &name, (fan_in as i64, part.d_slm as i64), compute)
        });
        Ok(Self {
            mix: mix.map(|mix| mix.to_device(compute.device).softmax(0, Kind::Float)),
            layers: layers.collect::<Result<_, _>>()?,
            blocks: ProjectorBlocks::load(source, part, compute.with_float_weights())?,
        })
    }

    /// `hidden_states`: `[rows, layers * d_llm]` of any float type; `layout`: the rows of each prompt;
    /// result: projected states `[rows, d_slm]` f32.
    pub fn forward(&self, hidden_states: &Tensor, layout: &PackedLayout) -> Tensor {
        self.project(&self.scaled(hidden_states), layout)
    }

    /// The layers' output for [`scaled`](Self::scaled) states, or for means of them. Both `[rows, d]` f32, of
    /// d_llm and d_slm; `layout`: the rows of each prompt.
    pub fn project(&self, scaled: &Tensor, layout: &PackedLayout) -> Tensor {
        let relu_before = |states: Option<Tensor>, layer: &Linear| {
            Some(states.map_or_else(|| layer.forward(scaled), |states| layer.forward(&states.relu())))
        };
        let Some(blocks) = &self.blocks else {
            let projected = self.layers.iter().fold(None, relu_before);
            return projected.expect("a manifest has at least one layer").to_kind(Kind::Float);
        };
        let (last, before) = self.layers.split_last().expect("a manifest has at least one layer");
        let states = before.iter().fold(None, relu_before).expect("with blocks, there are two layers");
        let read = blocks.forward(states.to_kind(Kind::Float), layout);
        last.product(&read).into_tensor(Kind::Float)
    }

    /// The first linear layer's input: `[rows, d_llm]` f32, each row of unit RMS. `hidden_states`: as for
    /// [`forward`](Self::forward).
    pub fn scaled(&self, hidden_states: &Tensor) -> Tensor {
        let hidden_states = hidden_states.to_kind(Kind::Float);
        match &self.mix {
            None => rms_scale(&hidden_states, RMS_EPS),
            Some(mix) => {
                let (rows, num_layers) = (hidden_states.size()[0], mix.size()[0]);
                let width = hidden_states.size()[1] / num_layers;
                let layers = rms_scale(&hidden_states.view([-1, width]), RMS_EPS);
                let layers = layers.view([rows, num_layers, width]) * mix.view([1, num_layers, 1]);
                let mixed = layers.sum_dim_intlist(1, false, Kind::Float);
                rms_scale(&mixed, RMS_EPS)
            }
        }
    }
}

/// The SLM's embedding of prompt tokens when it does not share the LLM's tokenizer: the LLM's frozen
/// embedding, scaled to unit RMS, followed by a trained linear map.
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
        let map = linear_with_bias(source, "prompt_embedding.map", (d_llm as i64, d_slm as i64), compute)?;
        Ok(Self { map })
    }

    /// `llm_embeddings`: `[rows, d_llm]`, the LLM's embeddings of the prompt tokens; result `[rows, d_slm]`
    /// f32.
    pub fn forward(&self, llm_embeddings: &Tensor) -> Tensor {
        let scaled = rms_scale(&llm_embeddings.to_kind(Kind::Float), RMS_EPS);
        self.map.forward(&scaled).to_kind(Kind::Float)
    }
}

/// Fuses projected states with prompt embeddings, both `[rows, d_slm]` f32: `replace` uses the projected
/// states alone, `add` sums.
pub fn fuse(fusion: Fusion, projected: Tensor, prompt_embeddings: impl FnOnce() -> Tensor) -> Tensor {
    match fusion {
        Fusion::Replace => projected,
        Fusion::Add => projected + prompt_embeddings(),
    }
}

fn linear_with_bias(
    source: &dyn TensorSource,
    name: &str,
    (width_in, width_out): (i64, i64),
    compute: Compute,
) -> Result<Linear, ModelError> {
    let load = |suffix: &str, shape: &[i64]| source.tensor(&format!("{name}.{suffix}"), shape);
    let (weight, bias) = (load("weight", &[width_out, width_in])?, load("bias", &[width_out])?);
    // A hundredth of the encoder's work: int8 would save nothing.
    Ok(Linear::new(&weight, Some(&bias), compute.with_float_weights()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use baton_bundle::{InputNorm, PromptEmbeddingSource};
    use tch::Device;

    use super::*;

    fn pattern(shape: &[i64], step: f64) -> Tensor {
        let numel: i64 = shape.iter().product();
        (Tensor::arange(numel, (Kind::Float, Device::Cpu)) * step).sin().view(shape)
    }

    fn part((d_llm, d_slm): (i64, i64), depth: usize) -> ProjectorPart {
        ProjectorPart {
            d_llm: d_llm as usize,
            d_slm: d_slm as usize,
            input_norm: InputNorm::Rms,
            prompt_embedding: PromptEmbeddingSource::None,
            mixed_layers: Vec::new(),
            depth,
            blocks: 0,
        }
    }

    #[test]
    fn a_projector_of_one_layer_is_linear_and_deeper_ones_have_a_relu_between_layers() {
        let (d_llm, d_slm) = (5, 3);
        let states = pattern(&[4, d_llm], 1.1);
        for depth in 1..=4 {
            let part = part((d_llm, d_slm), depth);
            let mut weights = BTreeMap::new();
            let mut expected = rms_scale(&states, RMS_EPS);
            for (place, (name, fan_in)) in part.linear_layers().into_iter().enumerate() {
                let weight = pattern(&[d_slm, fan_in as i64], 0.7 + place as f64);
                let bias = pattern(&[d_slm], 0.3 + place as f64);
                if place > 0 {
                    expected = expected.clamp_min(0.0);
                }
                expected = expected.matmul(&weight.transpose(0, 1)) + &bias;
                weights.insert(format!("{name}.weight"), weight);
                weights.insert(format!("{name}.bias"), bias);
            }
            let projector = Projector::load(&weights, &part, Compute::CPU_F32).unwrap();
            let difference = projector.forward(&states, &PackedLayout::prompts([4])) - expected;
            assert!(difference.abs().max().double_value(&[]) < 1e-5, "depth {depth}");
        }
    }

    #[test]
    fn states_of_several_layers_are_summed_by_their_shares_before_they_are_projected() {
        let (d_llm, d_slm) = (5, 3);
        let mut weights = BTreeMap::from([
            ("projector.input.weight".to_owned(), pattern(&[d_slm, d_llm], 0.7)),
            ("projector.input.bias".to_owned(), pattern(&[d_slm], 0.3)),
            ("projector.output.weight".to_owned(), pattern(&[d_slm, d_slm], 0.9)),
            ("projector.output.bias".to_owned(), pattern(&[d_slm], 0.2)),
        ]);
        let one = part((d_llm, d_slm), ProjectorPart::USUAL_DEPTH);
        let two = ProjectorPart { mixed_layers: vec![1], ..one.clone() };
        let one = Projector::load(&weights, &one, Compute::CPU_F32).unwrap();
        // Shares 3/4 and 1/4.
        weights.insert("projector.mix".to_owned(), Tensor::from_slice(&[3f32.ln(), 0.0]));
        let two = Projector::load(&weights, &two, Compute::CPU_F32).unwrap();

        let (first, last) = (pattern(&[4, d_llm], 1.1) * 100.0, pattern(&[4, d_llm], 0.4));
        let mixed = rms_scale(&first, RMS_EPS) * 0.75 + rms_scale(&last, RMS_EPS) * 0.25;
        let layout = PackedLayout::prompts([4]);
        let both = two.forward(&Tensor::cat(&[first, last], 1), &layout);
        let difference = both - one.forward(&mixed, &layout);
        assert!(difference.abs().max().double_value(&[]) < 1e-5);
    }
}
