//! Attention that remembers: how a family's blocks meet the KV cache in prefill and in decode steps.
//!
//! On the CPU the kernel reads the cache. On other devices plain tensor operations do: they gather a row's
//! blocks and mask absent places, with the same numbers up to rounding.

use baton_decoding::SlotId;
use tch::{Device, Kind, Tensor};

use crate::{
    Attention, CrossAttention, Heads, PackedAttention, PackedLayout, PromptHeads, RelativeBias, Scoring,
    Visibility,
    attention::capped,
    flop_count::count_attention,
    kernels::{
        BLOCK_TOKENS, CachedRow, HeadShape, LayerBlocks, TokenPlace, decode_attention, recur, write_tokens,
    },
    kv_cache::{KvCache, KvStorage},
    transfer::upload_indices,
};

/// Attention over packed prompts, which it also writes into the cache. The last block yields only keys and
/// values, because nothing reads its states.
#[derive(Debug)]
pub(crate) struct PrefillAttention<'a> {
    storage: &'a mut KvStorage,
    places: Places,
    packed: PackedAttention,
}

impl<'a> PrefillAttention<'a> {
    /// `prompts`: slot and length of each packed prompt, in order. Their slots are occupied and empty.
    ///
    /// # Panics
    /// A slot is not occupied, or too small for its prompt.
    pub(crate) fn new(cache: &'a mut KvCache, prompts: &[(SlotId, usize)], visibility: Visibility) -> Self {
        let KvCache { blocks, storage, .. } = cache;
        let mut places = Vec::new();
        for &(slot, len) in prompts {
            blocks.append(slot, len, &mut places);
        }
        let layout = PackedLayout::prompts(prompts.iter().map(|&(_, len)| len));
        let like = (storage.compute.kind, storage.compute.device);
        let places = Places::new(places, storage.compute.device);
        Self { storage, places, packed: PackedAttention::new(&layout, visibility, like) }
    }
}

impl Attention for PrefillAttention<'_> {
    fn attend(&mut self, layer: usize, heads: Heads<'_>) -> Option<Tensor> {
        self.places.write(self.storage, layer, (heads.k, heads.v));
        let is_last = layer + 1 == self.storage.layers.len();
        if is_last { None } else { self.packed.attend(layer, heads) }
    }
}

/// Attention of new tokens over all that their rows have cached, themselves included. A row may have several,
/// one after the other.
#[derive(Debug)]
pub(crate) struct StepAttention<'a> {
    storage: &'a mut KvStorage,
    places: Places,
    rows: ReadRows<'a>,
    prompts: Option<ReadRows<'a>>, // of a decoder behind an encoder
}

impl<'a> StepAttention<'a> {
    /// One token is appended to each slot, in this order. If a slot occurs several times, each token follows
    /// the previous one.
    ///
    /// # Panics
    /// A slot is empty or full.
    pub(crate) fn new(cache: &'a mut KvCache, slots: &[SlotId]) -> Self {
        let prompt_slots: Option<Vec<SlotId>> = slots.iter().map(|&slot| cache.prompt_slot(slot)).collect();
        let KvCache { blocks, storage, .. } = cache;
        let device = storage.compute.device;
        let mut places = Vec::with_capacity(slots.len());
        let mut lens = Vec::with_capacity(slots.len());
        for &slot in slots {
            blocks.append(slot, 1, &mut places);
            lens.push(blocks.row(slot).len);
        }
        let blocks = &*blocks;
        let row = |(&slot, len)| CachedRow { len, ..blocks.row(slot) };
        let rows = ReadRows::new(slots.iter().zip(lens).map(row).collect(), device);
        let prompts = prompt_slots
            .map(|slots| ReadRows::new(slots.into_iter().map(|slot| blocks.row(slot)).collect(), device));
        Self { storage, places: Places::new(places, device), rows, prompts }
    }

    /// Position of each new token in its row, `[rows]` int64 in host memory.
    pub(crate) fn positions(&self) -> Tensor {
        let positions: Vec<i64> = self.rows.rows.iter().map(|row| row.len as i64 - 1).collect();
        Tensor::from_slice(&positions)
    }
}

