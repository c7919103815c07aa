//! How many numbers a model's parts have.

use crate::{ModelConfig, NamedShape};

pub(super) fn embedding(config: &ModelConfig) -> u64 {
    (config.vocab_size * config.hidden_size) as u64
}

pub(super) fn num_parameters(config: &ModelConfig) -> u64 {
    config.tensor_shapes().iter().map(|(_, shape)| numel(shape)).sum()
}

/// Parameters of the table of positions, if a family has one, and of an encoder's final norm.
pub(super) fn around_blocks(config: &ModelConfig) -> u64 {
    let layout = config.tensor_layout();
    layout.before.iter().skip(1).chain(&layout.between).map(|(_, shape)| numel(shape)).sum()
}

/// Parameters of the first `layers` blocks that read, norms included.
pub(super) fn blocks(config: &ModelConfig, layers: usize) -> u64 {
    let layout = config.tensor_layout();
    layout.blocks.iter().take(layers).flatten().map(|(_, shape)| numel(shape)).sum()
}

/// Parameters of each block that reads: what a reader is split by.
#[must_use]
pub fn block_weights(config: &ModelConfig) -> Vec<u64> {
    let of_block = |tensors: &Vec<NamedShape>| tensors.iter().map(|(_, shape)| numel(shape)).sum();
    config.tensor_layout().blocks.iter().map(of_block).collect()
}

pub(super) fn numel(shape: &[usize]) -> u64 {
    shape.iter().product::<usize>() as u64
}
