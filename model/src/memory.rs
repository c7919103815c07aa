//! Passes that must not fail because they are large: where memory runs out, a pass is done in parts, and
//! later ones begin smaller.
//!
//! libtorch reports a failed allocation of a tensor operation by a C++ exception, which tch's plain
//! operations turn into a panic. Only this file catches it. Any other panic continues, and so does one of a
//! single item: its model thread dies, and the process with it.

use std::{
    any::Any,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// How large passes may be, learned from those that did not fit. Rows do not see each other, so results do
/// not depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassSize {
    what: &'static str,
    max_size: usize,
}

impl PassSize {
    /// No bound, until memory runs out. `what` names the pass in logs.
    pub(crate) fn unbounded(what: &'static str) -> Self {
        Self { what, max_size: usize::MAX }
    }

    /// Runs `pass` over `sizes.len()` items, one or several at a time, in order; `sizes` has each item's
    /// size. `pass` may be called again for items that it has begun, and for a part of them. Returns the size
    /// that later passes may have.
    #[must_use]
    pub(crate) fn run(
        mut self,
        sizes: &(impl ExactSizeIterator<Item = usize> + Clone),
        mut pass: impl FnMut(Range<usize>),
    ) -> Self {
        let num_items = sizes.len();
        let size_of = |items: &Range<usize>| sizes.clone().skip(items.start).take(items.len()).sum::<usize>();
        let mut start = 0;
        while start < num_items {
            let mut items = start..num_items;
            while items.len() > 1 && size_of(&items) > self.max_size {
                items.end -= items.len() / 2;
            }
            while let Err(panic) = catch_unwind(AssertUnwindSafe(|| pass(items.clone()))) {
                if items.len() == 1 || !is_out_of_memory(panic.as_ref()) {
                    resume_unwind(panic);
                }
                items.end -= items.len() / 2;
                self.max_size = size_of(&items);
                tracing::warn!(
                    pass = self.what,
                    max_size = self.max_size,
                    "out of memory, continuing with smaller passes"
                );
            }
            start = items.end;
        }
        self
    }
}

/// Whether libtorch said that an allocation failed: on a GPU ("CUDA out of memory"), or on the CPU.
fn is_out_of_memory(panic: &(dyn Any + Send)) -> bool {
    let message =
        panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    message
        .is_some_and(|message| message.contains("out of memory") || message.contains("can't allocate memory"))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    /// A pass over items of size one that libtorch has no memory for if there are more than `max_items`.
    fn run(pass_size: PassSize, num_items: usize, max_items: usize) -> (PassSize, Vec<usize>, usize) {
        let (mut done, mut num_passes) = (Vec::new(), 0);
        let pass_size = pass_size.run(&(0..num_items).map(|_| 1), |items| {
            num_passes += 1;
            let numel = if items.len() > max_items { 1 << 60 } else { 1 };
            let _ = Tensor::zeros([numel], (Kind::Uint8, Device::Cpu));
            done.extend(items);
        });
        (pass_size, done, num_passes)
    }

    #[test]
    fn a_pass_that_does_not_fit_is_done_in_parts_and_the_next_one_begins_with_what_fitted() {
        let all: Vec<usize> = (0..10).collect();
        let (learned, done, num_passes) = run(PassSize::unbounded("test"), 10, 3);
        assert_eq!((done, num_passes), (all.clone(), 2 + 4), "10 and 5 do not fit; 3, 3, 2 and 2 do");
        let (_, done, num_passes) = run(learned, 10, 3);
        assert_eq!((done, num_passes), (all, 4));
    }

    #[test]
    #[should_panic(expected = "can't allocate memory")]
    fn a_single_item_that_does_not_fit_ends_the_thread() {
        let _ = run(PassSize::unbounded("test"), 4, 0);
    }

    #[test]
    #[should_panic(expected = "not about memory")]
    fn another_panic_is_not_tried_again() {
        let _ = PassSize::unbounded("test").run(&(0..4).map(|_| 1), |items| {
            assert_eq!(items.len(), 4, "tried again");
            panic!("not about memory");
        });
    }
}
