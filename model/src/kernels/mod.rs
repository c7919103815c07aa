//! CPU kernels for operations that are slow in libtorch: attention, and the small operations between
//! products.
//!
//! The arithmetic is in safe functions over slices (`attention.rs`, `packed.rs`, `norms.rs`, `rows.rs`),
//! compiled once per instruction set and chosen at run time. Sums run in a fixed number of lanes
//! (`baton-lanes`) with fused multiply-adds. A row's bits therefore depend neither on the other rows nor on
//! the instruction set. This file and `row_operations.rs` are the doors for tensors.
//!
//! This is the workspace's unsafe code: slices of tensor memory (`slices.rs`), vector instructions
//! (`int8_product/`), and calls that `multiversion` generates after it has queried the CPU.
//! `decoding/src/kernels.rs` also has calls of that last kind.
#![allow(unsafe_code)]

mod activation;
mod attention;
mod bias;
mod int8_product;
mod norms;
mod number;
mod packed;
mod recurrence;
mod row_operations;
mod rows;
mod slices;

use half::bf16;
use tch::{Kind, Tensor};

use self::{
    attention::{BlockStore, attend_cached, write_token},
    number::Number,
    packed::{PackedHeads, attend_packed},
    recurrence::recur_rows,
    slices::{assert_apart, elements, elements_mut},
};

pub use self::attention::Scoring;
pub(crate) use self::{
    activation::Activation,
    attention::{BLOCK_TOKENS, CachedRow, HeadShape, Scratch, TokenPlace},
    bias::BiasTable,
    int8_product::{Instructions, Int8Weight},
    packed::PackedSequence,
    row_operations::{
        activate, activate_sums, add, add_scaled_sums, append_scaled_sums, append_some_sums, gate, gate_sums,
        layer_norm, layer_norm_and_quantize, layer_norm_in_place_and_quantize, norm_heads, quantize,
        rms_norm, rms_norm_and_quantize, rotate, scale_sums,
    },
};

/// Keys and values of one layer, on the CPU or elsewhere.
#[derive(Debug)]
pub(crate) struct LayerBlocks {
    /// `[blocks, kv_heads, head_dim, BLOCK_TOKENS]`
    pub(crate) keys: Tensor,
    /// `[blocks, kv_heads, BLOCK_TOKENS, head_dim]`
    pub(crate) values: Tensor,
}

/// Writes the keys and values of some tokens, each `[places, kv_heads, head_dim]` in the cache's type, into
/// their places.
///
/// # Panics
/// A tensor is not on the CPU or has another type than the cache; a place is outside the cache.
pub(crate) fn write_tokens(
    layer: &mut LayerBlocks,
    shape: HeadShape,
    places: &[TokenPlace],
    (keys, values): (&Tensor, &Tensor),
) {
    match layer.keys.kind() {
        Kind::BFloat16 => write_tokens_of::<bf16>(layer, shape, places, (keys, values)),
        _ => write_tokens_of::<f32>(layer, shape, places, (keys, values)),
    }
}

fn write_tokens_of<N: Number>(
    layer: &mut LayerBlocks,
    shape: HeadShape,
    places: &[TokenPlace],
    (keys, values): (&Tensor, &Tensor),
) {
    let (keys, values) = (keys.contiguous(), values.contiguous());
    let width = shape.kv_heads * shape.head_dim;
    assert_eq!(keys.numel(), places.len() * width, "one key per place");
    assert_eq!(values.numel(), places.len() * width, "one value per place");
    assert_apart(&layer.keys, [&layer.values, &keys, &values]);
    assert_apart(&layer.values, [&keys, &values]);
    // SAFETY: the cache's two tensors are lent to this call alone and share memory with no other argument;
    // the new keys and values are only read; no tensor operation runs before the slices end.
    let (stored_keys, stored_values, keys, values) = unsafe {
        let stored = (elements_mut::<N>(&mut layer.keys), elements_mut::<N>(&mut layer.values));
        (stored.0, stored.1, elements::<N>(&keys), elements::<N>(&values))
    };
    let tokens = keys.chunks_exact(width).zip(values.chunks_exact(width));
    for (&place, token) in places.iter().zip(tokens) {
        write_token(shape, (&mut *stored_keys, &mut *stored_values), place, token);
    }
}

