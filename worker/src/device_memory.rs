//! The free memory of the device that models run on. A GPU's is from its driver, because libtorch does not
//! expose it.

use baton_model::Compute;
use nvml_wrapper::Nvml;

use crate::machine_memory::available_memory;

/// Free bytes of the device; none if the system does not say.
pub(crate) fn free_memory(compute: Compute) -> Option<u64> {
    compute.gpu().map_or_else(available_memory, free_gpu_memory)
}

/// Free bytes of a GPU, numbered as CUDA numbers the GPUs that this process sees; none if the driver does not
/// say, which is logged.
pub fn free_gpu_memory(index: usize) -> Option<u64> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let free = Nvml::init().and_then(|nvml| {
        let device = match device_name(index, visible.as_deref()) {
            DeviceName::Index(index) => nvml.device_by_index(index)?,
            DeviceName::Uuid(uuid) => nvml.device_by_uuid(uuid)?,
        };
        Ok(device.memory_info()?.free)
    });
    free.inspect_err(
        |error| tracing::warn!(%error, index, "the driver does not say how much memory the GPU has free"),
    )
    .ok()
}

/// The driver's name of a GPU.
#[derive(Debug, PartialEq, Eq)]
enum DeviceName<'a> {
    Index(u32),
    Uuid(&'a str),
}

/// The driver's name of the GPU that CUDA calls `index`. `visible`: the value of `CUDA_VISIBLE_DEVICES`,
/// indices or UUIDs with commas.
fn device_name(index: usize, visible: Option<&str>) -> DeviceName<'_> {
    let by_index = DeviceName::Index(u32::try_from(index).unwrap_or(u32::MAX));
    match visible.and_then(|visible| visible.split(',').nth(index)).map(str::trim) {
        None | Some("") => by_index,
        Some(name) => name.parse().map_or(DeviceName::Uuid(name), DeviceName::Index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_asked_for_the_gpu_that_cuda_shows_under_a_number() {
        assert_eq!(device_name(1, None), DeviceName::Index(1));
        assert_eq!(device_name(1, Some("3, 5")), DeviceName::Index(5));
        assert_eq!(device_name(0, Some("GPU-6f2a")), DeviceName::Uuid("GPU-6f2a"));
        assert_eq!(device_name(2, Some("3,5")), DeviceName::Index(2));
    }

    #[test]
    fn free_memory_is_a_number_where_there_is_a_gpu() {
        match Compute::cuda(0) {
            Err(_) => eprintln!("SKIPPED: there is no GPU"),
            Ok(_) => assert!(free_gpu_memory(0).is_some_and(|bytes| bytes > 1 << 20)),
        }
    }
}
