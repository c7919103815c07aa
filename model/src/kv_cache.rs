//! The KV cache: keys and values of all live rows, in blocks of 16 tokens. Rows take blocks when they enter
//! and return them when they leave.
//!
//! Blocks fit wherever one is free, so memory does not fragment and no row is moved for another. Everything
//! is allocated at the start: `blocks * 2 * layers * 16 * kv_heads * head_dim` numbers, and never more.
//! Reference: Kwon et al., arXiv 2309.06180.
//!
//! This file owns which block belongs to whom. How attention reads and writes blocks is in
//! `cached_attention.rs`.

use baton_bundle::ModelConfig;
use baton_decoding::SlotId;
use tch::Tensor;

use crate::{
    Compute, ModelError,
    kernels::{BLOCK_TOKENS, CachedRow, HeadShape, LayerBlocks, Scratch, TokenPlace},
};

/// Tokens per block of the KV cache: a row takes whole blocks.
pub const CACHE_BLOCK_TOKENS: usize = BLOCK_TOKENS;

/// The bounds of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Rows that live at once.
    pub max_slots: usize,
    /// Tokens held, all rows together; rounded down to whole blocks of [`CACHE_BLOCK_TOKENS`].
    pub max_cache_tokens: usize,
}

/// Bytes that a token takes in the KV cache of a model that writes with all its blocks.
#[must_use]
pub fn cache_num_bytes_per_token(config: &ModelConfig, compute: Compute) -> usize {
    let layers = config.encoder_decoder().map_or(config.num_hidden_layers, |shape| shape.num_decoder_layers);
    2 * layers * config.num_key_value_heads * config.head_dim * compute.kind.elt_size_in_bytes()
}

/// Keys and values of the live rows of one model.
#[derive(Debug)]
pub(crate) struct KvCache {
    pub(crate) blocks: BlockTable,
    pub(crate) storage: KvStorage,
    /// Slots of rows. A model with an encoder has twice as many: its decoder keeps prompt and output apart.
    max_slots: usize,
    keeps_prompts_apart: bool,
}

impl KvCache {
    /// Allocates the whole cache of a model of `num_layers` blocks that write.
    ///
    /// With an encoder, a row fills up to one block more than one sequence of the same tokens would; there is
    /// one more for each slot.
    ///
    /// # Errors
    /// The device does not have that much memory.
    pub(crate) fn new(
        config: &ModelConfig,
        num_layers: usize,
        compute: Compute,
        limits: CacheLimits,
    ) -> Result<Self, ModelError> {
        let CacheLimits { max_slots, max_cache_tokens } = limits;
        let num_blocks = max_cache_tokens / BLOCK_TOKENS;
        let keeps_prompts_apart = config.encoder_decoder().is_some();
        let (num_blocks, num_places) = if keeps_prompts_apart {
            (num_blocks + max_slots, 2 * max_slots)
        } else {
            (num_blocks, max_slots)
        };
        let blocks = BlockTable::new(num_places, num_blocks);
        let storage = KvStorage::new(config, num_layers, compute, num_blocks)?;
        Ok(Self { blocks, storage, max_slots, keeps_prompts_apart })
    }

    /// Where the prompt of a slot's row is, if it is kept apart.
    pub(crate) fn prompt_slot(&self, slot: SlotId) -> Option<SlotId> {
        self.keeps_prompts_apart.then_some(SlotId(self.max_slots + slot.0))
    }

    /// Gives an empty slot blocks for `capacity_tokens` tokens, including a prompt of `prompt_len` tokens.
    ///
    /// # Panics
    /// The slot is occupied or beyond `max_slots`, or too few blocks are free.
    pub(crate) fn occupy(&mut self, slot: SlotId, prompt_len: usize, capacity_tokens: usize) {
        assert!(slot.0 < self.max_slots, "a slot is below max_slots");
        match self.prompt_slot(slot) {
            None => self.blocks.occupy(slot, capacity_tokens),
            Some(prompt_slot) => {
                self.blocks.occupy(prompt_slot, prompt_len);
                let num_written = capacity_tokens.checked_sub(prompt_len);
                self.blocks.occupy(slot, num_written.expect("a row's capacity includes its prompt"));
            }
        }
    }

    /// Empties an occupied slot of its tokens.
    ///
    /// # Panics
    /// The slot is empty.
    pub(crate) fn clear(&mut self, slot: SlotId) {
        for slot in [Some(slot), self.prompt_slot(slot)].into_iter().flatten() {
            self.blocks.rewind(slot, self.blocks.row(slot).len);
        }
    }

