//! Decode attention on the CPU: one query per row against all keys and values the row has cached.
//!
//! libtorch's batched products spend microseconds on each (row, head) pair with one query, whatever its size; here the pair is a few
//! hundred vector instructions. Keys lie in blocks of 16 tokens with the tokens innermost, so one vector holds one channel of 16
//! keys and scores need no horizontal sums; values lie with the channels innermost, so the weighted sum needs none either.
//! Two-pass softmax, f32 arithmetic. A row's result depends on the row alone.

use std::ops::Range;

use multiversion::multiversion;

use super::{
    lanes::{LANES, exp, max_of, sum_of},
    number::Number,
};

/// Tokens per cache block: as many as lanes.
pub(crate) const BLOCK_TOKENS: usize = LANES;

/// How many heads there are and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadShape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl HeadShape {
    fn queries_per_kv_head(self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Where one row's tokens are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachedRow<'a> {
    /// Its blocks, in the order of its tokens; at least enough for `len`.
    pub(crate) blocks: &'a [usize],
    /// Tokens cached, at least 1.
    pub(crate) len: usize,
}

/// Where one token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenPlace {
    pub(crate) block: usize,
    /// Its place in the block, below [`BLOCK_TOKENS`].
    pub(crate) offset: usize,
}

/// One layer's cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockStore<'a, N> {
    pub(crate) shape: HeadShape,
    /// `[blocks, kv_heads, head_dim, BLOCK_TOKENS]`
    pub(crate) keys: &'a [N],
    /// `[blocks, kv_heads, BLOCK_TOKENS, head_dim]`
    pub(crate) values: &'a [N],
}

impl<'a, N> BlockStore<'a, N> {
    #[inline(always)]
    fn head(self, kv_head: usize) -> HeadBlocks<'a, N> {
        HeadBlocks { store: self, kv_head }
    }
}

/// One key and value head's part of a layer's cache.
#[derive(Debug, Clone, Copy)]
struct HeadBlocks<'a, N> {
    store: BlockStore<'a, N>,
    kv_head: usize,
}

impl<'a, N> HeadBlocks<'a, N> {
    /// `[head_dim, BLOCK_TOKENS]`
    #[inline(always)]
    fn keys(&self, block: usize) -> &'a [N] {
        &self.store.keys[self.range(block)]
    }

    /// `[BLOCK_TOKENS, head_dim]`
    #[inline(always)]
    fn values(&self, block: usize) -> &'a [N] {
        &self.store.values[self.range(block)]
    }

    #[inline(always)]
    fn range(&self, block: usize) -> Range<usize> {
        let HeadShape { kv_heads, head_dim, .. } = self.store.shape;
        let head_block_numel = BLOCK_TOKENS * head_dim;
        let start = (block * kv_heads + self.kv_head) * head_block_numel;
        start..start + head_block_numel
    }
}

/// Buffers that live from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    query: Vec<f32>,   // [head_dim]
    weights: Vec<f32>, // [padded len]
    sum: Vec<f32>,     // [head_dim]
}

/// `softmax(q k^T / sqrt(head_dim)) v` for each row. `queries`, `output`: `[rows, heads, head_dim]`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn attend_cached<N: Number>(
    store: BlockStore<'_, N>,
    rows: &[CachedRow<'_>],
    (queries, output): (&[N], &mut [N]),
    scratch: &mut Scratch,
) {
    let shape = store.shape;
    let row_numel = shape.heads * shape.head_dim;
    assert_eq!(queries.len(), rows.len() * row_numel, "one query per row and head");
    assert_eq!(output.len(), queries.len(), "one output per query");
    for ((row, queries), output) in
        rows.iter().zip(queries.chunks_exact(row_numel)).zip(output.chunks_exact_mut(row_numel))
    {
        let heads = queries.chunks_exact(shape.head_dim).zip(output.chunks_exact_mut(shape.head_dim));
        for (head, (query, output)) in heads.enumerate() {
            attend_head(store.head(head / shape.queries_per_kv_head()), row, (query, output), scratch);
        }
    }
}

