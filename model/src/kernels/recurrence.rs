//! One step of a recurrent decoder. The cache keeps its states token by token, so rows fork, rewind and leave
//! like rows that attend.
//!
//! The state after a token is f32. The cache has room for two numbers, a key and a value: the state rounded
//! to the cache's type, and the rounding error.

use multiversion::multiversion;

use super::{
    activation::sigmoid,
    attention::{BLOCK_TOKENS, CachedRow, HeadShape, TokenPlace},
    number::Number,
};

/// `c = f * c_before + (1 - f) * candidate`, where `f = sigmoid(gate)`, row by row in this order, so that a
/// slot may have several rows.
///
/// `keys`: `[blocks, heads, head_dim, BLOCK_TOKENS]`; `values`: `[blocks, heads, BLOCK_TOKENS, head_dim]`;
/// `rows`: the cached tokens of each row, this one included; `gates`: `[rows, 2 * width]`, gates, then
/// candidates; `states`: `[rows, width]`, overwritten.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn recur_rows<N: Number>(
    (keys, values): (&mut [N], &mut [N]),
    shape: HeadShape,
    rows: &[CachedRow<'_>],
    (gates, states): (&[f32], &mut [f32]),
) {
    let HeadShape { kv_heads, head_dim, .. } = shape;
    let width = kv_heads * head_dim;
    let key_of =
        |place: TokenPlace, channel: usize| (place.block * width + channel) * BLOCK_TOKENS + place.offset;
    let values_of = |place: TokenPlace, head: usize| {
        let start = ((place.block * kv_heads + head) * BLOCK_TOKENS + place.offset) * head_dim;
        start..start + head_dim
    };
    let inputs = gates.chunks_exact(2 * width).zip(states.chunks_exact_mut(width));
    for (row, (gates, state)) in rows.iter().zip(inputs) {
        let place = |token: usize| TokenPlace {
            block: row.blocks[token / BLOCK_TOKENS],
            offset: token % BLOCK_TOKENS,
        };
        match row.len.checked_sub(2).map(place) {
            None => state.fill(0.0),
            Some(before) => {
                for (head, state) in state.chunks_exact_mut(head_dim).enumerate() {
                    let lost = &values[values_of(before, head)];
                    for (dim, (state, lost)) in state.iter_mut().zip(lost).enumerate() {
                        *state = keys[key_of(before, head * head_dim + dim)].to_f32() + lost.to_f32();
                    }
                }
            }
        }
        let (gates, candidates) = gates.split_at(width);
        for ((state, &gate), &candidate) in state.iter_mut().zip(gates).zip(candidates) {
            let forget = sigmoid(gate);
            *state = forget.mul_add(*state - candidate, candidate);
        }
        let place = place(row.len - 1);
        for (head, state) in state.chunks_exact(head_dim).enumerate() {
            let lost = &mut values[values_of(place, head)];
            for (dim, (&state, lost)) in state.iter().zip(lost).enumerate() {
                let kept = N::from_f32(state);
                keys[key_of(place, head * head_dim + dim)] = kept;
                *lost = N::from_f32(state - kept.to_f32());
            }
        }
    }
}
