//! Where and in which number formats a model computes.

use std::{sync::OnceLock, time::Duration};

use baton_bundle::WeightFormat;
use tch::{Cuda, Device, Kind};

use crate::{kernels::Instructions, matmul_operations_per_second};

/// The reason why a model cannot compute on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnavailableDevice {
    /// There is no such GPU, or libtorch was built for the CPU alone.
    #[error(
        "there is no CUDA device {index}: libtorch sees {available}; use --device cpu, or a libtorch with \
         CUDA and its driver"
    )]
    NoCuda {
        /// The number asked for.
        index: usize,
        /// How many there are.
        available: usize,
    },
    /// Int8 kernels are for CPUs.
    #[error("int8 weights run on the CPU alone: use --weights bf16 on a GPU, or --device cpu")]
    Int8OnCuda,
    /// The process does not split its models.
    #[error(
        "--device names {devices} devices, but only an encoder splits its LLM over several: name one; more \
         engines, or more processes, use the others"
    )]
    Several {
        /// How many were named.
        devices: usize,
    },
    /// Their arithmetic would differ.
    #[error(
        "--device names a CPU beside a GPU, or `auto` beside another device: an LLM is split over CPUs alone \
         or over GPUs alone, each named"
    )]
    Mixed,
}

/// The format of a model's linear weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightType {
    /// The compute kind itself: f32 or bf16.
    Float,
    /// Symmetric int8 weights, one scale per output; activations quantized per token on the way (W8A8). Sums
    /// are exact integers.
    Int8,
}

/// Device and arithmetic of a model.
///
/// The residual stream, norms and softmax are f32 for every type; matrix products, keys and values use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// Device that holds the weights.
    pub device: Device,
    /// `Kind::Float` or `Kind::BFloat16`: keys, values, embeddings, and the weights unless they are int8.
    pub kind: Kind,
    /// Format of the linear weights.
    pub weights: WeightType,
    /// Whether the fused CPU kernels may replace libtorch's small operations. They have no gradients.
    pub fused: bool,
}

impl Compute {
    /// f32 on the CPU: the reference arithmetic, used by parity tests.
    pub const CPU_F32: Compute =
        Compute { device: Device::Cpu, kind: Kind::Float, weights: WeightType::Float, fused: true };
    /// bf16 on the CPU: between half and twice as fast as f32 where the CPU has bf16 dot products, and
    /// hopelessly slow where not.
    pub const CPU_BF16: Compute = Compute { kind: Kind::BFloat16, ..Self::CPU_F32 };
    /// int8 weights, and bf16 keys and values, on the CPU. With dot products of bytes it is about twice as
    /// fast as bf16, with AVX2 about twice as fast as f32.
    pub const CPU_INT8: Compute = Compute { weights: WeightType::Int8, ..Self::CPU_BF16 };

    /// The fastest choice on this machine's CPU: int8 if there is a product for it, else
    /// [`fastest_float_cpu`](Self::fastest_float_cpu).
    #[must_use]
    pub fn fastest_cpu() -> Self {
        #[cfg(target_arch = "aarch64")]
        let int8 = std::arch::is_aarch64_feature_detected!("dotprod");
        #[cfg(not(target_arch = "aarch64"))]
        let int8 = Instructions::best().is_some();
        if int8 { Self::CPU_INT8 } else { Self::fastest_float_cpu() }
    }

    /// The faster of bf16 and f32 on this machine's CPU, for libtorch's products. It is measured once, for a
    /// fifth of a second, if the CPU has bf16 dot products at all. Some CPUs multiply bf16 twice as fast as
    /// f32, others half as fast.
    #[must_use]
    pub fn fastest_float_cpu() -> Self {
        static FASTEST: OnceLock<Compute> = OnceLock::new();
        #[cfg(target_arch = "x86_64")]
        let bf16 = is_x86_feature_detected!("avx512bf16");
        #[cfg(target_arch = "aarch64")]
        let bf16 = std::arch::is_aarch64_feature_detected!("bf16");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let bf16 = false;
        let rate = |compute| matmul_operations_per_second(compute, Duration::from_millis(100));
        *FASTEST.get_or_init(|| {
            if bf16 && rate(Self::CPU_BF16) > rate(Self::CPU_F32) { Self::CPU_BF16 } else { Self::CPU_F32 }
        })
    }

    /// bf16 on a GPU, by libtorch's own operations.
    ///
    /// # Errors
    /// There is no such GPU.
    pub fn cuda(index: usize) -> Result<Self, UnavailableDevice> {
        let available =
            if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 };
        if index >= available {
            return Err(UnavailableDevice::NoCuda { index, available });
        }
        Ok(Self { device: Device::Cuda(index), fused: false, ..Self::CPU_BF16 })
    }

    /// The same in f32.
    #[must_use]
    pub const fn in_f32(self) -> Self {
        Self { kind: Kind::Float, weights: WeightType::Float, ..self }
    }

    /// Whether it is the CPU's.
    #[must_use]
    pub fn is_cpu(self) -> bool {
        self.device == Device::Cpu
    }

    /// The GPU's number, if it is one's.
    #[must_use]
    pub fn gpu(self) -> Option<usize> {
        match self.device {
            Device::Cuda(index) => Some(index),
            _ => None,
        }
    }

    /// The weights' format, as the flag `--weights` calls it.
    #[must_use]
    pub fn weights_name(self) -> &'static str {
        self.weight_format().name()
    }

    /// The weights' format, as the accounting of memory counts it.
    #[must_use]
    pub fn weight_format(self) -> WeightFormat {
        match (self.weights, self.kind) {
            (WeightType::Int8, _) => WeightFormat::Int8,
            (WeightType::Float, Kind::Float) => WeightFormat::F32,
            (WeightType::Float, _) => WeightFormat::Bf16,
        }
    }

    /// The arithmetic in words, such as `int8 on a CPU`. Outputs with equal arithmetic are equal, except that
    /// machines of one kind may differ in the last bits of floating-point sums.
    #[must_use]
    pub fn arithmetic(self) -> String {
        format!("{} on a {}", self.weights_name(), if self.is_cpu() { "CPU" } else { "GPU" })
    }

    /// The same arithmetic by operations that have gradients.
    #[must_use]
    pub const fn differentiable(self) -> Self {
        Self { fused: false, weights: WeightType::Float, ..self }
    }

    /// Where the weights are int8, the same in f32: for layers where int8 would cost more than it saves. Not
    /// in bf16, since CPUs with products of int8 may have none of bf16.
    #[must_use]
    pub const fn with_float_weights(self) -> Self {
        match self.weights {
            WeightType::Int8 => self.in_f32(),
            WeightType::Float => self,
        }
    }
}