    /// Takes a slot's blocks back. An empty slot stays empty.
    pub(crate) fn release(&mut self, slot: SlotId) {
        self.blocks.release(slot);
        if let Some(prompt_slot) = self.prompt_slot(slot) {
            self.blocks.release(prompt_slot);
        }
    }

    /// Makes the empty slot `to` a copy of the row in `from`: full blocks are shared, the last, partial one
    /// is copied.
    ///
    /// # Panics
    /// `from` is empty, `to` is occupied, `capacity_tokens` is less than `from` holds, or too few blocks are
    /// free.
    pub(crate) fn fork(&mut self, from: SlotId, to: SlotId, capacity_tokens: usize) {
        let capacity_tokens = match self.prompt_slot(from).zip(self.prompt_slot(to)) {
            None => capacity_tokens,
            Some((from, to)) => capacity_tokens - self.blocks.share(from, to),
        };
        if let Some(copied) = self.blocks.fork(from, to, capacity_tokens) {
            self.storage.copy_block(copied);
        }
    }
}

/// The tensors, and the data for working on them.
#[derive(Debug)]
pub(crate) struct KvStorage {
    pub(crate) shape: HeadShape,
    pub(crate) compute: Compute,
    pub(crate) layers: Vec<LayerBlocks>,
    pub(crate) scratch: Scratch,
}

impl KvStorage {
    fn new(
        config: &ModelConfig,
        num_layers: usize,
        compute: Compute,
        num_blocks: usize,
    ) -> Result<Self, ModelError> {
        let shape = HeadShape {
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        };
        let [blocks, kv_heads, head_dim, tokens] =
            [num_blocks, shape.kv_heads, shape.head_dim, BLOCK_TOKENS].map(|size| size as i64);
        let zeros = |size: [i64; 4]| {
            Tensor::f_zeros(size, (compute.kind, compute.device))
                .map_err(|source| ModelError::Torch { doing: "allocating the KV cache", source })
        };
        let layers = (0..num_layers)
            .map(|_| {
                let keys = zeros([blocks, kv_heads, head_dim, tokens])?;
                let values = zeros([blocks, kv_heads, tokens, head_dim])?;
                Ok(LayerBlocks { keys, values })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { shape, compute, layers, scratch: Scratch::default() })
    }

    fn copy_block(&mut self, CopiedBlock { from, to }: CopiedBlock) {
        for layer in &self.layers {
            for tensor in [&layer.keys, &layer.values] {
                tensor.get(to as i64).copy_(&tensor.get(from as i64));
            }
        }
    }
}

/// A block whose content another is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopiedBlock {
    from: usize,
    to: usize,
}

/// Which blocks each slot's row holds, and which are free.
#[derive(Debug)]
pub(crate) struct BlockTable {
    slots: Vec<Option<RowBlocks>>,
    free_blocks: Vec<usize>,
    num_owners: Vec<u32>, // rows that hold each block; forked rows share theirs
}

#[derive(Debug)]
struct RowBlocks {
    blocks: Vec<usize>,
    len: usize,
}

impl BlockTable {
    fn new(max_slots: usize, num_blocks: usize) -> Self {
        Self {
            slots: std::iter::repeat_with(|| None).take(max_slots).collect(),
            free_blocks: (0..num_blocks).rev().collect(),
            num_owners: vec![0; num_blocks],
        }
    }

    /// Takes free blocks for `num_tokens` tokens.
    fn take(&mut self, num_tokens: usize) -> Vec<usize> {
        let num_left = self.free_blocks.len().checked_sub(num_tokens.div_ceil(BLOCK_TOKENS));
        let num_left = num_left.expect("rows are admitted only while max_cache_tokens has room for them");
        let mut taken = self.free_blocks.split_off(num_left);
        taken.reverse(); // rising where they are fresh, as the kernel reads them
        taken.iter().for_each(|&block| self.num_owners[block] = 1);
        taken
    }

    /// Gives an empty slot blocks for `capacity_tokens` tokens.
    ///
    /// # Panics
    /// The slot is occupied or beyond `max_slots`, or too few blocks are free.
    pub(crate) fn occupy(&mut self, slot: SlotId, capacity_tokens: usize) {
        self.check_empty(slot);
        self.slots[slot.0] = Some(RowBlocks { blocks: self.take(capacity_tokens), len: 0 });
    }

