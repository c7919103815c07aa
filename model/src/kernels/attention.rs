//! Decode attention on the CPU: one query per row against all keys and values the row has cached.
//!
//! libtorch's batched products spend microseconds on each (row, head) pair with one query, whatever its size;
//! here the pair is a few hundred vector instructions. Keys lie in blocks of 16 tokens with the tokens
//! innermost. One vector then holds one channel of 16 keys, and scores need no horizontal sums. Values lie
//! with the channels innermost, so the weighted sum needs none either. Two-pass softmax, f32 arithmetic. A
//! row's result depends on the row alone.

use std::ops::Range;

use baton_lanes::{LANES, exp, max_of, sum_of};
use multiversion::multiversion;

use super::{bias::BiasTable, number::Number};

/// Tokens per cache block: as many as lanes.
pub(crate) const BLOCK_TOKENS: usize = LANES;

/// How many heads there are and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadShape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

/// How a query meets a key: `scale * q k` is the key's score, and keys outside the window have none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scoring {
    /// Factor of the product: `1 / sqrt(head_dim)` in most families.
    pub scale: f32,
    /// Distance from which on keys are out of sight: a query sees itself and `window - 1` neighbours on a
    /// side. None: it sees all.
    pub window: Option<usize>,
    /// Scores are kept below this: `cap * tanh(score / cap)` (Gemma 2). None: they are not.
    pub cap: Option<f32>,
}

impl Scoring {
    /// The usual scale, no window and no cap.
    #[must_use]
    pub fn of_heads(head_dim: usize) -> Self {
        Self::scaled((head_dim as f32).sqrt().recip())
    }

    /// This scale, no window and no cap.
    #[must_use]
    pub const fn scaled(scale: f32) -> Self {
        Self { scale, window: None, cap: None }
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

/// The part of a row that its last token sees, from the first block that has such a token.
#[derive(Debug, Clone)]
struct SeenTokens<'a> {
    blocks: &'a [usize],
    /// Their places, counted from the first of these blocks.
    places: Range<usize>,
}

impl<'a> CachedRow<'a> {
    #[inline(always)]
    fn seen(&self, window: Option<usize>) -> SeenTokens<'a> {
        let first = window.map_or(0, |window| self.len.saturating_sub(window));
        let unseen_blocks = first / BLOCK_TOKENS;
        let unseen = unseen_blocks * BLOCK_TOKENS;
        let blocks = &self.blocks[unseen_blocks..self.len.div_ceil(BLOCK_TOKENS)];
        SeenTokens { blocks, places: first - unseen..self.len - unseen }
    }
}

impl SeenTokens<'_> {
    /// Places in whole blocks.
    #[inline(always)]
    fn padded_len(&self) -> usize {
        self.blocks.len() * BLOCK_TOKENS
    }
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
    queries: Vec<f32>, // [heads, head_dim], scaled
    weights: Vec<f32>, // [heads, padded len]
    sums: Vec<f32>,    // [heads, head_dim]
}

/// `softmax(scale * q k^T + bias) v` for each row, over the keys that it sees. `queries`, `output`:
/// `[rows, heads, head_dim]`.
///
/// The cache is larger than a core's memory. It is therefore read once, in the order in which it lies in
/// memory: block by block, all heads of a block.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn attend_cached<N: Number>(
    (store, scoring, bias): (BlockStore<'_, N>, Scoring, Option<BiasTable<'_>>),
    rows: &[CachedRow<'_>],
    (queries, output): (&[N], &mut [N]),
    scratch: &mut Scratch,
) {
    let row_numel = store.shape.heads * store.shape.head_dim;
    assert_eq!(queries.len(), rows.len() * row_numel, "one query per row and head");
    assert_eq!(output.len(), queries.len(), "one output per query");
    for ((row, queries), output) in
        rows.iter().zip(queries.chunks_exact(row_numel)).zip(output.chunks_exact_mut(row_numel))
    {
        let seen = row.seen(scoring.window);
        score_row((store, scoring.scale), &seen, queries, scratch);
        let HeadShape { head_dim, .. } = store.shape;
        for (head, weights) in scratch.weights.chunks_exact_mut(seen.padded_len()).enumerate() {
            if let Some(cap) = scoring.cap {
                cap_scores(weights, cap);
            }
            if let Some(bias) = bias {
                let first_distance = 1 - seen.places.len() as i64; // the query is the last of them
                bias.add(head, &mut weights[seen.places.clone()], first_distance);
            }
            softmax(weights, seen.places.clone());
        }
        sum_row(store, &seen, scratch);
        for (out, &sum) in output.iter_mut().zip(&scratch.sums) {
            *out = N::from_f32(sum);
        }
        debug_assert_eq!(scratch.sums.len(), store.shape.heads * head_dim);
    }
}

