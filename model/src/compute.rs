//! Where and in which number format a model computes.

use tch::{Device, Kind};

/// Device and arithmetic type of a model's linear layers.
///
/// The residual stream, norms and softmax are f32 whatever the type; only matrix products and the keys and values use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// Device that holds the weights.
    pub device: Device,
    /// `Kind::Float` or `Kind::BFloat16`.
    pub kind: Kind,
}

impl Compute {
    /// f32 on the CPU: the reference arithmetic, used by parity tests.
    pub const CPU_F32: Compute = Compute { device: Device::Cpu, kind: Kind::Float };
    /// bf16 on the CPU: the default, more than twice as fast as f32 where the CPU has bf16 dot products.
    pub const CPU_BF16: Compute = Compute { device: Device::Cpu, kind: Kind::BFloat16 };

    /// The best default for a device: bf16 on both CPU and CUDA.
    #[must_use]
    pub fn default_for(device: Device) -> Self {
        Compute { device, kind: Kind::BFloat16 }
    }
}