#[inline(always)]
fn attend_head<N: Number>(
    head: HeadBlocks<'_, N>,
    row: &CachedRow<'_>,
    (query, output): (&[N], &mut [N]),
    scratch: &mut Scratch,
) {
    let head_dim = query.len();
    let scale = (head_dim as f32).sqrt().recip();
    scratch.query.clear();
    scratch.query.extend(query.iter().map(|&q| q.to_f32() * scale));
    let blocks = &row.blocks[..row.len.div_ceil(BLOCK_TOKENS)];

    scratch.weights.clear();
    for &block in blocks {
        scratch.weights.extend_from_slice(&block_scores(&scratch.query, head.keys(block)));
    }
    scratch.weights[row.len..].fill(f32::NEG_INFINITY); // places of the last block that hold no token of this row

    let max = max_of(&scratch.weights);
    for weight in &mut scratch.weights {
        *weight = exp(*weight - max);
    }
    let weight_sum = sum_of(&scratch.weights, |weight| weight);

    scratch.sum.clear();
    scratch.sum.resize(head_dim, 0.0);
    let mut weights = scratch.weights[..row.len].iter();
    for &block in blocks {
        // The values first: a zip asks its first part first, and a weight must not be taken for a block that has ended.
        for (value, &weight) in head.values(block).chunks_exact(head_dim).zip(&mut weights) {
            add_scaled(&mut scratch.sum, weight, value);
        }
    }
    let normalizer = weight_sum.recip();
    for (out, &sum) in output.iter_mut().zip(&scratch.sum) {
        *out = N::from_f32(sum * normalizer);
    }
}

/// Scores of a block's 16 keys. `keys`: `[head_dim, BLOCK_TOKENS]`.
#[inline(always)]
fn block_scores<N: Number>(query: &[f32], keys: &[N]) -> [f32; BLOCK_TOKENS] {
    let mut scores = [0.0; BLOCK_TOKENS];
    for (&q, channel) in query.iter().zip(keys.chunks_exact(BLOCK_TOKENS)) {
        for (score, &key) in scores.iter_mut().zip(channel) {
            *score = q.mul_add(key.to_f32(), *score);
        }
    }
    scores
}

/// `sum += weight * value`, channel by channel.
#[inline(always)]
fn add_scaled<N: Number>(sum: &mut [f32], weight: f32, value: &[N]) {
    for (sum, &value) in sum.iter_mut().zip(value) {
        *sum = weight.mul_add(value.to_f32(), *sum);
    }
}

