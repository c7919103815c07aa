//! This machine's rate of multiplying matrices, the yardstick for the models' rates.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor, no_grad};

use crate::{
    Compute, WeightType,
    kernels::{Instructions, Int8Weight},
};

/// Rows, columns and inner size of the products.
const SIZE: i64 = 1024;

/// Multiplications and additions per second of square products of size 1024, in the format of `compute`, on
/// the calling thread: the best of the repetitions that fit into `duration`. The products are libtorch's,
/// except for int8 on a CPU with only AVX2.
#[must_use]
pub fn matmul_operations_per_second(compute: Compute, duration: Duration) -> f64 {
    let options = (Kind::Float, Device::Cpu);
    let square = || (Tensor::arange(SIZE * SIZE, options) * 0.7).sin().view([SIZE, SIZE]);
    let product: Box<dyn Fn() -> Tensor> = match compute.weights {
        WeightType::Int8 => {
            let quantized = (square() * 127).to_kind(Kind::Int8);
            match Instructions::best() {
                // libtorch has no fast product of bytes for these CPUs.
                Some(Instructions::Avx2) => {
                    let weight = Int8Weight::new(&quantized);
                    Box::new(move || weight.product(&quantized))
                }
                _ => Box::new(move || quantized.internal_int_mm(&quantized.tr())),
            }
        }
        WeightType::Float => {
            let numbers = square().to_kind(compute.kind);
            Box::new(move || numbers.linear(&numbers, None::<&Tensor>))
        }
    };
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    while begun.elapsed() < duration || best.is_infinite() {
        let started = Instant::now();
        let _ = no_grad(&product);
        best = best.min(started.elapsed().as_secs_f64());
    }
    2.0 * (SIZE as f64).powi(3) / best
}
