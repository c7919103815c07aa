//! Layers that families share: norms and rotary positions.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::{Compute, compute::WeightType, kernels, linear::LinearInput, residual::Normed};

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

/// RMS norms of each query head and of each key head, as Qwen3 and Gemma 3 have them.
#[derive(Debug)]
pub(crate) struct HeadNorms {
    q_norm: Tensor, // [head_dim] f32
    k_norm: Tensor, // [head_dim] f32
    eps: f64,
    compute: Compute,
}

impl HeadNorms {
    /// `q_norm`, `k_norm`: `[head_dim]` of any float type.
    pub(crate) fn new((q_norm, k_norm): (&Tensor, &Tensor), eps: f64, compute: Compute) -> Self {
        Self { q_norm: in_f32(q_norm, compute), k_norm: in_f32(k_norm, compute), eps, compute }
    }

    /// Norms the heads of each row. `x`: `[rows, heads + 2 kv_heads, head_dim]`, queries, keys, values, whose
    /// memory may be reused.
    pub(crate) fn forward(&self, x: Tensor, heads: i64, kv_heads: i64) -> Tensor {
        if self.compute.fused {
            return kernels::norm_heads(x, [heads, kv_heads], [&self.q_norm, &self.k_norm], self.eps);
        }
        let parts = x.split_with_sizes([heads, kv_heads, kv_heads], 1);
        let norm = |heads: &Tensor, weight: &Tensor| {
            rms_norm(&heads.to_kind(Kind::Float), weight, self.eps).to_kind(x.kind())
        };
        Tensor::cat(
            &[norm(&parts[0], &self.q_norm), norm(&parts[1], &self.k_norm), parts[2].shallow_clone()],
            1,
        )
    }
}

fn in_f32(weight: &Tensor, compute: Compute) -> Tensor {
    weight.to_device(compute.device).to_kind(Kind::Float).contiguous()
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
    head_dim: i64,
    theta: f64,
    compute: Compute,
    table: RefCell<RopeTable>,
}

#[derive(Debug)]
struct RopeTable {
    cosines: Tensor, // [positions, head_dim / 2] f32
    sines: Tensor,   // [positions, head_dim / 2] f32
}

/// Positions of the table at first.
const FIRST_POSITIONS: i64 = 256;

impl Rope {
    /// `theta`: the base of the frequencies.
    pub(crate) fn new(head_dim: usize, theta: f64, compute: Compute) -> Self {
        let head_dim = head_dim as i64;
        let table = RefCell::new(RopeTable::new(FIRST_POSITIONS, head_dim, theta, compute));
        Self { head_dim, theta, compute, table }
    }

    /// Rotates the first `heads` heads of each row. `x`: `[rows, all heads, head_dim]`, whose memory may be
    /// reused; `positions`: `[rows]` int64, the place of each row in its own sequence, and the largest of
    /// them.
    pub(crate) fn apply(&self, x: Tensor, heads: i64, (positions, largest): (&Tensor, i64)) -> Tensor {
        let known = self.table.borrow().cosines.size()[0];
        if largest >= known {
            let positions = (largest + 1).max(2 * known);
            self.table.replace(RopeTable::new(positions, self.head_dim, self.theta, self.compute));
        }
        let table = self.table.borrow();
        if self.compute.fused {
            return kernels::rotate(x, heads, positions, (&table.cosines, &table.sines));
        }
        // [rows, 1, head_dim]
        let angles = |t: &Tensor| t.index_select(0, positions).repeat([1, 2]).unsqueeze(1);
        let parts = x.split_with_sizes([heads, x.size()[1] - heads], 1);
        let halves = parts[0].chunk(2, -1);
        let turned = Tensor::cat(&[&halves[1].neg(), &halves[0]], -1);
        let rotated = (&parts[0] * angles(&table.cosines) + turned * angles(&table.sines)).to_kind(x.kind());
        Tensor::cat(&[&rotated, &parts[1]], 1)
    }
}

impl RopeTable {
    fn new(positions: i64, head_dim: i64, theta: f64, compute: Compute) -> Self {
        let options = (Kind::Float, compute.device);
        let exponents = Tensor::arange_start_step(0, head_dim, 2, options) / (head_dim as f64);
        let inverse_frequencies = (exponents * -theta.ln()).exp(); // [head_dim / 2]
        let angles = Tensor::arange(positions, options).unsqueeze(1) * inverse_frequencies.unsqueeze(0);
        Self { cosines: angles.cos(), sines: angles.sin() }
    }
}
