//! The doors to `norms.rs` and `rows.rs`: tensors in, tensors out. All tensors are on the CPU; a tensor that
//! is not contiguous is copied first. A function that writes into the memory of a tensor checks that no other
//! argument is a view of it. Other views that the caller keeps see the new values.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::{
    Int8Weight,
    activation::{Activation, Gelu, GeluTanh, Relu, Silu},
    norms::{self, RowNorm},
    number::{Element, Number},
    rows,
    slices::{assert_apart, elements, elements_mut},
};
use crate::linear::{Product, QuantizedRows};

/// RMS norm: `x / sqrt(mean(x^2) + eps) * weight`. `x`: `[rows, width]` f32; `weight`: `[width]` f32; result
/// in `kind`.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, kind: Kind) -> Tensor {
    // SAFETY: the weight is only read, and it is no memory that `norm` writes.
    let norm = norms::RmsNorm { weight: unsafe { elements::<f32>(weight) }, eps: eps as f32 };
    norm_into(x, norm, kind)
}

/// The same, quantized.
pub(crate) fn rms_norm_and_quantize(x: &Tensor, weight: &Tensor, eps: f64) -> QuantizedRows {
    // SAFETY: as in `rms_norm`.
    norm_and_quantize(x, norms::RmsNorm { weight: unsafe { elements::<f32>(weight) }, eps: eps as f32 })
}

/// Layer norm: `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`. `x`: `[rows, width]` f32; `weight`,
/// `bias`: `[width]` f32; result in `kind`.
pub(crate) fn layer_norm(x: &Tensor, (weight, bias): (&Tensor, &Tensor), eps: f64, kind: Kind) -> Tensor {
    // SAFETY: as in `rms_norm`.
    let (weight, bias) = unsafe { (elements::<f32>(weight), elements::<f32>(bias)) };
    norm_into(x, norms::LayerNorm { weight, bias, eps: eps as f32 }, kind)
}

/// The same, quantized.
pub(crate) fn layer_norm_and_quantize(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    eps: f64,
) -> QuantizedRows {
    // SAFETY: as in `rms_norm`.
    let (weight, bias) = unsafe { (elements::<f32>(weight), elements::<f32>(bias)) };
    norm_and_quantize(x, norms::LayerNorm { weight, bias, eps: eps as f32 })
}

/// The same, with the normed numbers in the memory of `x`.
pub(crate) fn layer_norm_in_place_and_quantize(
    x: Tensor,
    (weight, bias): (&Tensor, &Tensor),
    eps: f64,
) -> (Tensor, QuantizedRows) {
    let mut x = made_contiguous(x);
    let mut quantized = QuantizedRows::empty(&x.size());
    // SAFETY: `x` was handed over, `quantized` is new, weight and bias are only read; no tensor operation
    // runs before the slices end.
    let (norm, numbers, values) = unsafe {
        let (weight, bias) = (elements::<f32>(weight), elements::<f32>(bias));
        let norm = norms::LayerNorm { weight, bias, eps: eps as f32 };
        (norm, elements_mut::<f32>(&mut x), elements_mut::<i8>(&mut quantized.values))
    };
    let outputs = (values, quantized.scales.as_mut_slice());
    norms::norm_in_place_and_quantize_rows(numbers, norm, outputs, &mut Vec::new());
    (x, quantized)
}

fn norm_into(x: &Tensor, norm: impl RowNorm, kind: Kind) -> Tensor {
    match kind {
        Kind::BFloat16 => norm_as::<bf16>(x, norm),
        _ => norm_as::<f32>(x, norm),
    }
}

fn norm_as<N: Number>(x: &Tensor, norm: impl RowNorm) -> Tensor {
    let x = x.contiguous();
    let mut normed = empty::<N>(&x.size());
    // SAFETY: `normed` is new; `x` is only read; no tensor operation runs before the slices end.
    let (x, out) = unsafe { (elements::<f32>(&x), elements_mut::<N>(&mut normed)) };
    norms::norm_rows(x, norm, out);
    normed
}

fn norm_and_quantize(x: &Tensor, norm: impl RowNorm) -> QuantizedRows {
    let x = x.contiguous();
    let mut quantized = QuantizedRows::empty(&x.size());
    // SAFETY: `quantized` is new; `x` is only read; no tensor operation runs before the slices end.
    let (x, values) = unsafe { (elements::<f32>(&x), elements_mut::<i8>(&mut quantized.values)) };
    norms::norm_and_quantize_rows(x, norm, (values, quantized.scales.as_mut_slice()), &mut Vec::new());
    quantized
}

