//! The doors to `rows.rs`: tensors in, tensors out. All tensors are on the CPU; a tensor that is not contiguous is copied first.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::{
    number::{Element, Number},
    rows,
    slices::{elements, elements_mut},
};
use crate::linear::{Product, QuantizedRows};

/// `x / sqrt(mean(x^2) + eps) * weight`. `x`: `[rows, width]` f32; `weight`: `[width]` f32; result in `kind`.
pub(crate) fn norm(x: &Tensor, weight: &Tensor, eps: f64, kind: Kind) -> Tensor {
    match kind {
        Kind::BFloat16 => norm_as::<bf16>(x, weight, eps),
        _ => norm_as::<f32>(x, weight, eps),
    }
}

fn norm_as<N: Number>(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    let x = x.contiguous();
    let mut normed = empty::<N>(&x.size());
    // SAFETY: `normed` is new; the others are only read; no tensor operation runs before the slices end.
    let (x, weight, out) =
        unsafe { (elements::<f32>(&x), elements::<f32>(weight), elements_mut::<N>(&mut normed)) };
    rows::norm_rows(x, weight, eps as f32, out);
    normed
}

/// The same, quantized.
pub(crate) fn norm_and_quantize(x: &Tensor, weight: &Tensor, eps: f64) -> QuantizedRows {
    let x = x.contiguous();
    let mut quantized = QuantizedRows::empty(&x.size());
    // SAFETY: `quantized` is new; the others are only read; no tensor operation runs before the slices end.
    let (x, weight, values) =
        unsafe { (elements::<f32>(&x), elements::<f32>(weight), elements_mut::<i8>(&mut quantized.values)) };
    let outputs = (values, quantized.scales.as_mut_slice());
    rows::norm_and_quantize_rows(x, (weight, eps as f32), outputs, &mut Vec::new());
    quantized
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

/// The numbers of an int8 product, in place of what `output` holds.
pub(crate) fn scale_sums_into(product: &Product<'_>, output: &mut Vec<f32>) {
    output.resize(sums_tensor(product).numel(), 0.0);
    // SAFETY: the sums are only read, and no tensor operation runs before the slice ends.
    rows::scale_sums(unsafe { sums(product) }, output.as_mut_slice());
}

/// `x + y` in the memory of `x` f32, where `y` is an int8 product of the same size.
pub(crate) fn add_scaled_sums(x: Tensor, product: &Product<'_>) -> Tensor {
    let mut x = made_contiguous(x);
    assert_eq!(x.size(), sums_tensor(product).size(), "a sum of equal sizes");
    // SAFETY: `x` was handed over and is no view of the sums, which are only read; no tensor operation runs before the slices end.
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
    // SAFETY: `x` was handed over and `y` is a product, so they share no memory; no tensor operation runs before the slices end.
    rows::add_rows(unsafe { elements::<N>(&y) }, unsafe { elements_mut::<f32>(&mut x) });
    x
}

/// `silu(gate) * up` of an int8 product whose rows are gates, then ups.
pub(crate) fn swiglu_sums(product: &Product<'_>) -> QuantizedRows {
    let (num_rows, width) = sums_tensor(product).size2().expect("a product is [rows, out]");
    let mut output = QuantizedRows::empty(&[num_rows, width / 2]);
    // SAFETY: `output` is new, the sums are only read, and no tensor operation runs before the slices end.
    let (sums, values) = unsafe { (sums(product), elements_mut::<i8>(&mut output.values)) };
    rows::swiglu_sums(sums, (values, output.scales.as_mut_slice()), &mut Vec::new());
    output
}

/// `silu(gate) * up`. `gate_up`: `[rows, 2 * width]`, f32 or bf16; result `[rows, width]` in the same type.
pub(crate) fn swiglu(gate_up: &Tensor) -> Tensor {
    match gate_up.kind() {
        Kind::BFloat16 => swiglu_of::<bf16>(gate_up),
        _ => swiglu_of::<f32>(gate_up),
    }
}

fn swiglu_of<N: Number>(gate_up: &Tensor) -> Tensor {
    let gate_up = gate_up.contiguous();
    let (num_rows, width) = gate_up.size2().expect("a product is [rows, out]");
    let mut output = empty::<N>(&[num_rows, width / 2]);
    // SAFETY: `output` is new, the other is only read, and no tensor operation runs before the slices end.
    let (gate_up, out) = unsafe { (elements::<N>(&gate_up), elements_mut::<N>(&mut output)) };
    rows::swiglu_rows(gate_up, width as usize / 2, out);
    output
}

/// Rotary positions on the first `heads` heads of each row, in the memory of `x` `[rows, all heads, head_dim]`, f32 or bf16.
/// `positions`: `[rows]` int64; `cosines`, `sines`: `[positions, head_dim / 2]` f32.
pub(crate) fn rotate(x: Tensor, heads: i64, positions: &Tensor, angles: (&Tensor, &Tensor)) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => rotate_in::<bf16>(x, heads, positions, angles),
        _ => rotate_in::<f32>(x, heads, positions, angles),
    }
}

fn rotate_in<N: Number>(x: Tensor, heads: i64, positions: &Tensor, angles: (&Tensor, &Tensor)) -> Tensor {
    let (mut x, positions) = (made_contiguous(x), positions.contiguous());
    let (_, all_heads, head_dim) = x.size3().expect("queries and keys are [rows, heads, head_dim]");
    // SAFETY: `x` was handed over; the others are only read; no tensor operation runs before the slices end.
    unsafe {
        rows::rotate_rows(
            elements_mut::<N>(&mut x),
            ((all_heads * head_dim) as usize, heads as usize),
            elements::<i64>(&positions),
            (elements::<f32>(angles.0), elements::<f32>(angles.1)),
            head_dim as usize / 2,
        );
    }
    x
}

/// The tensor itself where it can be, else a copy.
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