    /// Gives the empty slot `to` the tokens of `from`: full blocks are shared. It gets room for
    /// `capacity_tokens` tokens in all. Returns the block that must be copied, if the last one is partial.
    ///
    /// # Panics
    /// As for [`KvCache::fork`].
    fn fork(&mut self, from: SlotId, to: SlotId, capacity_tokens: usize) -> Option<CopiedBlock> {
        self.check_empty(to);
        let row = self.slots.get(from.0).and_then(Option::as_ref).expect("only a live row is forked");
        let len = row.len;
        let num_shared = len / BLOCK_TOKENS;
        let mut blocks = row.blocks[..num_shared].to_vec();
        let partial = (!len.is_multiple_of(BLOCK_TOKENS)).then(|| row.blocks[num_shared]);
        let num_new_tokens = capacity_tokens.checked_sub(num_shared * BLOCK_TOKENS);
        blocks.iter().for_each(|&block| self.num_owners[block] += 1);
        blocks.extend(self.take(num_new_tokens.expect("a copy holds what it is a copy of")));
        let copied = partial.map(|block| CopiedBlock { from: block, to: blocks[num_shared] });
        self.slots[to.0] = Some(RowBlocks { blocks, len });
        copied
    }

    /// Gives the empty slot `to` all that `from` has, in shared blocks, to be read alone. Returns how many
    /// tokens that is.
    ///
    /// # Panics
    /// `from` is empty, or `to` is occupied.
    fn share(&mut self, from: SlotId, to: SlotId) -> usize {
        self.check_empty(to);
        let row = self.slots.get(from.0).and_then(Option::as_ref).expect("only a live row is forked");
        let (blocks, len) = (row.blocks.clone(), row.len);
        blocks.iter().for_each(|&block| self.num_owners[block] += 1);
        self.slots[to.0] = Some(RowBlocks { blocks, len });
        len
    }

    fn check_empty(&self, slot: SlotId) {
        let place = self.slots.get(slot.0).expect("a slot is below max_slots");
        assert!(place.is_none(), "slot {} is occupied: release it first", slot.0);
    }

    /// Takes a slot's blocks back. An empty slot stays empty.
    pub(crate) fn release(&mut self, slot: SlotId) {
        if let Some(row) = self.slots.get_mut(slot.0).and_then(Option::take) {
            for block in row.blocks {
                self.num_owners[block] -= 1;
                if self.num_owners[block] == 0 {
                    self.free_blocks.push(block);
                }
            }
        }
    }

    /// Adds the places of a row's next `num_tokens` tokens to `places`; they count as cached from now on.
    ///
    /// # Panics
    /// The slot is empty, or the row outgrows the blocks it has.
    pub(crate) fn append(&mut self, slot: SlotId, num_tokens: usize, places: &mut Vec<TokenPlace>) {
        let row =
            self.slots.get_mut(slot.0).and_then(Option::as_mut).expect("a row is prefilled before it steps");
        let appended = row.len..row.len + num_tokens;
        assert!(
            appended.end <= row.blocks.len() * BLOCK_TOKENS,
            "the row in slot {} outgrows its {} blocks of {BLOCK_TOKENS} tokens: reserve prompt_len + \
             max_new_tokens",
            slot.0,
            row.blocks.len(),
        );
        row.len = appended.end;
        places.extend(appended.map(|token| TokenPlace {
            block: row.blocks[token / BLOCK_TOKENS],
            offset: token % BLOCK_TOKENS,
        }));
    }

    /// Forgets a row's last `num_tokens` tokens; it keeps its blocks. The blocks must not be shared.
    ///
    /// # Panics
    /// The slot is empty, or has fewer tokens.
    pub(crate) fn rewind(&mut self, slot: SlotId, num_tokens: usize) {
        let row = self.slots.get_mut(slot.0).and_then(Option::as_mut).expect("only a live row is rewound");
        row.len = row.len.checked_sub(num_tokens).expect("no more is forgotten than was fed");
    }