/// One step of a recurrent decoder's block, and its states into the cache: `c = f * c_before + (1 - f) *
/// candidate`, where `f = sigmoid(gate)`; before a row's first token `c` is zero.
///
/// `rows`: the cached tokens of each row, its new token included; `gates`: `[rows, 2 * heads * head_dim]`
/// f32, gates, then candidates; result `[rows, heads * head_dim]` f32.
///
/// # Panics
/// A tensor is not on the CPU, or a row names a block outside the cache.
pub(crate) fn recur(
    layer: &mut LayerBlocks,
    shape: HeadShape,
    rows: &[CachedRow<'_>],
    gates: &Tensor,
) -> Tensor {
    match layer.keys.kind() {
        Kind::BFloat16 => recur_of::<bf16>(layer, shape, rows, gates),
        _ => recur_of::<f32>(layer, shape, rows, gates),
    }
}

fn recur_of<N: Number>(
    layer: &mut LayerBlocks,
    shape: HeadShape,
    rows: &[CachedRow<'_>],
    gates: &Tensor,
) -> Tensor {
    let gates = gates.contiguous();
    let width = shape.kv_heads * shape.head_dim;
    assert_eq!(gates.numel(), rows.len() * 2 * width, "a gate and a candidate for each channel");
    let mut states = Tensor::empty([rows.len() as i64, width as i64], (Kind::Float, tch::Device::Cpu));
    assert_apart(&layer.keys, [&layer.values, &gates]);
    assert_apart(&layer.values, [&gates]);
    // SAFETY: the cache's two tensors are lent to this call alone and share memory with no other argument;
    // `states` is new; the gates are only read; no tensor operation runs before the slices end.
    let (cached, gates, out) = unsafe {
        let cached = (elements_mut::<N>(&mut layer.keys), elements_mut::<N>(&mut layer.values));
        (cached, elements::<f32>(&gates), elements_mut::<f32>(&mut states))
    };
    recur_rows(cached, shape, rows, (gates, out));
    states
}

/// One query per row and head against the row's visible cache: `softmax(scale * q k^T + bias) v`.
///
/// `queries`: `[rows, heads, head_dim]` in the cache's type; result `[rows, heads * head_dim]` in the same
/// type.
///
/// # Panics
/// A tensor is not on the CPU or has another type than the cache; a row names a block outside the cache.
pub(crate) fn decode_attention(
    layer: &LayerBlocks,
    (shape, scoring, bias): (HeadShape, Scoring, Option<BiasTable<'_>>),
    (rows, queries): (&[CachedRow<'_>], &Tensor),
    scratch: &mut Scratch,
) -> Tensor {
    match layer.keys.kind() {
        Kind::BFloat16 => {
            decode_attention_of::<bf16>(layer, (shape, scoring, bias), (rows, queries), scratch)
        }
        _ => decode_attention_of::<f32>(layer, (shape, scoring, bias), (rows, queries), scratch),
    }
}

fn decode_attention_of<N: Number>(
    layer: &LayerBlocks,
    (shape, scoring, bias): (HeadShape, Scoring, Option<BiasTable<'_>>),
    (rows, queries): (&[CachedRow<'_>], &Tensor),
    scratch: &mut Scratch,
) -> Tensor {
    let queries = queries.contiguous();
    let width = (shape.heads * shape.head_dim) as i64;
    let mut output = Tensor::empty([rows.len() as i64, width], (N::KIND, tch::Device::Cpu));
    // SAFETY: `output` is new and shares memory with nothing; the others are only read; no tensor operation
    // runs before the slices end. The new memory is written before it is read, and every bit pattern is a
    // number.
    let (store, queries, out) = unsafe {
        let store =
            BlockStore { shape, keys: elements::<N>(&layer.keys), values: elements::<N>(&layer.values) };
        (store, elements::<N>(&queries), elements_mut::<N>(&mut output))
    };
    attend_cached((store, scoring, bias), rows, (queries, out), scratch);
    output
}

/// Attention within each sequence of a packed batch, one after the other: `softmax(scale * q k^T + bias) v`.
///
/// `q`: `[rows, heads, head_dim]`; `k`, `v`: `[rows, kv_heads, head_dim]`, all f32 or all bf16; result
/// `[rows, heads * head_dim]` in the same type.
///
/// # Panics
/// A tensor is not on the CPU, their types differ, or the sequences are not as long as there are rows.
pub(crate) fn packed_attention(
    sequences: &[PackedSequence],
    (scoring, bias): (Scoring, Option<BiasTable<'_>>),
    (q, k, v): (&Tensor, &Tensor, &Tensor),
) -> Tensor {
    match q.kind() {
        Kind::BFloat16 => packed_attention_of::<bf16>(sequences, (scoring, bias), (q, k, v)),
        _ => packed_attention_of::<f32>(sequences, (scoring, bias), (q, k, v)),
    }
}

fn packed_attention_of<N: Number>(
    sequences: &[PackedSequence],
    (scoring, bias): (Scoring, Option<BiasTable<'_>>),
    (q, k, v): (&Tensor, &Tensor, &Tensor),
) -> Tensor {
    let (rows, heads, head_dim) = q.size3().expect("queries are [rows, heads, head_dim]");
    let shape =
        HeadShape { heads: heads as usize, kv_heads: k.size()[1] as usize, head_dim: head_dim as usize };
    let (q, k, v) = (q.contiguous(), k.contiguous(), v.contiguous());
    assert_eq!(sequences.iter().map(|s| s.len).sum::<usize>(), rows as usize, "every row is in a sequence");
    assert_eq!(k.size(), [rows, shape.kv_heads as i64, head_dim], "a key for each row");
    assert_eq!(v.size(), k.size(), "a value for each key");
    let mut output = Tensor::empty([rows, heads * head_dim], (N::KIND, tch::Device::Cpu));
    // SAFETY: `output` is new; the others are only read; no tensor operation runs before the slices end.
    let (packed, out) = unsafe {
        let (queries, keys, values) = (elements::<N>(&q), elements::<N>(&k), elements::<N>(&v));
        (PackedHeads { shape, scoring, bias, queries, keys, values }, elements_mut::<N>(&mut output))
    };
    attend_packed(packed, sequences, out);
    output
}