/// RMS norm of each query head and each key head, in the memory of `x`: `[rows, all heads, head_dim]`, f32 or
/// bf16, where the first `heads[0]` are query heads and the next `heads[1]` key heads. `weights`:
/// `[head_dim]` f32 each.
pub(crate) fn norm_heads(x: Tensor, heads: [i64; 2], weights: [&Tensor; 2], eps: f64) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => norm_heads_of::<bf16>(x, heads, weights, eps),
        _ => norm_heads_of::<f32>(x, heads, weights, eps),
    }
}

fn norm_heads_of<N: Number>(x: Tensor, heads: [i64; 2], weights: [&Tensor; 2], eps: f64) -> Tensor {
    let mut x = made_contiguous(x);
    let (_, all_heads, head_dim) = x.size3().expect("queries, keys and values are [rows, heads, head_dim]");
    assert_apart(&x, weights);
    // SAFETY: `x` shares no memory with the weights, which are only read; no tensor operation runs before the
    // slices end.
    let norms =
        weights.map(|weight| norms::RmsNorm { weight: unsafe { elements::<f32>(weight) }, eps: eps as f32 });
    let rows = unsafe { elements_mut::<N>(&mut x) };
    let heads = heads.map(|heads| heads as usize);
    norms::norm_heads(rows, (all_heads * head_dim) as usize, (heads, norms), &mut Vec::new());
    x
}

/// Quantizes each row. `x`: `[rows, width]`, f32 or bf16.
pub(crate) fn quantize(x: &Tensor) -> QuantizedRows {
    match x.kind() {
        Kind::BFloat16 => quantize_from::<bf16>(x),
        _ => quantize_from::<f32>(x),
    }
}

fn quantize_from<N: Number>(x: &Tensor) -> QuantizedRows {
    let x = x.contiguous();
    let mut quantized = QuantizedRows::empty(&x.size());
    let (_, width) = x.size2().expect("rows are [rows, width]");
    // SAFETY: `quantized` is new; `x` is only read; no tensor operation runs before the slices end.
    let (x, values) = unsafe { (elements::<N>(&x), elements_mut::<i8>(&mut quantized.values)) };
    let outputs = (values, quantized.scales.as_mut_slice());
    rows::quantize_rows(x, width as usize, outputs, &mut Vec::new());
    quantized
}

impl QuantizedRows {
    /// Memory for `[rows, width]`.
    fn empty(size: &[i64]) -> Self {
        let &[rows, _] = size else { panic!("rows are [rows, width], not {size:?}") };
        Self { values: empty::<i8>(size), scales: vec![0.0; rows as usize] }
    }
}

/// The numbers of an int8 product, in `kind`.
pub(crate) fn scale_sums(product: &Product<'_>, kind: Kind) -> Tensor {
    match kind {
        Kind::BFloat16 => scale_sums_as::<bf16>(product),
        _ => scale_sums_as::<f32>(product),
    }
}

fn scale_sums_as<N: Number>(product: &Product<'_>) -> Tensor {
    let mut output = empty::<N>(&sums_tensor(product).size());
    // SAFETY: `output` is new, the sums are only read, and no tensor operation runs before the slices end.
    rows::scale_sums(unsafe { sums(product) }, unsafe { elements_mut::<N>(&mut output) });
    output
}

/// Appends the numbers of an int8 product to `output`.
pub(crate) fn append_scaled_sums(product: &Product<'_>, output: &mut Vec<f32>) {
    let start = output.len();
    output.resize(start + sums_tensor(product).numel(), 0.0);
    // SAFETY: the sums are only read, and no tensor operation runs before the slice ends.
    rows::scale_sums(unsafe { sums(product) }, &mut output[start..]);
}

/// Appends the numbers of one row's int8 product with some outputs: those that the whole product has there.
pub(crate) fn append_some_sums(
    weight: &Int8Weight,
    (column_scales, bias): (&[f32], Option<&[f32]>),
    (x, row): (&QuantizedRows, usize),
    outputs: &[u32],
    numbers: &mut Vec<f32>,
) {
    let values = x.values.contiguous();
    let (_, width) = values.size2().expect("rows are [rows, width]");
    let mut sums = Vec::with_capacity(outputs.len());
    // SAFETY: the values are only read, and no tensor operation runs before the slice ends.
    let all = unsafe { elements::<i8>(&values) };
    weight.append_sums(&all[row * width as usize..][..width as usize], outputs, &mut sums);
    let start = numbers.len();
    numbers.resize(start + outputs.len(), 0.0);
    let scales = (x.scales[row], column_scales, bias);
    rows::scale_some_sums((&sums, outputs), scales, &mut numbers[start..]);
}

