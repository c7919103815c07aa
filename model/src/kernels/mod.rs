//! CPU kernels for what libtorch does slowly: decode attention over the cache, and greedy selection.
//!
//! The arithmetic is in safe functions over slices (`attention.rs`, `greedy.rs`), compiled once per instruction set and chosen at
//! run time. Sums run in a fixed number of lanes (`lanes.rs`) with fused multiply-adds, so a row's bits depend neither on the other
//! rows nor on the instruction set. This file is the door for tensors, and `slices.rs` the only unsafe code of the workspace.
// Slices of tensor memory (`slices.rs`), and the calls that `multiversion` generates after it has asked the CPU what it has.
#![allow(unsafe_code)]

mod attention;
mod greedy;
mod lanes;
mod number;
mod slices;

use half::bf16;
use tch::{Kind, Tensor};

use self::{
    attention::{BlockStore, attend_cached, write_token},
    greedy::select_greedily,
    number::Number,
    slices::{elements, elements_mut},
};

pub(crate) use self::{
    attention::{BLOCK_TOKENS, CachedRow, HeadShape, Scratch, TokenPlace},
    greedy::Greedy,
};

/// Keys and values of one layer, on the CPU or elsewhere.
#[derive(Debug)]
pub(crate) struct LayerBlocks {
    /// `[blocks, kv_heads, head_dim, BLOCK_TOKENS]`
    pub(crate) keys: Tensor,
    /// `[blocks, kv_heads, BLOCK_TOKENS, head_dim]`
    pub(crate) values: Tensor,
}

/// Writes the keys and values of some tokens, each `[places, kv_heads, head_dim]` in the cache's type, into their places.
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
    // SAFETY: the cache's two tensors are lent to this call alone and share memory with nothing; the new keys and values are only
    // read; no tensor operation runs before the slices end.
    let (stored_keys, stored_values, keys, values) = unsafe {
        let stored = (elements_mut::<N>(&mut layer.keys), elements_mut::<N>(&mut layer.values));
        (stored.0, stored.1, elements::<N>(&keys), elements::<N>(&values))
    };
    let tokens = keys.chunks_exact(width).zip(values.chunks_exact(width));
    for (&place, token) in places.iter().zip(tokens) {
        write_token(shape, (&mut *stored_keys, &mut *stored_values), place, token);
    }
}

/// One query per row and head against all that the row has cached: `softmax(q k^T / sqrt(head_dim)) v`.
///
/// `queries`: `[rows, heads, head_dim]` in the cache's type; result `[rows, heads * head_dim]` in the same type.
///
/// # Panics
/// A tensor is not on the CPU or has another type than the cache; a row names a block outside the cache.
pub(crate) fn decode_attention(
    layer: &LayerBlocks,
    shape: HeadShape,
    (rows, queries): (&[CachedRow<'_>], &Tensor),
    scratch: &mut Scratch,
) -> Tensor {
    match layer.keys.kind() {
        Kind::BFloat16 => decode_attention_of::<bf16>(layer, shape, (rows, queries), scratch),
        _ => decode_attention_of::<f32>(layer, shape, (rows, queries), scratch),
    }
}

fn decode_attention_of<N: Number>(
    layer: &LayerBlocks,
    shape: HeadShape,
    (rows, queries): (&[CachedRow<'_>], &Tensor),
    scratch: &mut Scratch,
) -> Tensor {
    let queries = queries.contiguous();
    let width = (shape.heads * shape.head_dim) as i64;
    let mut output = Tensor::empty([rows.len() as i64, width], (N::KIND, tch::Device::Cpu));
    // SAFETY: `output` is new and shares memory with nothing; the others are only read; no tensor operation runs before the slices
    // end. The new memory is written before it is read, and every bit pattern is a number.
    let (store, queries, out) = unsafe {
        let store =
            BlockStore { shape, keys: elements::<N>(&layer.keys), values: elements::<N>(&layer.values) };
        (store, elements::<N>(&queries), elements_mut::<N>(&mut output))
    };
    attend_cached(store, rows, (queries, out), scratch);
    output
}

/// The most likely token of each row and its log-probability; of several, the lowest. Only the CPU knows this order, so logits come
/// here from wherever they were computed.
///
/// `logits`: `[rows, vocab]`, f32 or bf16; `masked`: per row, a token that may not be chosen; `scratch` is overwritten.
/// A row without a single number above minus infinity gives token 0 and NaN.
///
/// # Panics
/// `logits` has another type, or `masked` another length.
pub(crate) fn greedy_tokens(logits: &Tensor, masked: &[Option<u32>], scratch: &mut Vec<f32>) -> Vec<Greedy> {
    let logits = logits.to_device(tch::Device::Cpu).contiguous();
    match logits.kind() {
        Kind::BFloat16 => greedy_tokens_of::<bf16>(&logits, masked, scratch),
        _ => greedy_tokens_of::<f32>(&logits, masked, scratch),
    }
}

fn greedy_tokens_of<N: Number>(
    logits: &Tensor,
    masked: &[Option<u32>],
    scratch: &mut Vec<f32>,
) -> Vec<Greedy> {
    let (rows, vocab) = logits.size2().expect("logits are [rows, vocab]");
    assert_eq!(rows as usize, masked.len(), "one mask per row");
    // SAFETY: the logits are only read, and no tensor operation runs before the slice ends.
    let elements = unsafe { elements::<N>(logits) };
    let rows = elements.chunks_exact(vocab as usize);
    rows.zip(masked).map(|(row, &masked)| select_greedily(row, masked, scratch)).collect()
}
