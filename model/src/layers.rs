//! Layers that families share: linear, RMS norm, rotary positions.

use tch::{Kind, Tensor};

/// A linear layer, `y = x W^T + b`.
///
/// A row's result does not depend, to the last bit, on how many rows stand beside it, as long as libtorch runs on one thread. Its
/// products do not promise that: with few rows they take other paths, which sum in another order. So few rows are padded.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,       // [out, in], compute kind
    bias: Option<Tensor>, // [out], compute kind
    min_rows: i64,
}

impl Linear {
    /// `weight`: `[out, in]`; `bias`: `[out]`; both already in the type to compute in.
    #[must_use]
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        let min_rows = min_rows(&weight);
        Self { weight, bias, min_rows }
    }

    /// Several layers that read the same input, as one product: outputs stand side by side in the last dimension.
    #[must_use]
    pub fn stacked(weights: &[Tensor]) -> Self {
        Self::new(Tensor::cat(weights, 0), None)
    }

    /// `x`: `[rows, in]` of any float type; result `[rows, out]` in the layer's type.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(self.weight.kind());
        let rows = x.size()[0];
        if rows < self.min_rows {
            let padded = x.constant_pad_nd([0, 0, 0, self.min_rows - rows]);
            return padded.linear(&self.weight, self.bias.as_ref()).narrow(0, 0, rows);
        }
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// Fewest rows for which libtorch's CPU product of a row stays the same when more are added, found by experiment with libtorch
/// 2.13: f32 changes below 4 rows; bf16 with one row and more than 1024 columns; and bf16 products of at most 16^3 multiplications
/// bypass the bf16 kernels.
fn min_rows(weight: &Tensor) -> i64 {
    const SMALL_PRODUCT: i64 = 16 * 16 * 16;
    let (out, input) = weight.size2().expect("a weight is [out, in]");
    match weight.kind() {
        Kind::Float => 4,
        _ => (SMALL_PRODUCT / (out * input).max(1) + 1).max(2),
    }
}

/// RMS norm: `x / sqrt(mean(x^2) + eps) * weight`. `x`: `[rows, width]` f32; `weight`: `[width]` f32; result f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    x.rms_norm(weight.size(), Some(weight), eps)
}

/// RMS norm without a weight: each row is scaled to a root mean square of one. `x`: `[rows, width]` f32; result f32.
pub fn rms_scale(x: &Tensor, eps: f64) -> Tensor {
    let width = x.size()[1];
    x.rms_norm([width], None::<&Tensor>, eps)
}

/// Rotary position embedding for one forward pass (Su et al., arXiv 2104.09864; the "rotate half" layout of Llama checkpoints).
#[derive(Debug)]
pub struct Rope {
    cos: Tensor, // [rows, 1, head_dim] f32
    sin: Tensor, // [rows, 1, head_dim] f32
}

impl Rope {
    /// `positions`: `[rows]` int64, the place of each row in its own sequence; `theta`: the base of the frequencies.
    #[must_use]
    pub fn new(positions: &Tensor, head_dim: i64, theta: f64) -> Self {
        let options = (Kind::Float, positions.device());
        let exponents = Tensor::arange_start_step(0, head_dim, 2, options) / (head_dim as f64);
        let inverse_frequencies = (exponents * -theta.ln()).exp(); // [head_dim / 2]
        let angles = positions.to_kind(Kind::Float).unsqueeze(1) * inverse_frequencies.unsqueeze(0);
        let angles = Tensor::cat(&[&angles, &angles], 1).unsqueeze(1);
        Self { cos: angles.cos(), sin: angles.sin() }
    }

    /// Rotates queries or keys. `x`: `[rows, heads, head_dim]`; result has the same shape and type.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        let halves = x.chunk(2, -1);
        let rotated = Tensor::cat(&[&halves[1].neg(), &halves[0]], -1);
        (x * &self.cos + rotated * &self.sin).to_kind(x.kind())
    }
}
