//! The learned part beside a frozen matrix: a product of two small ones (LoRA; Hu et al., arXiv 2106.09685).

use tch::Tensor;

/// Adds `scale * x A^T B^T` to a linear layer's output for `x`.
///
/// The layer holds the very tensors that it is given. A model that is built once therefore sees every later
/// change of their values, and the tensors get gradients.
#[derive(Debug)]
pub struct LowRank {
    /// `[rank, in]`, of any float type.
    pub a: Tensor,
    /// `[out, rank]`, of any float type.
    pub b: Tensor,
    /// The factor.
    pub scale: f64,
}

impl LowRank {
    /// The addition for all `width` outputs of a layer; its own outputs start at `first_output`, others get
    /// zeros. `x`: `[rows, in]`; result `[rows, width]` in the type of `x`.
    pub(crate) fn product(&self, x: &Tensor, (first_output, width): (i64, i64)) -> Tensor {
        let Self { a, b, scale } = self;
        let inner = x.matmul(&a.to_kind(x.kind()).tr()); // [rows, rank]
        let product = inner.matmul(&(b * *scale).to_kind(x.kind()).tr());
        let behind = width - first_output - b.size()[0];
        if (first_output, behind) == (0, 0) {
            product
        } else {
            product.constant_pad_nd([first_output, behind])
        }
    }
}