/// Scores of one row into `scratch.weights`, `[heads, padded len]`.
#[inline(always)]
fn score_row<N: Number>(
    (store, scale): (BlockStore<'_, N>, f32),
    seen: &SeenTokens<'_>,
    queries: &[N],
    scratch: &mut Scratch,
) {
    let HeadShape { heads, kv_heads, head_dim } = store.shape;
    let groups = heads / kv_heads;
    scratch.queries.clear();
    scratch.queries.extend(queries.iter().map(|&q| q.to_f32() * scale));
    let padded_len = seen.padded_len();
    scratch.weights.resize(heads * padded_len, 0.0);
    for (place, &block) in seen.blocks.iter().enumerate() {
        for head in 0..heads {
            let keys = store.head(head / groups).keys(block);
            let query = &scratch.queries[head * head_dim..(head + 1) * head_dim];
            let start = head * padded_len + place * BLOCK_TOKENS;
            scratch.weights[start..start + BLOCK_TOKENS].copy_from_slice(&block_scores(query, keys));
        }
    }
}

/// Keeps scores between `-cap` and `cap`: `cap * tanh(score / cap)`.
#[inline(always)]
pub(super) fn cap_scores(scores: &mut [f32], cap: f32) {
    for score in scores {
        let shrunk = exp(-2.0 * (*score / cap).abs()); // tanh(|x|) is (1 - e^-2|x|) / (1 + e^-2|x|)
        *score = (cap * (1.0 - shrunk) / (1.0 + shrunk)).copysign(*score);
    }
}

/// Scores of the tokens in `seen` into weights that sum to one; zero elsewhere.
#[inline(always)]
pub(super) fn softmax(scores: &mut [f32], seen: Range<usize>) {
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY); // places of the last block that hold no token of this row
    let max = max_of(scores);
    for score in &mut *scores {
        *score = exp(*score - max);
    }
    let normalizer = sum_of(scores, |weight| weight).recip();
    for score in scores {
        *score *= normalizer;
    }
}

/// Weighted sums of one row's values into `scratch.sums`, `[heads, head_dim]`.
#[inline(always)]
fn sum_row<N: Number>(store: BlockStore<'_, N>, seen: &SeenTokens<'_>, scratch: &mut Scratch) {
    let HeadShape { heads, kv_heads, head_dim } = store.shape;
    let groups = heads / kv_heads;
    scratch.sums.clear();
    scratch.sums.resize(heads * head_dim, 0.0);
    let padded_len = seen.padded_len();
    for (place, &block) in seen.blocks.iter().enumerate() {
        let begin = place * BLOCK_TOKENS;
        let (first, end) =
            // Values beyond may be NaN.
            (seen.places.start.saturating_sub(begin), (seen.places.end - begin).min(BLOCK_TOKENS));
        for head in 0..heads {
            let values = &store.head(head / groups).values(block)[first * head_dim..end * head_dim];
            let start = head * padded_len + begin;
            let weights = &scratch.weights[start + first..start + end];
            add_weighted(&mut scratch.sums[head * head_dim..(head + 1) * head_dim], weights, values);
        }
    }
}

/// Channels summed side by side: four vectors, so that one's latency hides behind the others.
pub(super) const WIDE: usize = 4 * LANES;

/// Scores of a block's 16 keys. `keys`: `[head_dim, BLOCK_TOKENS]`.
#[inline(always)]
fn block_scores<N: Number>(query: &[f32], keys: &[N]) -> [f32; BLOCK_TOKENS] {
    let mut scores = [0.0_f32; BLOCK_TOKENS];
    for (&q, keys) in query.iter().zip(keys.as_chunks::<BLOCK_TOKENS>().0) {
        add_scaled(&mut scores, q, keys);
    }
    scores
}

/// `sums += weight * value` over the tokens of a block. `sums`: `[head_dim]`; `values`: `[tokens, head_dim]`.
#[inline(always)]
pub(super) fn add_weighted<N: Number>(sums: &mut [f32], weights: &[f32], values: &[N]) {
    let head_dim = sums.len();
    let (wide, rest) = sums.as_chunks_mut::<WIDE>();
    let mut channel = 0;
    for sums in wide {
        add_weighted_channels(sums, weights, values, (head_dim, channel));
        channel += WIDE;
    }
    let (vectors, rest) = rest.as_chunks_mut::<LANES>();
    for sums in vectors {
        add_weighted_channels(sums, weights, values, (head_dim, channel));
        channel += LANES;
    }
    for sum in rest {
        add_weighted_channels(std::array::from_mut(sum), weights, values, (head_dim, channel));
        channel += 1;
    }
}

