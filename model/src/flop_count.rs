//! Counts the floating-point operations of a thread's passes: products of linear layers and of attention,
//! counted where they are computed.
//!
//! `baton_bundle::Arithmetic` computes the same from shapes; tests hold it against this count. Counting costs
//! an addition for each product, so it is always on. Training's padded attention is not counted.

use std::cell::Cell;

thread_local! {
    static FLOPS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the product of `rows` inputs with a matrix of this many weights.
pub(crate) fn count_product(rows: i64, num_weights: i64) {
    add(2 * rows.unsigned_abs() * num_weights.unsigned_abs());
}

/// Counts attention: queries as wide as all heads together, and the positions that all queries together see.
pub(crate) fn count_attention(query_width: usize, positions_seen: usize) {
    add(4 * query_width as u64 * positions_seen as u64);
}

fn add(flops: u64) {
    FLOPS.set(FLOPS.get() + flops);
}

/// The operations that this thread has counted since its last call.
#[must_use]
pub fn take_counted_flops() -> u64 {
    FLOPS.take()
}
