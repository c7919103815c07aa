//! Attention that remembers: how a family's blocks meet the KV cache in prefill and in decode steps.
//!
//! On the CPU the cache is read by the kernel; on other devices by plain tensor operations, which gather a row's blocks, mask what is
//! not there, and give the same numbers to rounding.

use baton_decoding::SlotId;
use tch::{Device, Kind, Tensor};

use crate::{
    Attention, PackedAttention, PackedLayout, Visibility,
    kernels::{BLOCK_TOKENS, CachedRow, HeadShape, LayerBlocks, TokenPlace, decode_attention, write_tokens},
    kv_cache::{KvCache, KvStorage},
};

/// Attention over packed prompts, which it also writes into the cache.
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
        let KvCache { blocks, storage } = cache;
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
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        self.places.write(self.storage, layer, (k, v));
        self.packed.attend(layer, q, k, v)
    }
}

/// Attention of one new token per row over all that the row has cached, the new token included.
#[derive(Debug)]
pub(crate) struct StepAttention<'a> {
    storage: &'a mut KvStorage,
    places: Places,
    rows: Vec<CachedRow<'a>>,
    gathered: Option<GatheredRows>, // where the kernel cannot go
}

impl<'a> StepAttention<'a> {
    /// One token is appended to each slot, in this order.
    ///
    /// # Panics
    /// A slot is empty or full.
    pub(crate) fn new(cache: &'a mut KvCache, slots: &[SlotId]) -> Self {
        let KvCache { blocks, storage } = cache;
        let device = storage.compute.device;
        let mut places = Vec::with_capacity(slots.len());
        for &slot in slots {
            blocks.append(slot, 1, &mut places);
        }
        let blocks = &*blocks;
        let rows: Vec<CachedRow<'a>> = slots.iter().map(|&slot| blocks.row(slot)).collect();
        let gathered = (device != Device::Cpu).then(|| GatheredRows::new(&rows, device));
        Self { storage, places: Places::new(places, device), rows, gathered }
    }

    /// Position of each new token in its row, `[rows]` int64.
    pub(crate) fn positions(&self) -> Tensor {
        let positions: Vec<i64> = self.rows.iter().map(|row| row.len as i64 - 1).collect();
        Tensor::from_slice(&positions).to_device(self.storage.compute.device)
    }
}

impl Attention for StepAttention<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        self.places.write(self.storage, layer, (k, v));
        let KvStorage { shape, layers, scratch, .. } = &mut *self.storage;
        match &self.gathered {
            None => decode_attention(&layers[layer], *shape, (&self.rows, q), scratch),
            Some(gathered) => gathered.attend(&layers[layer], *shape, q),
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
            Tensor::from_slice(&index).to_device(device)
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
        let lens = Tensor::from_slice(&lens).to_device(device).view([-1, 1, 1, 1]);
        let tokens = Tensor::arange((blocks_per_row * BLOCK_TOKENS) as i64, (Kind::Int64, device));
        Self {
            num_rows: rows.len() as i64,
            blocks: Tensor::from_slice(&blocks).to_device(device),
            absent: tokens.view([1, 1, 1, -1]).ge_tensor(&lens),
        }
    }

    /// `q`: `[rows, heads, head_dim]`; result `[rows, heads * head_dim]` in the same type. f32 arithmetic.
    fn attend(&self, layer: &LayerBlocks, shape: HeadShape, q: &Tensor) -> Tensor {
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
            // What other rows left there must not even be multiplied by zero: it may be infinite.
            .masked_fill(&self.absent.transpose(-1, -2), 0.0);
        let queries = q.reshape([rows, kv_heads, heads / kv_heads, head_dim]).to_kind(Kind::Float);
        let scores = queries.matmul(&keys) / (head_dim as f64).sqrt();
        let weights = scores.masked_fill(&self.absent, f64::NEG_INFINITY).softmax(-1, Kind::Float);
        weights.matmul(&values).reshape([rows, heads * head_dim]).to_kind(q.kind())
    }
}

#[cfg(test)]
mod tests {
    use tch::IndexOp;

    use super::*;
    use crate::kernels::Scratch;

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
        for (kind, tolerance) in [(Kind::Float, 2e-6), (Kind::BFloat16, 1.6e-2)] {
            let layer = layer(kind);
            let q = pattern(&[4, SHAPE.heads as i64, SHAPE.head_dim as i64], kind);
            let by_kernel = decode_attention(&layer, SHAPE, (&rows, &q), &mut Scratch::default());
            let by_tensors = GatheredRows::new(&rows, Device::Cpu).attend(&layer, SHAPE, &q);
            assert_eq!((by_kernel.size(), by_kernel.kind()), (by_tensors.size(), kind));
            let difference = largest_difference(&by_kernel, &by_tensors);
            assert!(difference <= tolerance, "{kind:?}: {difference}");
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