/// The same for the channels from `channel` on.
#[inline(always)]
fn add_weighted_channels<N: Number, const CHANNELS: usize>(
    sums: &mut [f32; CHANNELS],
    weights: &[f32],
    values: &[N],
    (head_dim, channel): (usize, usize),
) {
    let mut local = *sums;
    for (&weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
        let value = value[channel..].first_chunk::<CHANNELS>().expect("the channels are within a head");
        add_scaled(&mut local, weight, value);
    }
    *sums = local;
}

/// `sums += factor * values`
#[inline(always)]
pub(super) fn add_scaled<N: Number, const LEN: usize>(sums: &mut [f32; LEN], factor: f32, values: &[N; LEN]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = factor.mul_add(value.to_f32(), *sum);
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

        fn attend(
            &self,
            (scoring, bias): (Scoring, Option<BiasTable<'_>>),
            rows: &[CachedRow<'_>],
            queries: &[N],
        ) -> Vec<N> {
            let store = BlockStore { shape: SHAPE, keys: &self.keys, values: &self.values };
            let mut output = vec![N::default(); queries.len()];
            attend_cached((store, scoring, bias), rows, (queries, &mut output), &mut Scratch::default());
            output
        }
    }

    /// The same by the book, in f64. `keys`, `values`: `[len, kv_heads, head_dim]`; `query`:
    /// `[heads, head_dim]`.
    fn reference<N: Number>(
        (scoring, bias): (Scoring, Option<BiasTable<'_>>),
        query: &[N],
        keys: &[N],
        values: &[N],
    ) -> Vec<f64> {
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
                let bias = bias.map_or(0.0, |bias| {
                    let column = bias.reach - (len - 1 - token).min(bias.reach);
                    bias.numbers[head * (2 * bias.reach + 1) + column]
                });
                let dot = dot * f64::from(scoring.scale);
                let dot = scoring.cap.map_or(dot, |cap| f64::from(cap) * (dot / f64::from(cap)).tanh());
                (dot + f64::from(bias)).exp()
            };
            let sees = |token| scoring.window.is_none_or(|window| len - 1 - token < window);
            let weights: Vec<f64> =
                (0..len).map(|token| if sees(token) { score(token) } else { 0.0 }).collect();
            let weight_sum: f64 = weights.iter().sum();
            output.extend((0..head_dim).map(|channel| {
                (0..len).map(|token| weights[token] * cached(&values, token, channel)).sum::<f64>()
                    / weight_sum
            }));
        }
        output
    }

    fn agrees_with_the_reference<N: Number>(scoring: (Scoring, Option<BiasTable<'_>>), tolerance: f64) {
        for len in [1, 2, 15, 16, 17, 33, 80] {
            let kv_numel = len * SHAPE.kv_heads * SHAPE.head_dim;
            let (keys, values) = (pseudo_random::<N>(kv_numel, 1), pseudo_random::<N>(kv_numel, 2));
            let queries = pseudo_random::<N>(SHAPE.heads * SHAPE.head_dim, len as u64);
            let blocks = [5, 0, 7, 2, 1];
            let mut cache = Cache::of_garbage();
            cache.write(&blocks, (&keys, &values));
            let found = cache.attend(scoring, &[CachedRow { blocks: &blocks, len }], &queries);
            for (found, expected) in found.iter().zip(reference(scoring, &queries, &keys, &values)) {
                let error = (f64::from(found.to_f32()) - expected).abs();
                assert!(error <= tolerance, "{len} tokens, {scoring:?}: off by {error}");
            }
        }
    }

    #[test]
    fn attention_agrees_with_the_reference_in_both_formats() {
        let scale = 0.3;
        let numbers = pseudo_random::<f32>(SHAPE.heads * 41, 9);
        for window in [None, Some(1), Some(7), Some(16), Some(17), Some(40), Some(1000)] {
            for bias in [None, Some(BiasTable { numbers: &numbers, reach: 20 })] {
                for cap in [None, Some(1.5)] {
                    let scoring = Scoring { scale, window, cap };
                    agrees_with_the_reference::<f32>((scoring, bias), 2e-6);
                    // Half a unit in the last place of an output of magnitude 2.
                    agrees_with_the_reference::<bf16>((scoring, bias), 8e-3);
                }
            }
        }
    }

    #[test]
    fn a_row_gets_the_same_bits_in_any_batch() {
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
        let scoring = (Scoring { scale: 0.2, window: Some(30), cap: None }, None);
        let together = cache.attend(scoring, &rows, &queries);
        for (index, row) in rows.iter().enumerate() {
            let range = index * row_numel..(index + 1) * row_numel;
            let alone = cache.attend(scoring, &[*row], &queries[range.clone()]);
            assert!(alone.iter().zip(&together[range]).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