    /// Where a row's tokens are.
    ///
    /// # Panics
    /// The slot is empty.
    pub(crate) fn row(&self, slot: SlotId) -> CachedRow<'_> {
        let row =
            self.slots.get(slot.0).and_then(Option::as_ref).expect("a row is prefilled before it steps");
        CachedRow { blocks: &row.blocks, len: row.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SlotId = SlotId(0);
    const B: SlotId = SlotId(1);

    #[test]
    fn the_cache_takes_the_bytes_that_its_tokens_are_said_to_take() {
        let config = ModelConfig {
            hidden_size: 24,
            intermediate_size: 32,
            num_hidden_layers: 3,
            num_attention_heads: 6,
            num_key_value_heads: 2,
            head_dim: 4,
            vocab_size: 40,
            max_position_embeddings: 64,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            output_rules: baton_bundle::OutputRules::default(),
            dtype: baton_bundle::WeightDtype::F32,
            family: baton_bundle::FamilyConfig::Decoder(baton_bundle::DecoderConfig::llama(1e-5, 1e4)),
        };
        let limits = CacheLimits { max_slots: 2, max_cache_tokens: 64 };
        for compute in [Compute::CPU_F32, Compute::CPU_INT8] {
            let cache = KvCache::new(&config, 3, compute, limits).unwrap();
            let tensors = cache.storage.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]);
            let num_bytes: usize =
                tensors.map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum();
            assert_eq!(num_bytes, 64 * cache_num_bytes_per_token(&config, compute));
        }
    }

    #[test]
    fn a_row_fills_its_blocks_in_order() {
        let mut table = BlockTable::new(2, 4);
        table.occupy(A, 33);
        let mut places = Vec::new();
        table.append(A, 15, &mut places);
        table.append(A, 2, &mut places);
        let [first, second] = [table.row(A).blocks[0], table.row(A).blocks[1]];
        let mut expected: Vec<TokenPlace> =
            (0..16).map(|offset| TokenPlace { block: first, offset }).collect();
        expected.push(TokenPlace { block: second, offset: 0 });
        assert_eq!(places, expected);
        assert_eq!(table.row(A).len, 17);
    }

    #[test]
    fn released_blocks_are_given_to_the_next_row_and_no_block_has_two_owners() {
        let mut table = BlockTable::new(2, 4);
        table.occupy(A, 48);
        let of_a = table.row(A).blocks.to_vec();
        table.occupy(B, 16);
        assert!(!of_a.contains(&table.row(B).blocks[0]));
        table.release(A);
        table.release(A);
        table.occupy(A, 40);
        let mut all: Vec<usize> = [A, B].iter().flat_map(|&slot| table.row(slot).blocks.to_vec()).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }

    #[test]
    fn a_forked_row_shares_full_blocks_and_copies_the_partial_one() {
        let mut table = BlockTable::new(2, 8);
        table.occupy(A, 48);
        table.append(A, 35, &mut Vec::new());
        let of_a = table.row(A).blocks.to_vec();
        let copied = table.fork(A, B, 64).expect("three tokens are in a partial block");
        let of_b = table.row(B).blocks.to_vec();
        assert_eq!((of_b.len(), table.row(B).len), (4, 35));
        assert_eq!(of_b[..2], of_a[..2]);
        assert_eq!(copied, CopiedBlock { from: of_a[2], to: of_b[2] });
        assert!(!of_a.contains(&of_b[2]) && !of_a.contains(&of_b[3]));
    }

    #[test]
    fn a_shared_block_is_free_when_its_last_owner_leaves() {
        let mut table = BlockTable::new(2, 4);
        table.occupy(A, 32);
        table.append(A, 32, &mut Vec::new());
        assert_eq!(table.fork(A, B, 32), None);
        table.release(A);
        assert_eq!(table.free_blocks.len(), 2);
        table.release(B);
        assert_eq!(table.free_blocks.len(), 4);
    }

    #[test]
    fn a_prompt_kept_apart_is_shared_whole_and_free_when_its_last_reader_leaves() {
        let mut table = BlockTable::new(2, 4);
        table.occupy(A, 20);
        table.append(A, 20, &mut Vec::new());
        assert_eq!(table.share(A, B), 20);
        assert_eq!(table.row(A).blocks, table.row(B).blocks);
        assert_eq!((table.row(B).len, table.free_blocks.len()), (20, 2));
        table.release(A);
        assert_eq!(table.free_blocks.len(), 2);
        table.release(B);
        assert_eq!(table.free_blocks.len(), 4);
    }

    #[test]
    #[should_panic(expected = "outgrows its 1 blocks of 16 tokens")]
    fn a_row_cannot_outgrow_its_reservation() {
        let mut table = BlockTable::new(1, 4);
        table.occupy(A, 16);
        table.append(A, 17, &mut Vec::new());
    }

    #[test]
    #[should_panic(expected = "max_cache_tokens has room")]
    fn the_cache_gives_out_no_more_than_it_has() {
        let mut table = BlockTable::new(2, 4);
        table.occupy(A, 40);
        table.occupy(B, 20);
    }
}
