//! Tensors between host memory and a device.
//!
//! Tensors travel to and from a GPU by pinned memory, which libtorch keeps and reuses. A copy to the GPU is
//! queued behind earlier work, and the caller continues at once. On the CPU nothing is copied.

use tch::{Device, Tensor};

/// A tensor in host memory, on `device`.
pub(crate) fn upload(tensor: Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => {
            let (non_blocking, copy) = (true, false);
            tensor.pin_memory(device).to_device_(device, tensor.kind(), non_blocking, copy)
        }
        _ => tensor,
    }
}

/// A tensor on any device, in host memory. Waits until it is computed.
pub(crate) fn download(tensor: Tensor) -> Tensor {
    match tensor.device() {
        device @ Device::Cuda(_) => {
            let mut pinned = Tensor::empty(tensor.size(), (tensor.kind(), Device::Cpu)).pin_memory(device);
            pinned.copy_(&tensor);
            pinned
        }
        _ => tensor,
    }
}

/// Token ids or places, as an int64 tensor on `device`.
pub(crate) fn upload_indices(indices: &[i64], device: Device) -> Tensor {
    upload(Tensor::from_slice(indices), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_way_to_the_device_and_back() {
        let devices = match crate::Compute::cuda(0) {
            Ok(compute) => vec![Device::Cpu, compute.device],
            Err(_) => {
                eprintln!("SKIPPED on a GPU: there is none");
                vec![Device::Cpu]
            }
        };
        for device in devices {
            let there = upload_indices(&[3, 1, 2], device);
            assert_eq!((there.device(), there.kind()), (device, tch::Kind::Int64));
            let back = download(there + 1);
            assert_eq!(Vec::<i64>::try_from(back).unwrap(), [4, 2, 3]);
        }
    }
}