impl Attention for StepAttention<'_> {
    fn attend(&mut self, layer: usize, Heads { q, k, v, scoring, bias }: Heads<'_>) -> Option<Tensor> {
        self.places.write(self.storage, layer, (k, v));
        Some(self.rows.attend(self.storage, layer, (q, scoring, bias)))
    }
}

impl CrossAttention for StepAttention<'_> {
    fn attend_prompt(&mut self, layer: usize, PromptHeads { q, scoring }: PromptHeads<'_>) -> Tensor {
        let prompts =
            self.prompts.as_ref().expect("the cache of a model with an encoder keeps prompts apart");
        prompts.attend(self.storage, layer, (q, scoring, None))
    }

    fn recur(&mut self, layer: usize, gates: &Tensor) -> Tensor {
        let KvStorage { shape, layers, .. } = &mut *self.storage;
        if self.rows.gathered.is_none() {
            return recur(&mut layers[layer], *shape, &self.rows.rows, gates);
        }
        recur_by_tensors(&mut layers[layer], *shape, &self.rows.rows, gates)
    }
}

/// The same as the kernel's step of a recurrent decoder, by tensor operations. A row's tokens follow one
/// another, so the rows are taken in rounds with one token of each.
fn recur_by_tensors(
    layer: &mut LayerBlocks,
    shape: HeadShape,
    rows: &[CachedRow<'_>],
    gates: &Tensor,
) -> Tensor {
    let device = gates.device();
    let [heads, head_dim] = [shape.kv_heads as i64, shape.head_dim as i64];
    // Views with the token's two coordinates first: [blocks, BLOCK_TOKENS, heads, head_dim].
    let stored = [layer.keys.permute([0, 3, 1, 2]), layer.values.permute([0, 2, 1, 3])];
    let indices = |rows: &[&CachedRow<'_>], back: usize| {
        let place = |row: &&CachedRow<'_>| {
            let token = row.len.saturating_sub(back);
            (row.blocks[token / BLOCK_TOKENS] as i64, (token % BLOCK_TOKENS) as i64)
        };
        let (blocks, offsets): (Vec<i64>, Vec<i64>) = rows.iter().map(place).unzip();
        [upload_indices(&blocks, device), upload_indices(&offsets, device)]
    };
    let states = Tensor::zeros([rows.len() as i64, heads * head_dim], (Kind::Float, device));
    for round in rounds(rows) {
        let round_rows: Vec<&CachedRow<'_>> = round.iter().map(|&row| &rows[row as usize]).collect();
        let is_first: Vec<i64> = round_rows.iter().map(|row| i64::from(row.len == 1)).collect();
        let is_first = upload_indices(&is_first, device).view([-1, 1]).to_kind(Kind::Bool);
        let before = indices(&round_rows, 2);
        let read = |stored: &Tensor| stored.index(&before.each_ref().map(Some)).to_kind(Kind::Float);
        let before = (read(&stored[0]) + read(&stored[1])).view([-1, heads * head_dim]);
        let before = before.masked_fill(&is_first, 0.0);
        let round = upload_indices(&round, device);
        let parts = gates.index_select(0, &round).chunk(2, -1);
        let state = parts[0].sigmoid() * (before - &parts[1]) + &parts[1];
        let kept = state.to_kind(layer.keys.kind());
        let lost = (&state - kept.to_kind(Kind::Float)).to_kind(layer.keys.kind());
        let here = indices(&round_rows, 1);
        for (stored, numbers) in stored.iter().zip([kept, lost]) {
            let numbers = numbers.view([-1, heads, head_dim]);
            let _ = stored.shallow_clone().index_put_(&here.each_ref().map(Some), &numbers, false);
        }
        let _ = states.shallow_clone().index_copy_(0, &round, &state);
    }
    states
}

/// Indices of the rows, taken so that no round has two tokens of one sequence, and all its rounds follow
/// their order.
fn rounds(rows: &[CachedRow<'_>]) -> Vec<Vec<i64>> {
    let mut rounds: Vec<Vec<i64>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let earlier =
            rows[..index].iter().filter(|other| other.blocks.as_ptr() == row.blocks.as_ptr()).count();
        if rounds.len() <= earlier {
            rounds.push(Vec::new());
        }
        rounds[earlier].push(index as i64);
    }
    rounds
}

