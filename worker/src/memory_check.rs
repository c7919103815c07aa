//! Refuses a model that does not fit into memory before any weight is read.

use std::fmt;

use baton_bundle::{ModelMemory, WeightFormat};
use baton_model::Compute;

use crate::device_memory::free_memory;

/// The models of a service as they will be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedModels {
    /// The service, for the message.
    pub service: &'static str,
    /// Number format of the weights.
    pub format: WeightFormat,
    /// Threads, each with its own copy.
    pub engines: usize,
    /// Tokens of the largest pass.
    pub pass_tokens: usize,
}

/// The models need more memory than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {service}'s models need {needed} in {format}: {weights} of weights for each of {engines} engines, \
     and {activations} for a pass; {free} are free; {advice}",
    service = planned.service, needed = Size(*needed), format = planned.format.name(),
    weights = Size(memory.weights), engines = planned.engines,
    activations = Size(memory.per_token.saturating_mul(planned.pass_tokens as u64)), free = Size(*free)
)]
pub struct NotEnoughMemory {
    planned: PlannedModels,
    memory: ModelMemory,
    needed: u64,
    free: u64,
    advice: String,
}

impl PlannedModels {
    /// Refuses them if the memory of `compute`'s device does not suffice; `memory` gives an engine's in any
    /// format. A system that does not tell its free memory refuses nothing.
    ///
    /// # Errors
    /// They need more than is free.
    pub fn check(
        self,
        compute: Compute,
        memory: impl Fn(WeightFormat) -> ModelMemory,
    ) -> Result<(), NotEnoughMemory> {
        free_memory(compute).map_or(Ok(()), |free| self.check_against(free, compute.is_cpu(), memory))
    }

    fn check_against(
        self,
        free: u64,
        has_int8: bool,
        memory: impl Fn(WeightFormat) -> ModelMemory,
    ) -> Result<(), NotEnoughMemory> {
        let needed = |format, engines| memory(format).of_engines(engines, self.pass_tokens);
        let all = needed(self.format, self.engines);
        if all <= free {
            return Ok(());
        }
        let smaller = WeightFormat::ALL.into_iter().take_while(|&format| format != self.format);
        let mut advice = Vec::new();
        for format in smaller.filter(|&format| has_int8 || format != WeightFormat::Int8) {
            let size = Size(needed(format, self.engines));
            advice.push(format!("--weights {} needs {size}", format.name()));
        }
        if self.engines > 1 {
            let size = Size(needed(self.format, 1));
            advice.push(format!("--engines 1 needs {size}"));
        }
        let advice = match advice.is_empty() {
            true => "use a machine or a device with more memory, or a smaller model".to_owned(),
            false => advice.join(", "),
        };
        Err(NotEnoughMemory { planned: self, memory: memory(self.format), needed: all, free, advice })
    }
}

/// Bytes, in GiB or MiB.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 >> 30 {
            0 => write!(formatter, "{} MiB", self.0.div_ceil(1 << 20)),
            _ => write!(formatter, "{:.1} GiB", self.0 as f64 / f64::from(1 << 30)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn memory(format: WeightFormat) -> ModelMemory {
        let weights = match format {
            WeightFormat::Int8 => 8 * GIB,
            WeightFormat::Bf16 => 16 * GIB,
            WeightFormat::F32 => 32 * GIB,
        };
        ModelMemory { weights, loading: GIB, per_token: 1 << 20, cache_per_token: 0 }
    }

    #[test]
    fn models_beyond_the_free_memory_are_refused_with_numbers_and_advice() {
        let planned =
            |format, engines| PlannedModels { service: "encoder", format, engines, pass_tokens: 2048 };
        let check = |format, engines, free| planned(format, engines).check_against(free, true, memory);
        assert_eq!(check(WeightFormat::Bf16, 1, 18 * GIB), Ok(()));
        let refused = check(WeightFormat::Bf16, 2, 18 * GIB).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the encoder's models need 36.0 GiB in bf16: 16.0 GiB of weights for each of 2 engines, and \
             2.0 GiB for a pass; 18.0 GiB are free; --weights int8 needs 20.0 GiB, --engines 1 needs 18.0 GiB"
        );
        let refused = check(WeightFormat::Int8, 1, GIB / 2).unwrap_err().to_string();
        assert!(
            refused.ends_with(
                "512 MiB are free; use a machine or a device with more memory, or a smaller model"
            )
        );
        let on_gpu = planned(WeightFormat::Bf16, 1).check_against(GIB, false, memory);
        assert!(!on_gpu.unwrap_err().to_string().contains("int8"));
    }
}