/// `x + y` in the memory of `x` f32, where `y` is an int8 product of the same size.
pub(crate) fn add_scaled_sums(x: Tensor, product: &Product<'_>) -> Tensor {
    let mut x = made_contiguous(x);
    assert_eq!(x.size(), sums_tensor(product).size(), "a sum of equal sizes");
    assert_apart(&x, [sums_tensor(product)]);
    // SAFETY: `x` shares no memory with the sums, which are only read; no tensor operation runs before the
    // slices end.
    rows::add_scaled_sums(unsafe { sums(product) }, unsafe { elements_mut::<f32>(&mut x) });
    x
}

/// `x + y` in the memory of `x` f32; `y`: f32 or bf16 of the same size.
pub(crate) fn add(x: Tensor, y: &Tensor) -> Tensor {
    match y.kind() {
        Kind::BFloat16 => add_from::<bf16>(x, y),
        _ => add_from::<f32>(x, y),
    }
}

fn add_from<N: Number>(x: Tensor, y: &Tensor) -> Tensor {
    let (mut x, y) = (made_contiguous(x), y.contiguous());
    assert_eq!(x.size(), y.size(), "a sum of equal sizes");
    assert_apart(&x, [&y]);
    // SAFETY: they share no memory, and `y` is only read; no tensor operation runs before the slices end.
    rows::add_rows(unsafe { elements::<N>(&y) }, unsafe { elements_mut::<f32>(&mut x) });
    x
}

/// `activation(gate) * up` of an int8 product whose rows are gates, then ups.
pub(crate) fn gate_sums(product: &Product<'_>, activation: Activation) -> QuantizedRows {
    let (num_rows, width) = sums_tensor(product).size2().expect("a product is [rows, out]");
    let mut output = QuantizedRows::empty(&[num_rows, width / 2]);
    // SAFETY: `output` is new, the sums are only read, and no tensor operation runs before the slices end.
    let (sums, values) = unsafe { (sums(product), elements_mut::<i8>(&mut output.values)) };
    let outputs = (values, output.scales.as_mut_slice());
    match activation {
        Activation::Silu => rows::gate_sums::<Silu>(sums, outputs, &mut Vec::new()),
        Activation::GeluTanh => rows::gate_sums::<GeluTanh>(sums, outputs, &mut Vec::new()),
        Activation::Gelu => rows::gate_sums::<Gelu>(sums, outputs, &mut Vec::new()),
        Activation::Relu => rows::gate_sums::<Relu>(sums, outputs, &mut Vec::new()),
    }
    output
}

/// `activation(gate) * up`. `gate_up`: `[rows, 2 * width]`, f32 or bf16; result `[rows, width]` in the same
/// type.
pub(crate) fn gate(gate_up: &Tensor, activation: Activation) -> Tensor {
    match gate_up.kind() {
        Kind::BFloat16 => gate_of::<bf16>(gate_up, activation),
        _ => gate_of::<f32>(gate_up, activation),
    }
}

fn gate_of<N: Number>(gate_up: &Tensor, activation: Activation) -> Tensor {
    let gate_up = gate_up.contiguous();
    let (num_rows, width) = gate_up.size2().expect("a product is [rows, out]");
    let mut output = empty::<N>(&[num_rows, width / 2]);
    // SAFETY: `output` is new, the other is only read, and no tensor operation runs before the slices end.
    let (gate_up, out) = unsafe { (elements::<N>(&gate_up), elements_mut::<N>(&mut output)) };
    let width = width as usize / 2;
    match activation {
        Activation::Silu => rows::gate_rows::<Silu, N>(gate_up, width, out),
        Activation::GeluTanh => rows::gate_rows::<GeluTanh, N>(gate_up, width, out),
        Activation::Gelu => rows::gate_rows::<Gelu, N>(gate_up, width, out),
        Activation::Relu => rows::gate_rows::<Relu, N>(gate_up, width, out),
    }
    output
}