/// Writes the keys and values of encoded prompts into the cache, for each layer
/// `[prompt rows, heads, head_dim]`. `prompts`: slot and length of each, in the order of the rows; their
/// slots are occupied.
///
/// # Panics
/// A slot is not occupied, or too small for its prompt; or the cache is a decoder-only model's.
pub(crate) fn write_prompts(
    cache: &mut KvCache,
    prompts: &[(SlotId, usize)],
    keys_and_values: &[[Tensor; 2]],
) {
    let mut places = Vec::new();
    for &(slot, len) in prompts {
        let slot = cache.prompt_slot(slot).expect("the cache of a model with an encoder keeps prompts apart");
        cache.blocks.append(slot, len, &mut places);
    }
    let places = Places::new(places, cache.storage.compute.device);
    for (layer, [k, v]) in keys_and_values.iter().enumerate() {
        places.write(&mut cache.storage, layer, (k, v));
    }
}

/// The cached tokens that the rows of one pass read.
#[derive(Debug)]
struct ReadRows<'a> {
    rows: Vec<CachedRow<'a>>,
    gathered: Option<GatheredRows>, // where the kernel cannot go
}

impl<'a> ReadRows<'a> {
    fn new(rows: Vec<CachedRow<'a>>, device: Device) -> Self {
        let gathered = (device != Device::Cpu).then(|| GatheredRows::new(&rows, device));
        Self { rows, gathered }
    }

    /// `q`: `[rows, heads, head_dim]`; result `[rows, heads * head_dim]` in the same type.
    fn attend(
        &self,
        storage: &mut KvStorage,
        layer: usize,
        (q, scoring, bias): (&Tensor, Scoring, Option<&RelativeBias>),
    ) -> Tensor {
        let KvStorage { shape, layers, scratch, .. } = storage;
        let seen = self.rows.iter().map(|row| scoring.window.map_or(row.len, |window| row.len.min(window)));
        count_attention(shape.heads * shape.head_dim, seen.sum());
        match &self.gathered {
            None => {
                let rule = (*shape, scoring, bias.map(RelativeBias::table));
                decode_attention(&layers[layer], rule, (&self.rows, q), scratch)
            }
            Some(gathered) => gathered.attend(&layers[layer], (*shape, scoring, bias), q),
        }
    }
}

/// Where the tokens of one pass are written.
#[derive(Debug)]
struct Places {
    places: Vec<TokenPlace>,
    indices: Option<[Tensor; 2]>, // block and offset of each place, int64, where the kernel cannot go
}

impl Places {
    fn new(places: Vec<TokenPlace>, device: Device) -> Self {
        let indices = (device != Device::Cpu).then(|| Self::indices(&places, device));
        Self { places, indices }
    }

    fn indices(places: &[TokenPlace], device: Device) -> [Tensor; 2] {
        let index = |part: fn(&TokenPlace) -> usize| {
            let index: Vec<i64> = places.iter().map(|place| part(place) as i64).collect();
            upload_indices(&index, device)
        };
        [index(|place| place.block), index(|place| place.offset)]
    }

    /// `k`, `v`: `[places, kv_heads, head_dim]`.
    fn write(&self, storage: &mut KvStorage, layer: usize, (k, v): (&Tensor, &Tensor)) {
        let layer = &mut storage.layers[layer];
        match &self.indices {
            None => write_tokens(layer, storage.shape, &self.places, (k, v)),
            Some(indices) => {
                let indices = indices.each_ref().map(Some);
                // Views with the token's two coordinates first: [blocks, BLOCK_TOKENS, kv_heads, head_dim].
                let _ = layer.keys.permute([0, 3, 1, 2]).index_put_(&indices, k, false);
                let _ = layer.values.permute([0, 2, 1, 3]).index_put_(&indices, v, false);
            }
        }
    }
}

