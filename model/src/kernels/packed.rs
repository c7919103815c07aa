//! Attention within each sequence of a packed batch, on the CPU, for prefill and encoding of prompts of
//! ordinary length.
//!
//! A prompt of some tens of tokens is too small for libtorch's products to pay off. Here a head's keys and
//! values are laid out once in f32; each query is then a few hundred vector instructions. A query sees a
//! number of first tokens of its sequence, unless they are too far away (`Scoring`). This covers causal,
//! bidirectional and prefix-LM attention. Two-pass softmax, f32 arithmetic. A row's result depends only on
//! its sequence.

use std::ops::Range;

use multiversion::multiversion;

use super::{
    attention::{HeadShape, Scoring, WIDE, add_scaled, add_weighted, cap_scores, softmax},
    bias::BiasTable,
    number::Number,
};

/// One sequence of a packed batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedSequence {
    /// Its tokens.
    pub(crate) len: usize,
    /// Tokens at its beginning that every query sees, beside those up to its own.
    pub(crate) seen_by_all: usize,
}

impl PackedSequence {
    /// The tokens that a token of the sequence sees.
    #[inline(always)]
    pub(crate) fn seen_by(self, token: usize, window: Option<usize>) -> Range<usize> {
        let end = (token + 1).max(self.seen_by_all).min(self.len);
        match window {
            None => 0..end,
            Some(window) => (token + 1).saturating_sub(window)..end.min(token.saturating_add(window)),
        }
    }
}

/// Queries, keys and values of a packed batch: `[rows, heads, head_dim]` and twice
/// `[rows, kv_heads, head_dim]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedHeads<'a, N> {
    pub(super) shape: HeadShape,
    pub(super) scoring: Scoring,
    pub(super) bias: Option<BiasTable<'a>>,
    pub(super) queries: &'a [N],
    pub(super) keys: &'a [N],
    pub(super) values: &'a [N],
}

/// `softmax(scale * q k^T + bias) v` within each sequence. `output`: `[rows, heads, head_dim]`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn attend_packed<N: Number>(
    packed: PackedHeads<'_, N>,
    sequences: &[PackedSequence],
    output: &mut [N],
) {
    let HeadShape { heads, kv_heads, head_dim } = packed.shape;
    let mut scratch = HeadScratch::default();
    let mut first_row = 0;
    for sequence in sequences {
        for kv_head in 0..kv_heads {
            scratch.load(packed, (first_row, sequence.len), kv_head);
            for row in 0..sequence.len {
                let seen = sequence.seen_by(row, packed.scoring.window);
                for head in kv_head * heads / kv_heads..(kv_head + 1) * heads / kv_heads {
                    let start = ((first_row + row) * heads + head) * head_dim;
                    let query = &packed.queries[start..start + head_dim];
                    let output = &mut output[start..start + head_dim];
                    let first_distance = seen.start as i64 - row as i64;
                    let bias = packed.bias.map(|bias| (bias, head, first_distance));
                    scratch.attend((query, packed.scoring), bias, seen.clone(), output);
                }
            }
        }
        first_row += sequence.len;
    }
}

/// One key and value head of one sequence.
#[derive(Debug, Default)]
struct HeadScratch {
    keys: Vec<f32>,    // [chunks of WIDE tokens, head_dim, WIDE]
    values: Vec<f32>,  // [len, head_dim]
    weights: Vec<f32>, // [whole chunks]
    sums: Vec<f32>,    // [head_dim]
}

impl HeadScratch {
    #[inline(always)]
    fn load<N: Number>(
        &mut self,
        packed: PackedHeads<'_, N>,
        (first_row, len): (usize, usize),
        kv_head: usize,
    ) {
        let HeadShape { kv_heads, head_dim, .. } = packed.shape;
        self.keys.clear();
        self.keys.resize(len.next_multiple_of(WIDE) * head_dim, 0.0);
        self.values.resize(len * head_dim, 0.0);
        for token in 0..len {
            let start = ((first_row + token) * kv_heads + kv_head) * head_dim;
            let place = token / WIDE * WIDE * head_dim + token % WIDE;
            for (channel, key) in packed.keys[start..start + head_dim].iter().enumerate() {
                self.keys[place + channel * WIDE] = key.to_f32();
            }
            let values = &mut self.values[token * head_dim..(token + 1) * head_dim];
            for (wide, value) in values.iter_mut().zip(&packed.values[start..start + head_dim]) {
                *wide = value.to_f32();
            }
        }
    }

    #[inline(always)]
    fn attend<N: Number>(
        &mut self,
        (query, scoring): (&[N], Scoring),
        bias: Option<(BiasTable<'_>, usize, i64)>, // of a head, from the first seen key's distance on
        seen: Range<usize>,
        output: &mut [N],
    ) {
        let head_dim = query.len();
        let first_chunk = seen.start / WIDE;
        let unseen = first_chunk * WIDE;
        let places = seen.start - unseen..seen.end - unseen;
        self.weights.resize(places.end.next_multiple_of(WIDE), 0.0);
        let chunks = self.keys.chunks_exact(WIDE * head_dim).skip(first_chunk);
        for (scores, keys) in self.weights.as_chunks_mut::<WIDE>().0.iter_mut().zip(chunks) {
            let mut sums = [0.0_f32; WIDE];
            for (q, keys) in query.iter().zip(keys.as_chunks::<WIDE>().0) {
                add_scaled(&mut sums, q.to_f32() * scoring.scale, keys);
            }
            *scores = sums;
        }
        if let Some(cap) = scoring.cap {
            cap_scores(&mut self.weights, cap);
        }
        if let Some((bias, head, first_distance)) = bias {
            bias.add(head, &mut self.weights[places.clone()], first_distance);
        }
        softmax(&mut self.weights, places.clone());
        self.sums.clear();
        self.sums.resize(head_dim, 0.0);
        let values = &self.values[seen.start * head_dim..seen.end * head_dim];
        add_weighted(&mut self.sums, &self.weights[places], values);
        for (out, &sum) in output.iter_mut().zip(&self.sums) {
            *out = N::from_f32(sum);
        }
    }
}