/// `activation(y)` of an int8 product `y`.
pub(crate) fn activate_sums(product: &Product<'_>, activation: Activation) -> QuantizedRows {
    let mut output = QuantizedRows::empty(&sums_tensor(product).size());
    // SAFETY: `output` is new, the sums are only read, and no tensor operation runs before the slices end.
    let (sums, values) = unsafe { (sums(product), elements_mut::<i8>(&mut output.values)) };
    let outputs = (values, output.scales.as_mut_slice());
    match activation {
        Activation::Silu => rows::activate_sums::<Silu>(sums, outputs, &mut Vec::new()),
        Activation::GeluTanh => rows::activate_sums::<GeluTanh>(sums, outputs, &mut Vec::new()),
        Activation::Gelu => rows::activate_sums::<Gelu>(sums, outputs, &mut Vec::new()),
        Activation::Relu => rows::activate_sums::<Relu>(sums, outputs, &mut Vec::new()),
    }
    output
}

/// `activation(x)` in the memory of `x`, f32 or bf16.
pub(crate) fn activate(x: Tensor, activation: Activation) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => activate_of::<bf16>(x, activation),
        _ => activate_of::<f32>(x, activation),
    }
}

fn activate_of<N: Number>(x: Tensor, activation: Activation) -> Tensor {
    let mut x = made_contiguous(x);
    // SAFETY: this is the only slice, and no tensor operation runs before it ends.
    let numbers = unsafe { elements_mut::<N>(&mut x) };
    match activation {
        Activation::Silu => rows::activate_rows::<Silu, N>(numbers),
        Activation::GeluTanh => rows::activate_rows::<GeluTanh, N>(numbers),
        Activation::Gelu => rows::activate_rows::<Gelu, N>(numbers),
        Activation::Relu => rows::activate_rows::<Relu, N>(numbers),
    }
    x
}

/// Rotary positions on the first `heads` heads of each row, in the memory of `x`
/// `[rows, all heads, head_dim]`, f32 or bf16. `positions`: `[rows]` int64; `cosines`, `sines`:
/// `[positions, head_dim / 2]` f32.
pub(crate) fn rotate(x: Tensor, heads: i64, positions: &Tensor, angles: (&Tensor, &Tensor)) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => rotate_in::<bf16>(x, heads, positions, angles),
        _ => rotate_in::<f32>(x, heads, positions, angles),
    }
}

fn rotate_in<N: Number>(x: Tensor, heads: i64, positions: &Tensor, angles: (&Tensor, &Tensor)) -> Tensor {
    let (mut x, positions) = (made_contiguous(x), positions.contiguous());
    let (_, all_heads, head_dim) = x.size3().expect("queries and keys are [rows, heads, head_dim]");
    assert_apart(&x, [&positions, angles.0, angles.1]);
    // SAFETY: `x` shares no memory with the others, which are only read; no tensor operation runs before the
    // slices end.
    unsafe {
        rows::rotate_rows(
            elements_mut::<N>(&mut x),
            ((all_heads * head_dim) as usize, heads as usize),
            elements::<i64>(&positions),
            (elements::<f32>(angles.0), elements::<f32>(angles.1)),
            (head_dim as usize, angles.0.size()[1] as usize),
        );
    }
    x
}

/// The tensor itself if it is contiguous, else a copy.
fn made_contiguous(x: Tensor) -> Tensor {
    if x.is_contiguous() { x } else { x.contiguous() }
}

fn empty<E: Element>(size: &[i64]) -> Tensor {
    Tensor::empty(size, (E::KIND, Device::Cpu))
}

fn sums_tensor<'a>(product: &'a Product<'_>) -> &'a Tensor {
    match product {
        Product::Int8 { sums, .. } => sums,
        Product::Float { .. } => panic!("a float product has no integer sums"),
    }
}

/// # Safety
/// As for `elements`.
unsafe fn sums<'a>(product: &'a Product<'_>) -> rows::Sums<'a> {
    match product {
        Product::Int8 { sums, row_scales, column_scales, bias } => rows::Sums {
            // SAFETY: the caller's.
            sums: unsafe { elements::<i32>(sums) },
            row_scales,
            column_scales,
            bias: *bias,
        },
        Product::Float { .. } => panic!("a float product has no integer sums"),
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    #[test]
    #[should_panic(expected = "shares memory with another argument")]
    fn a_sum_in_the_memory_of_its_addend_is_refused() {
        let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let view = x.view([2, 3]);
        let _ = super::add(x, &view);
    }

    #[test]
    fn neighbours_in_one_tensor_share_nothing() {
        let both = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        let sum = super::add(both.narrow(0, 0, 2), &both.narrow(0, 2, 2));
        assert_eq!(sum.sum(Kind::Float).double_value(&[]), 12.0);
    }
}
