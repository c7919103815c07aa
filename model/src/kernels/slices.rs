//! The memory of contiguous CPU tensors as slices.

use std::ops::Range;

use tch::{Device, Tensor};

use super::number::Element;

/// All elements of a tensor.
///
/// # Panics
/// The tensor is not contiguous, not on the CPU, or not of type `E`.
///
/// # Safety
/// While the slice lives, no other tensor or slice over the same memory may write to it.
pub(super) unsafe fn elements<E: Element>(tensor: &Tensor) -> &[E] {
    check::<E>(tensor);
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: checked above; libtorch aligns its memory to 64 bytes and an offset into it is a whole number
    // of elements; the tensor keeps the memory alive while it is borrowed; the caller rules out writes.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<E>(), tensor.numel()) }
}

/// All elements of a tensor, to be written.
///
/// # Panics
/// The tensor is not contiguous, not on the CPU, or not of type `E`.
///
/// # Safety
/// While the slice lives, no other tensor or slice over the same memory may be read or written.
pub(super) unsafe fn elements_mut<E: Element>(tensor: &mut Tensor) -> &mut [E] {
    check::<E>(tensor);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as in `elements`, and the caller rules out every other access.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<E>(), tensor.numel()) }
}

/// Checks that `written`, whose memory [`elements_mut`] is about to lend, shares none of it with the tensors
/// that [`elements`] lends at the same time. All are contiguous.
///
/// # Panics
/// It does: one is a view of another.
pub(super) fn assert_apart<const N: usize>(written: &Tensor, read: [&Tensor; N]) {
    let written = memory_of(written);
    for tensor in read {
        let read = memory_of(tensor);
        let is_apart =
            written.is_empty() || read.is_empty() || written.end <= read.start || read.end <= written.start;
        assert!(is_apart, "a kernel writes into a tensor that shares memory with another argument");
    }
}

/// The addresses of a contiguous tensor's bytes.
fn memory_of(tensor: &Tensor) -> Range<usize> {
    let start = tensor.data_ptr() as usize;
    start..start + tensor.numel() * tensor.kind().elt_size_in_bytes()
}

fn check<E: Element>(tensor: &Tensor) {
    assert_eq!(tensor.device(), Device::Cpu, "kernels run on the CPU");
    assert_eq!(tensor.kind(), E::KIND, "kernels read each tensor in its own type");
    assert!(tensor.is_contiguous(), "kernels read contiguous memory");
}
