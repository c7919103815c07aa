//! The memory of a service's models as planned: how many engines fit, and the refusal of models that do not,
//! before any weight is read.

use std::fmt;

use baton_bundle::{Bundle, BundleError, ModelMemory, WeightFormat, memory_of_decoder, memory_of_encoder};
use baton_job::Mode;
use baton_model::Compute;

use crate::device_memory::free_memory;

/// Prompt tokens that an engine reads in one pass on a CPU, unless flags say otherwise.
pub const CPU_PASS_TOKENS: usize = 1024;
/// Tokens that an engine's cache holds on a CPU, unless flags say otherwise.
pub const CPU_CACHE_TOKENS: usize = 32_768;

/// A service that loads models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelService {
    /// It reads prompts.
    Encoder,
    /// It writes outputs.
    Decoder,
}

impl ModelService {
    /// Its name in logs, metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
        }
    }

    /// The memory of one of its engines in a mode.
    ///
    /// # Errors
    /// The bundle lacks a part that the mode needs.
    pub fn memory(
        self,
        bundle: &Bundle,
        mode: Mode,
        format: WeightFormat,
    ) -> Result<ModelMemory, BundleError> {
        match self {
            Self::Encoder => memory_of_encoder(bundle, mode, format),
            Self::Decoder => memory_of_decoder(bundle, mode, format),
        }
    }

    /// Bytes that one of its engines takes in a mode, with passes and a cache of the usual sizes. A GPU's
    /// cache is not counted, because the decoder makes it as large as memory allows. 0 for a mode that the
    /// bundle does not serve.
    #[must_use]
    pub fn engine_num_bytes(self, bundle: &Bundle, mode: Mode, compute: Compute) -> u64 {
        let memory = self.memory(bundle, mode, compute.weight_format()).unwrap_or_default();
        memory.of_engine(CPU_PASS_TOKENS, if compute.is_cpu() { CPU_CACHE_TOKENS } else { 0 })
    }
}

/// Bytes that an encoder's and a decoder's engine take together, as for
/// [`ModelService::engine_num_bytes`].
#[must_use]
pub fn pair_num_bytes(bundle: &Bundle, mode: Mode, compute: Compute) -> u64 {
    let services = [ModelService::Encoder, ModelService::Decoder];
    services.map(|service| service.engine_num_bytes(bundle, mode, compute)).into_iter().sum()
}

/// The models of a service as they will be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedModels {
    /// The service.
    pub service: ModelService,
    /// Number format of the weights.
    pub format: WeightFormat,
    /// Threads, each with its own copy.
    pub engines: usize,
    /// Tokens of the largest pass.
    pub pass_tokens: usize,
    /// Tokens in the cache of each engine.
    pub cache_tokens: usize,
}

/// The models need more memory than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {service}'s models need {needed} in {format}: {weights} of weights{cache} for each of {engines} \
     engines, and {activations} for a pass; {free} are free; {advice}",
    service = planned.service.name(), needed = Size(*needed), format = planned.format.name(),
    weights = Size(memory.weights), cache = Cache(memory.of_cache(planned.cache_tokens)),
    engines = planned.engines,
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
        let needed = |format, engines: usize| {
            let memory = memory(format);
            let caches = memory.of_cache(self.cache_tokens).saturating_mul(engines as u64);
            memory.of_engines(engines, self.pass_tokens).saturating_add(caches)
        };
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
        if advice.is_empty() {
            advice.push("use a machine or a device with more memory, or a smaller model".to_owned());
        }
        if self.service == ModelService::Encoder {
            advice.push("or split the LLM by --device or --blocks".to_owned());
        }
        let advice = advice.join(", ");
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

/// Bytes of a cache, in words, if there is one.
struct Cache(u64);

impl fmt::Display for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            bytes => write!(formatter, " and {} of cache", Size(bytes)),
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
        ModelMemory { weights, loading: GIB, per_token: 1 << 20, cache_per_token: 1 << 16 }
    }

    #[test]
    fn models_beyond_the_free_memory_are_refused_with_numbers_and_advice() {
        let service = ModelService::Encoder;
        let planned =
            |format, engines| PlannedModels { service, format, engines, pass_tokens: 2048, cache_tokens: 0 };
        let check = |format, engines, free| planned(format, engines).check_against(free, true, memory);
        assert_eq!(check(WeightFormat::Bf16, 1, 18 * GIB), Ok(()));
        let refused = check(WeightFormat::Bf16, 2, 18 * GIB).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the encoder's models need 36.0 GiB in bf16: 16.0 GiB of weights for each of 2 engines, and \
             2.0 GiB for a pass; 18.0 GiB are free; --weights int8 needs 20.0 GiB, --engines 1 needs \
             18.0 GiB, or split the LLM by --device or --blocks"
        );
        let refused = check(WeightFormat::Int8, 1, GIB / 2).unwrap_err().to_string();
        assert!(refused.ends_with(
            "512 MiB are free; use a machine or a device with more memory, or a smaller model, or split \
                 the LLM by --device or --blocks"
        ));
        let decoder = PlannedModels {
            service: ModelService::Decoder,
            cache_tokens: 32_768,
            ..planned(WeightFormat::Bf16, 1)
        };
        let refused = decoder.check_against(19 * GIB, true, memory).unwrap_err().to_string();
        assert!(
            refused.starts_with(
                "the decoder's models need 20.0 GiB in bf16: 16.0 GiB of weights and 2.0 GiB of cache for \
                 each of 1 engines, and 2.0 GiB for a pass; 19.0 GiB are free; --weights int8 needs 12.0 GiB"
            ),
            "{refused}"
        );
        let on_gpu = planned(WeightFormat::Bf16, 1).check_against(GIB, false, memory);
        assert!(!on_gpu.unwrap_err().to_string().contains("int8"));
    }
}