/// Writes one token's keys and values, each `[kv_heads, head_dim]`, into its place.
pub(super) fn write_token<N: Number>(
    shape: HeadShape,
    (keys, values): (&mut [N], &mut [N]), // a whole layer's, laid out as in `BlockStore`
    place: TokenPlace,
    (key, value): (&[N], &[N]),
) {
    let HeadShape { kv_heads, head_dim, .. } = shape;
    let heads = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
    for (kv_head, (key, value)) in heads.enumerate() {
        let start = (place.block * kv_heads + kv_head) * BLOCK_TOKENS * head_dim;
        for (channel, &k) in key.iter().enumerate() {
            keys[start + channel * BLOCK_TOKENS + place.offset] = k;
        }
        let start = start + place.offset * head_dim;
        values[start..start + head_dim].copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    const SHAPE: HeadShape = HeadShape { heads: 6, kv_heads: 2, head_dim: 20 };
    const NUM_BLOCKS: usize = 8;

    fn pseudo_random<N: Number>(len: usize, seed: u64) -> Vec<N> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            N::from_f32((state >> 40) as f32 / (1 << 22) as f32 - 2.0)
        };
        std::iter::repeat_with(&mut next).take(len).collect()
    }

    /// A cache that starts full of garbage, so that reading beyond a row's tokens is noticed.
    struct Cache<N> {
        keys: Vec<N>,
        values: Vec<N>,
    }

    impl<N: Number> Cache<N> {
        fn of_garbage() -> Self {
            let numel = NUM_BLOCKS * BLOCK_TOKENS * SHAPE.kv_heads * SHAPE.head_dim;
            Self { keys: vec![N::from_f32(f32::NAN); numel], values: vec![N::from_f32(f32::NAN); numel] }
        }

        fn write(&mut self, blocks: &[usize], (keys, values): (&[N], &[N])) {
            let width = SHAPE.kv_heads * SHAPE.head_dim;
            for (token, (key, value)) in keys.chunks(width).zip(values.chunks(width)).enumerate() {
                let place = TokenPlace { block: blocks[token / BLOCK_TOKENS], offset: token % BLOCK_TOKENS };
                write_token(SHAPE, (&mut self.keys, &mut self.values), place, (key, value));
            }
        }

        fn attend(&self, rows: &[CachedRow<'_>], queries: &[N]) -> Vec<N> {
            let store = BlockStore { shape: SHAPE, keys: &self.keys, values: &self.values };
            let mut output = vec![N::default(); queries.len()];
            attend_cached(store, rows, (queries, &mut output), &mut Scratch::default());
            output
        }
    }

    /// The same by the book, in f64. `keys`, `values`: `[len, kv_heads, head_dim]`; `query`: `[heads, head_dim]`.
    fn reference<N: Number>(query: &[N], keys: &[N], values: &[N]) -> Vec<f64> {
        let HeadShape { heads, kv_heads, head_dim } = SHAPE;
        let wide = |numbers: &[N]| numbers.iter().map(|n| f64::from(n.to_f32())).collect::<Vec<_>>();
        let (query, keys, values) = (wide(query), wide(keys), wide(values));
        let len = keys.len() / (kv_heads * head_dim);
        let mut output = Vec::new();
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let cached = |numbers: &[f64], token: usize, channel: usize| {
                numbers[(token * kv_heads + kv_head) * head_dim + channel]
            };
            let score = |token| {
                let dot: f64 =
                    (0..head_dim).map(|c| query[head * head_dim + c] * cached(&keys, token, c)).sum();
                (dot / (head_dim as f64).sqrt()).exp()
            };
            let weights: Vec<f64> = (0..len).map(score).collect();
            let weight_sum: f64 = weights.iter().sum();
            output.extend((0..head_dim).map(|channel| {
                (0..len).map(|token| weights[token] * cached(&values, token, channel)).sum::<f64>()
                    / weight_sum
            }));
        }
        output
    }

    fn agrees_with_the_reference<N: Number>(tolerance: f64) {
        for len in [1, 2, 15, 16, 17, 33, 80] {
            let kv_numel = len * SHAPE.kv_heads * SHAPE.head_dim;
            let (keys, values) = (pseudo_random::<N>(kv_numel, 1), pseudo_random::<N>(kv_numel, 2));
            let queries = pseudo_random::<N>(SHAPE.heads * SHAPE.head_dim, len as u64);
            let blocks = [5, 0, 7, 2, 1];
            let mut cache = Cache::of_garbage();
            cache.write(&blocks, (&keys, &values));
            let found = cache.attend(&[CachedRow { blocks: &blocks, len }], &queries);
            for (found, expected) in found.iter().zip(reference(&queries, &keys, &values)) {
                let error = (f64::from(found.to_f32()) - expected).abs();
                assert!(error <= tolerance, "{len} tokens: off by {error}");
            }
        }
    }

    #[test]
    fn attention_agrees_with_the_reference_in_both_formats() {
        agrees_with_the_reference::<f32>(2e-6);
        agrees_with_the_reference::<bf16>(8e-3); // half a unit in the last place of an output of magnitude 2
    }

    #[test]
    fn a_row_gets_the_same_bits_whatever_stands_beside_it() {
        let width = SHAPE.kv_heads * SHAPE.head_dim;
        let row_numel = SHAPE.heads * SHAPE.head_dim;
        let blocks: [&[usize]; 3] = [&[3, 1], &[0, 2, 4], &[6]];
        let lens = [20, 40, 9];
        let mut cache = Cache::<f32>::of_garbage();
        for (seed, (blocks, len)) in blocks.iter().zip(lens).enumerate() {
            let kv = |salt| pseudo_random(len * width, seed as u64 + salt);
            cache.write(blocks, (&kv(10), &kv(20)));
        }
        let rows: Vec<CachedRow<'_>> =
            blocks.iter().zip(lens).map(|(blocks, len)| CachedRow { blocks, len }).collect();
        let queries = pseudo_random::<f32>(3 * row_numel, 30);
        let together = cache.attend(&rows, &queries);
        for (index, row) in rows.iter().enumerate() {
            let range = index * row_numel..(index + 1) * row_numel;
            let alone = cache.attend(&[*row], &queries[range.clone()]);
            assert!(alone.iter().zip(&together[range]).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
