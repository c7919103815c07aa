//! Where a pass's time goes: a stopwatch per part of the model, on each thread.
//!
//! Reading the clock costs some 25 ns, a part takes microseconds, so it is always on. Meaningful on the CPU,
//! where an operation is done when its call returns; on other devices a part's time is that of queueing it.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

/// A part of a model's pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Token embeddings, or prompt states into tensors.
    Embed,
    /// Norms, with quantization where weights are int8.
    Norm,
    /// Products with the blocks' weights.
    Linear,
    /// Rotary positions and scaling of the products that queries, keys and values come from.
    Rotate,
    /// Attention, with reading and writing the cache.
    Attention,
    /// Activations, residual sums and the quantization between products.
    Activation,
    /// The head: final norm, product with the vocabulary, logits in host memory.
    Head,
}

impl Part {
    /// All parts, in the order of a pass.
    pub const ALL: [Part; 7] =
        [Part::Embed, Part::Norm, Part::Linear, Part::Rotate, Part::Attention, Part::Activation, Part::Head];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Embed => "embed",
            Part::Norm => "norm",
            Part::Linear => "linear",
            Part::Rotate => "rotate",
            Part::Attention => "attention",
            Part::Activation => "activation",
            Part::Head => "head",
        }
    }
}

thread_local! {
    static TIMES: RefCell<[Duration; Part::ALL.len()]> =
        const { RefCell::new([Duration::ZERO; Part::ALL.len()]) };
}

/// Runs `work` and counts its time as `part`'s. Parts do not nest.
pub(crate) fn time<T>(part: Part, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    TIMES.with_borrow_mut(|times| times[part as usize] += started.elapsed());
    result
}

/// Time that this thread has spent in each part since it last asked, in the order of [`Part::ALL`].
#[must_use]
pub fn take_part_times() -> [Duration; Part::ALL.len()] {
    TIMES.take()
}