/// The blocks of all rows side by side, as many for each as the longest row has.
#[derive(Debug)]
struct GatheredRows {
    num_rows: i64,
    blocks: Tensor, // [rows * blocks_per_row] int64
    tokens: Tensor, // [1, 1, 1, blocks_per_row * BLOCK_TOKENS] int64
    lens: Tensor,   // [rows, 1, 1, 1] int64
    absent: Tensor, // [rows, 1, 1, blocks_per_row * BLOCK_TOKENS] bool: true where a row has no token
}

impl GatheredRows {
    fn new(rows: &[CachedRow<'_>], device: Device) -> Self {
        let blocks_per_row = rows.iter().map(|row| row.len.div_ceil(BLOCK_TOKENS)).max().unwrap_or(0);
        let blocks: Vec<i64> = rows
            .iter()
            .flat_map(|row| {
                (0..blocks_per_row).map(|index| row.blocks.get(index).map_or(0, |&block| block as i64))
            })
            .collect();
        let lens: Vec<i64> = rows.iter().map(|row| row.len as i64).collect();
        let lens = upload_indices(&lens, device).view([-1, 1, 1, 1]);
        let tokens = Tensor::arange((blocks_per_row * BLOCK_TOKENS) as i64, (Kind::Int64, device));
        let tokens = tokens.view([1, 1, 1, -1]);
        Self {
            num_rows: rows.len() as i64,
            blocks: upload_indices(&blocks, device),
            absent: tokens.ge_tensor(&lens),
            tokens,
            lens,
        }
    }

    /// `q`: `[rows, heads, head_dim]`; result `[rows, heads * head_dim]` in the same type. f32 arithmetic.
    fn attend(
        &self,
        layer: &LayerBlocks,
        (shape, scoring, bias): (HeadShape, Scoring, Option<&RelativeBias>),
        q: &Tensor,
    ) -> Tensor {
        let [heads, kv_heads, head_dim, block_tokens] =
            [shape.heads, shape.kv_heads, shape.head_dim, BLOCK_TOKENS].map(|size| size as i64);
        let rows = self.num_rows;
        let keys = layer
            .keys
            .index_select(0, &self.blocks)
            .view([rows, -1, kv_heads, head_dim, block_tokens])
            .permute([0, 2, 3, 1, 4])
            .reshape([rows, kv_heads, head_dim, -1])
            .to_kind(Kind::Float);
        let values = layer
            .values
            .index_select(0, &self.blocks)
            .view([rows, -1, kv_heads, block_tokens, head_dim])
            .permute([0, 2, 1, 3, 4])
            .reshape([rows, kv_heads, -1, head_dim])
            .to_kind(Kind::Float)
            // Values left by other rows may be infinite, so they must not even be multiplied by zero.
            .masked_fill(&self.absent.transpose(-1, -2), 0.0);
        let queries = q.reshape([rows, kv_heads, heads / kv_heads, head_dim]).to_kind(Kind::Float);
        // [rows, kv_heads, groups, tokens]
        let mut scores = capped(queries.matmul(&keys) * f64::from(scoring.scale), scoring.cap);
        if let Some(bias) = bias {
            let distances = &self.tokens - (&self.lens - 1); // [rows, 1, 1, tokens]
            let bias = bias.of_distances(&distances.view([rows, -1])); // [heads, rows, tokens]
            scores += bias.transpose(0, 1).reshape([rows, kv_heads, heads / kv_heads, -1]);
        }
        let unseen = match scoring.window {
            None => self.absent.shallow_clone(),
            Some(window) => self.absent.logical_or(&self.tokens.lt_tensor(&(&self.lens - window as i64))),
        };
        let weights = scores.masked_fill(&unseen, f64::NEG_INFINITY).softmax(-1, Kind::Float);
        weights.matmul(&values).reshape([rows, heads * head_dim]).to_kind(q.kind())
    }
}

#[cfg(test)]
mod tests {
    use tch::IndexOp;

    use super::*;
    use crate::{kernels::Scratch, relative_bias::Buckets};

    const SHAPE: HeadShape = HeadShape { heads: 6, kv_heads: 2, head_dim: 24 };
    const NUM_BLOCKS: i64 = 12;

