//! From a checkpoint's tensors to layers, for all families.

use tch::{Kind, Tensor};

use crate::{
    Compute, Linear, ModelError, TensorSource,
    layers::{LayerNorm, RmsNorm},
    weight_count::count_weight,
};

/// Makes layers from the tensors of a checkpoint or of a part.
#[derive(Clone)]
pub(crate) struct LayerSource<'a> {
    tensors: &'a dyn TensorSource,
    /// Prefix of every name: empty, or `model.layers.3.`.
    prefix: String,
    pub(crate) compute: Compute,
}

impl<'a> LayerSource<'a> {
    pub(crate) fn new(tensors: &'a dyn TensorSource, compute: Compute) -> Self {
        Self { tensors, prefix: String::new(), compute }
    }

    /// The part whose names begin with `part` and a point.
    pub(crate) fn part(&self, part: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{part}.", self.prefix), ..self.clone() }
    }

    /// The same tensors for layers that are never int8.
    pub(crate) fn with_float_weights(&self) -> Self {
        Self { compute: self.compute.with_float_weights(), ..self.clone() }
    }

    /// A tensor as stored.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        self.tensors.tensor(&format!("{}{name}", self.prefix), &shape)
    }

    /// A matrix whose rows are looked up, `[rows, width]` in the compute kind.
    pub(crate) fn embedding(&self, name: &str, shape: [usize; 2]) -> Result<Tensor, ModelError> {
        let Compute { device, kind, .. } = self.compute;
        let rows = self.tensor(name, &shape)?.to_device(device).to_kind(kind);
        count_weight(&rows);
        Ok(rows)
    }

    /// The embedding of a model that gets states in place of tokens, `[0, width]`.
    pub(crate) fn no_embedding(&self, width: usize) -> Tensor {
        Tensor::zeros([0, width as i64], (self.compute.kind, self.compute.device))
    }

    /// `name.weight`, `[out, in]`, as a layer without bias.
    pub(crate) fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, ModelError> {
        let layer = Linear::new(&self.tensor(&format!("{name}.weight"), &shape)?, None, self.compute);
        Ok(self.with_low_ranks(layer, &[(name, shape[0])]))
    }

    /// `layer` with the learned parts of the layers that it joins side by side; their outputs are given as
    /// (name, width).
    fn with_low_ranks(&self, layer: Linear, layers: &[(&str, usize)]) -> Linear {
        let (mut layer, mut first_output) = (layer, 0);
        for (name, output) in layers {
            if let Some(learned) = self.tensors.low_rank(&format!("{}{name}.weight", self.prefix)) {
                layer = layer.with_low_rank(first_output, learned);
            }
            first_output += *output as i64;
        }
        layer
    }

    /// Layers without bias that read the same `input` numbers, as one product with outputs side by side,
    /// given as (name, width).
    pub(crate) fn stacked(&self, input: usize, layers: &[(&str, usize)]) -> Result<Linear, ModelError> {
        let weight =
            |&(name, output): &(&str, usize)| self.tensor(&format!("{name}.weight"), &[output, input]);
        let weights = layers.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
        Ok(self.with_low_ranks(Linear::new(&Tensor::cat(&weights, 0), None, self.compute), layers))
    }

    /// The same for layers with biases.
    pub(crate) fn stacked_with_bias(
        &self,
        input: usize,
        layers: &[(&str, usize)],
    ) -> Result<Linear, ModelError> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for &(name, output) in layers {
            weights.push(self.tensor(&format!("{name}.weight"), &[output, input])?);
            biases.push(self.tensor(&format!("{name}.bias"), &[output])?);
        }
        let layer = Linear::new(&Tensor::cat(&weights, 0), Some(&Tensor::cat(&biases, 0)), self.compute);
        Ok(self.with_low_ranks(layer, layers))
    }

    /// The same where only the first layer has a bias.
    pub(crate) fn stacked_with_first_bias(
        &self,
        input: usize,
        layers: &[(&str, usize)],
    ) -> Result<Linear, ModelError> {
        let (mut weights, mut biases) = (Vec::new(), Vec::<Tensor>::new());
        for (index, &(name, output)) in layers.iter().enumerate() {
            weights.push(self.tensor(&format!("{name}.weight"), &[output, input])?);
            biases.push(match index {
                0 => self.tensor(&format!("{name}.bias"), &[output])?,
                _ => Tensor::zeros([output as i64], (biases[0].kind(), biases[0].device())),
            });
        }
        let layer = Linear::new(&Tensor::cat(&weights, 0), Some(&Tensor::cat(&biases, 0)), self.compute);
        Ok(self.with_low_ranks(layer, layers))
    }

    /// `name.weight`, stored transposed as `[in, out]`, and `name.bias`: GPT-2's Conv1D.
    pub(crate) fn transposed_with_bias(
        &self,
        name: &str,
        [input, output]: [usize; 2],
    ) -> Result<Linear, ModelError> {
        let weight = self.tensor(&format!("{name}.weight"), &[input, output])?.tr().contiguous();
        let bias = self.tensor(&format!("{name}.bias"), &[output])?;
        let layer = Linear::new(&weight, Some(&bias), self.compute);
        Ok(self.with_low_ranks(layer, &[(name, output)]))
    }

    /// `name.weight`, `[width]`, as an RMS norm.
    pub(crate) fn rms_norm(&self, name: &str, width: usize, eps: f64) -> Result<RmsNorm, ModelError> {
        Ok(RmsNorm::new(&self.tensor(&format!("{name}.weight"), &[width])?, eps, self.compute))
    }

    /// The factors of an RMS norm, `[width]` f32: `name.weight`, or one more than that.
    pub(crate) fn norm_weight(
        &self,
        name: &str,
        width: usize,
        around_one: bool,
    ) -> Result<Tensor, ModelError> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?.to_kind(Kind::Float);
        Ok(if around_one { weight + 1.0 } else { weight })
    }

    /// `name.weight` and `name.bias`, `[width]`, as a layer norm.
    pub(crate) fn layer_norm(&self, name: &str, width: usize, eps: f64) -> Result<LayerNorm, ModelError> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        let bias = self.tensor(&format!("{name}.bias"), &[width])?;
        Ok(LayerNorm::new((&weight, &bias), eps, self.compute))
    }
}
