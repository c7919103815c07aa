//! The memory of contiguous CPU tensors as slices.

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
    // SAFETY: checked above; libtorch aligns its memory to 64 bytes and an offset into it is a whole number of elements; the tensor
    // keeps the memory alive while it is borrowed; the caller rules out writes.
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

fn check<E: Element>(tensor: &Tensor) {
    assert_eq!(tensor.device(), Device::Cpu, "kernels run on the CPU");
    assert_eq!(tensor.kind(), E::KIND, "kernels read each tensor in its own type");
    assert!(tensor.is_contiguous(), "kernels read contiguous memory");
}