    /// Numbers in -2..2 that need no generator: libtorch's is shared by all threads.
    fn pattern(size: &[i64], kind: Kind) -> Tensor {
        let numel: i64 = size.iter().product();
        (Tensor::arange(numel, (Kind::Double, Device::Cpu)) * 0.7)
            .sin()
            .multiply_scalar(2.0)
            .view(size)
            .to_kind(kind)
    }

    fn layer(kind: Kind) -> LayerBlocks {
        let [kv_heads, head_dim] = [SHAPE.kv_heads as i64, SHAPE.head_dim as i64];
        let keys = pattern(&[NUM_BLOCKS, kv_heads, head_dim, BLOCK_TOKENS as i64], kind);
        let values = pattern(&[NUM_BLOCKS, kv_heads, BLOCK_TOKENS as i64, head_dim], kind);
        LayerBlocks { keys, values: values.neg() }
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a.to_kind(Kind::Float) - b.to_kind(Kind::Float)).abs().max().double_value(&[])
    }

    #[test]
    fn the_kernel_and_plain_tensor_operations_attend_alike() {
        let blocks: [&[usize]; 4] = [&[3], &[7, 0, 9], &[1, 2], &[11, 10, 4, 5]];
        let lens = [1, 40, 32, 50];
        let rows: Vec<CachedRow<'_>> =
            blocks.iter().zip(lens).map(|(blocks, len)| CachedRow { blocks, len }).collect();
        let buckets = Buckets { num_buckets: 8, max_distance: 30, bidirectional: false };
        let weight = pattern(&[8, SHAPE.heads as i64], Kind::Float);
        let bias = RelativeBias::new(&weight, buckets, crate::Compute::CPU_F32);
        for (kind, tolerance) in [(Kind::Float, 2e-6), (Kind::BFloat16, 1.6e-2)] {
            let layer = layer(kind);
            let q = pattern(&[4, SHAPE.heads as i64, SHAPE.head_dim as i64], kind);
            for (window, cap, bias) in [
                (None, None, None),
                (Some(1), None, None),
                (Some(20), Some(2.0), None),
                (None, None, Some(&bias)),
            ] {
                let scoring = Scoring { scale: 0.3, window, cap };
                let rule = (SHAPE, scoring, bias.map(RelativeBias::table));
                let by_kernel = decode_attention(&layer, rule, (&rows, &q), &mut Scratch::default());
                let by_tensors =
                    GatheredRows::new(&rows, Device::Cpu).attend(&layer, (SHAPE, scoring, bias), &q);
                assert_eq!((by_kernel.size(), by_kernel.kind()), (by_tensors.size(), kind));
                let difference = largest_difference(&by_kernel, &by_tensors);
                assert!(difference <= tolerance, "{kind:?} {window:?} {bias:?}: {difference}");
            }
        }
    }

    #[test]
    fn the_kernel_and_plain_tensor_operations_write_alike() {
        let places = vec![TokenPlace { block: 4, offset: 15 }, TokenPlace { block: 5, offset: 0 }];
        let size = [2, SHAPE.kv_heads as i64, SHAPE.head_dim as i64];
        let k = pattern(&size, Kind::BFloat16);
        let strided = pattern(&[2, 2 * size[1], size[2]], Kind::BFloat16);
        let v = strided.narrow(1, 1, size[1]); // values are a view of a wider product
        let [by_kernel, by_tensors] = [false, true].map(|by_tensors| {
            let compute = crate::Compute::CPU_BF16;
            let layers = vec![layer(Kind::BFloat16)];
            let mut storage = KvStorage { shape: SHAPE, compute, layers, scratch: Scratch::default() };
            let indices = by_tensors.then(|| Places::indices(&places, Device::Cpu));
            Places { places: places.clone(), indices }.write(&mut storage, 0, (&k, &v));
            storage.layers.swap_remove(0)
        });
        assert_eq!(by_kernel.keys, by_tensors.keys);
        assert_eq!(by_kernel.values, by_tensors.values);
        assert_eq!(by_kernel.keys.i((4, .., .., 15)), k.i(0));
    }
}
