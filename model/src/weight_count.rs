//! Counts the bytes of the weights that a thread loads, where they get their last format.
//!
//! `baton_bundle::ModelMemory` computes the same from shapes before anything is loaded; a test holds it
//! against this count. A tensor that serves two layers counts in both.

use std::cell::Cell;

use tch::Tensor;

thread_local! {
    static NUM_BYTES: Cell<u64> = const { Cell::new(0) };
}

/// Counts a tensor that stays in memory.
pub(crate) fn count_weight(tensor: &Tensor) {
    count_bytes(tensor.numel() * tensor.kind().elt_size_in_bytes());
}

/// Counts bytes that stay in memory.
pub(crate) fn count_bytes(num_bytes: usize) {
    NUM_BYTES.set(NUM_BYTES.get() + num_bytes as u64);
}

/// The bytes that this thread has counted since its last call.
#[must_use]
pub fn take_counted_weight_bytes() -> u64 {
    NUM_BYTES.take()
}
