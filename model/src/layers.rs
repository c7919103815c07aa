//! Layers that families share: RMS norm and rotary positions.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::{Compute, compute::WeightType, kernels, linear::LinearInput};

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
        Self { weight: weight.to_device(compute.device).to_kind(Kind::Float).contiguous(), eps, compute }
    }

    /// `x`: `[rows, width]` f32; result in the format that the model's linear layers read.
    pub(crate) fn forward(&self, x: &Tensor) -> LinearInput {
        let Compute { kind, weights, fused, .. } = self.compute;
        match weights {
            WeightType::Int8 => LinearInput::Int8(kernels::norm_and_quantize(x, &self.weight, self.eps)),
            WeightType::Float if fused => LinearInput::Float(kernels::norm(x, &self.weight, self.eps, kind)),
            WeightType::Float => LinearInput::Float(rms_norm(x, &self.weight, self.eps).to_kind(kind)),
        }
    }
}

/// RMS norm by libtorch. `x`: `[rows, width]` f32; `weight`: `[width]` f32; result f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    x.rms_norm(weight.size(), Some(weight), eps)
}

/// RMS norm without a weight: each row is scaled to a root mean square of one. `x`: `[rows, width]` f32; result f32.
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

    /// Rotates the first `heads` heads of each row. `x`: `[rows, all heads, head_dim]`, whose memory may be reused; `positions`:
    /// `[rows]` int64, the place of each row in its own sequence, and the largest of them.
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
        let angles = |t: &Tensor| t.index_select(0, positions).repeat([1, 2]).unsqueeze(1); // [rows, 1, head_dim]
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
