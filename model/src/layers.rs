//! Layers that families share: norms and rotary positions.

use std::cell::RefCell;

use baton_bundle::RotaryConfig;
use tch::{Kind, Tensor};

use crate::{
    Compute, compute::WeightType, kernels, linear::LinearInput, residual::Normed, weight_count::count_weight,
};

/// RMS norm with a weight (Zhang and Sennrich, arXiv 1910.07467): `x / sqrt(mean(x^2) + eps) * weight`.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor, // [width] f32
    eps: f64,
    compute: Compute,
}

impl RmsNorm {
    /// `weight`: `[width]` of any float type.
    pub(crate) fn new(weight: &Tensor, eps: f64, compute: Compute) -> Self {
        Self { weight: in_f32(weight, compute), eps, compute }
    }

    /// `x`: `[rows, width]` f32; result in the format that the model's linear layers read.
    pub(crate) fn forward(&self, x: &Tensor) -> LinearInput {
        let Compute { kind, weights, fused, .. } = self.compute;
        match weights {
            WeightType::Int8 => LinearInput::Int8(kernels::rms_norm_and_quantize(x, &self.weight, self.eps)),
            WeightType::Float if fused => {
                LinearInput::Float(kernels::rms_norm(x, &self.weight, self.eps, kind))
            }
            WeightType::Float => LinearInput::Float(rms_norm(x, &self.weight, self.eps).to_kind(kind)),
        }
    }

    /// The same as numbers, for consumers other than linear layers. `x`, result: `[rows, width]` f32.
    pub(crate) fn numbers(&self, x: &Tensor) -> Tensor {
        if self.compute.fused {
            return kernels::rms_norm(x, &self.weight, self.eps, Kind::Float);
        }
        rms_norm(x, &self.weight, self.eps)
    }
}

/// Layer norm (Ba et al., arXiv 1607.06450): `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor, // [width] f32
    bias: Tensor,   // [width] f32
    eps: f64,
    compute: Compute,
}

impl LayerNorm {
    /// `weight`, `bias`: `[width]` of any float type.
    pub(crate) fn new((weight, bias): (&Tensor, &Tensor), eps: f64, compute: Compute) -> Self {
        Self { weight: in_f32(weight, compute), bias: in_f32(bias, compute), eps, compute }
    }

    /// `x`: `[rows, width]` f32; result in the format that the model's linear layers read.
    pub(crate) fn forward(&self, x: &Tensor) -> LinearInput {
        let Self { weight, bias, eps, compute: Compute { kind, weights, fused, .. } } = self;
        match weights {
            WeightType::Int8 => LinearInput::Int8(kernels::layer_norm_and_quantize(x, (weight, bias), *eps)),
            WeightType::Float if *fused => {
                LinearInput::Float(kernels::layer_norm(x, (weight, bias), *eps, *kind))
            }
            WeightType::Float => {
                let normed = x.layer_norm(weight.size(), Some(weight), Some(bias), *eps, false);
                LinearInput::Float(normed.to_kind(*kind))
            }
        }
    }
}

impl LayerNorm {
    /// The same as numbers and as linear layers read them. `x`: `[rows, width]` f32, whose memory may be
    /// reused.
    pub(crate) fn normed(&self, x: Tensor) -> Normed {
        let Self { weight, bias, eps, compute: Compute { kind, weights, .. } } = self;
        if *weights == WeightType::Int8 {
            let (numbers, input) = kernels::layer_norm_in_place_and_quantize(x, (weight, bias), *eps);
            return Normed { numbers, input: LinearInput::Int8(input) };
        }
        let numbers = self.numbers(&x);
        Normed { input: LinearInput::Float(numbers.to_kind(*kind)), numbers }
    }

    /// The same as plain numbers, for readers other than linear layers. `x`, result: `[rows, width]` f32.
    pub(crate) fn numbers(&self, x: &Tensor) -> Tensor {
        let Self { weight, bias, eps, compute } = self;
        match compute.fused {
            true => kernels::layer_norm(x, (weight, bias), *eps, Kind::Float),
            false => x.layer_norm(weight.size(), Some(weight), Some(bias), *eps, false),
        }
    }
}

/// RMS norms of queries and of keys: of each head, as Qwen3 and Gemma 3 have them, or of all heads together,
/// as OLMo 2 does.
#[derive(Debug)]
pub(crate) struct HeadNorms {
    q_norm: Tensor, // [head_dim] or [heads * head_dim] f32
    k_norm: Tensor, // [head_dim] or [kv_heads * head_dim] f32
    eps: f64,
    compute: Compute,
}

impl HeadNorms {
    /// `q_norm`, `k_norm`: `[head_dim]`, or as wide as all heads, of any float type.
    pub(crate) fn new((q_norm, k_norm): (&Tensor, &Tensor), eps: f64, compute: Compute) -> Self {
        Self { q_norm: in_f32(q_norm, compute), k_norm: in_f32(k_norm, compute), eps, compute }
    }

    /// Norms the heads of each row. `x`: `[rows, heads + 2 kv_heads, head_dim]`, queries, keys, values, whose
    /// memory may be reused.
    pub(crate) fn forward(&self, x: Tensor, heads: i64, kv_heads: i64) -> Tensor {
        let of_each_head = self.q_norm.size() == [x.size()[2]] && self.k_norm.size() == [x.size()[2]];
        if self.compute.fused && of_each_head {
            return kernels::norm_heads(x, [heads, kv_heads], [&self.q_norm, &self.k_norm], self.eps);
        }
        let parts = x.split_with_sizes([heads, kv_heads, kv_heads], 1);
        let norm = |heads: &Tensor, weight: &Tensor| {
            let rows = heads.reshape([-1, weight.size()[0]]).to_kind(Kind::Float);
            let normed = match self.compute.fused {
                true => kernels::rms_norm(&rows, weight, self.eps, Kind::Float),
                false => rms_norm(&rows, weight, self.eps),
            };
            normed.view_as(heads).to_kind(x.kind())
        };
        Tensor::cat(
            &[norm(&parts[0], &self.q_norm), norm(&parts[1], &self.k_norm), parts[2].shallow_clone()],
            1,
        )
    }
}

fn in_f32(weight: &Tensor, compute: Compute) -> Tensor {
    let weight = weight.to_device(compute.device).to_kind(Kind::Float).contiguous();
    count_weight(&weight);
    weight
}

/// RMS norm by libtorch. `x`: `[.., width]` f32; `weight`: `[width]` f32; result f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    x.rms_norm(weight.size(), Some(weight), eps)
}

/// RMS norm without a weight: each row is scaled to a root mean square of one. `x`: `[rows, width]` f32;
/// result f32.
pub fn rms_scale(x: &Tensor, eps: f64) -> Tensor {
    let width = x.size()[1];
    x.rms_norm([width], None::<&Tensor>, eps)
}

/// Rotary position embedding (Su et al., arXiv 2104.09864; the "rotate half" layout of Llama checkpoints).
///
/// Angles of all positions seen so far are kept; the table doubles when a later one is met.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Tensor, // [rotated channels / 2] f32
    factor: f64,         // of sines and cosines
    compute: Compute,
    table: RefCell<RopeTable>,
}

#[derive(Debug)]
struct RopeTable {
    cosines: Tensor, // [positions, rotated channels / 2] f32
    sines: Tensor,   // [positions, rotated channels / 2] f32
}

/// Positions of the table at first.
const FIRST_POSITIONS: i64 = 256;

impl Rope {
    /// The rotation of heads of this width.
    pub(crate) fn new(config: &RotaryConfig, head_dim: usize, compute: Compute) -> Self {
        let frequencies = Tensor::from_slice(&config.frequencies(head_dim));
        let frequencies = frequencies.to_kind(Kind::Float).to_device(compute.device);
        let factor = config.attention_factor();
        let table = RefCell::new(RopeTable::new(FIRST_POSITIONS, &frequencies, factor));
        Self { frequencies, factor, compute, table }
    }

    /// Rotates the first channels of the first `heads` heads of each row. `x`: `[rows, all heads, head_dim]`,
    /// whose memory may be reused; `positions`: `[rows]` int64, the place of each row in its own sequence,
    /// and the largest of them.
    pub(crate) fn apply(&self, x: Tensor, heads: i64, (positions, largest): (&Tensor, i64)) -> Tensor {
        let known = self.table.borrow().cosines.size()[0];
        if largest >= known {
            let positions = (largest + 1).max(2 * known);
            self.table.replace(RopeTable::new(positions, &self.frequencies, self.factor));
        }
        let table = self.table.borrow();
        if self.compute.fused {
            return kernels::rotate(x, heads, positions, (&table.cosines, &table.sines));
        }
        let (_, all_heads, head_dim) = x.size3().expect("queries and keys are [rows, heads, head_dim]");
        let rotated = 2 * self.frequencies.size()[0];
        // [rows, 1, rotated]
        let angles = |t: &Tensor| t.index_select(0, positions).repeat([1, 2]).unsqueeze(1);
        let parts = x.split_with_sizes([heads, all_heads - heads], 1);
        let channels = parts[0].split_with_sizes([rotated, head_dim - rotated], 2);
        let halves = channels[0].chunk(2, -1);
        let turned = Tensor::cat(&[&halves[1].neg(), &halves[0]], -1);
        let rotated = &channels[0] * angles(&table.cosines) + turned * angles(&table.sines);
        let rotated = Tensor::cat(&[&rotated.to_kind(x.kind()), &channels[1]], -1);
        Tensor::cat(&[&rotated, &parts[1]], 1)
    }
}

impl RopeTable {
    fn new(positions: i64, frequencies: &Tensor, factor: f64) -> Self {
        let options = (Kind::Float, frequencies.device());
        let angles = Tensor::arange(positions, options).unsqueeze(1) * frequencies.unsqueeze(0);
        Self { cosines: angles.cos() * factor, sines: angles.sin() * factor }
    }
}
