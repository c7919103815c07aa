//! Which blocks of the LLM this process runs, and on which of its devices.

use std::ops::Range;

use baton_bundle::{
    BlockShare, Bundle, BundleError, ModelMemory, WeightFormat, balanced_ranges, block_weights,
    memory_of_encoder_part,
};
use baton_model::Compute;
use baton_worker::{CPU_PASS_TOKENS, ModelService, PlannedModels};

use crate::{EncoderConfig, EncoderError};

/// The blocks of one process by device, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    parts: Vec<(Range<usize>, Compute)>,
    /// The blocks that the bundle reads with, in all processes.
    pub(crate) num_blocks: usize,
}

impl Split {
    /// The split that a configuration asks for.
    pub(crate) fn of(bundle: &Bundle, config: &EncoderConfig) -> Result<Self, EncoderError> {
        let EncoderConfig { devices, blocks: share, chain, mode, .. } = config;
        if !mode.reads_llm() {
            let is_split = devices.len() > 1 || share.is_some() || !chain.is_empty();
            return match is_split {
                true => Err(EncoderError::NothingToSplit { mode: *mode }),
                false => Ok(Self { parts: vec![(0..0, devices[0])], num_blocks: 0 }),
            };
        }
        let (part, llm) = bundle.llm().map_err(|source| EncoderError::Bundle { source })?;
        Self::of_blocks(&block_weights(llm)[..part.layers], (share.as_ref(), chain.len()), devices)
    }

    /// `share`: this process's blocks; by default an equal part if `num_others` processes run the rest.
    fn of_blocks(
        weights: &[u64],
        (share, num_others): (Option<&BlockShare>, usize),
        devices: &[Compute],
    ) -> Result<Self, EncoderError> {
        let equal_part = BlockShare::Part { number: 1, of: num_others + 1 };
        let blocks = share.unwrap_or(&equal_part).of_blocks(weights)?;
        let ranges = balanced_ranges(&weights[blocks.clone()], devices.len())?;
        let ranges = ranges.into_iter().map(|range| blocks.start + range.start..blocks.start + range.end);
        Ok(Self { parts: ranges.zip(devices.iter().copied()).collect(), num_blocks: weights.len() })
    }

    /// The device of the first blocks, and these.
    pub(crate) fn first(&self) -> (Range<usize>, Compute) {
        self.parts[0].clone()
    }

    /// The other devices with their blocks.
    pub(crate) fn others(&self) -> &[(Range<usize>, Compute)] {
        &self.parts[1..]
    }

    /// All devices with their blocks.
    pub(crate) fn parts(&self) -> &[(Range<usize>, Compute)] {
        &self.parts
    }

    /// The blocks of the process.
    pub(crate) fn blocks(&self) -> Range<usize> {
        self.parts[0].0.start..self.parts[self.parts.len() - 1].0.end
    }

    /// Bytes that an engine of each part takes on the first device, with passes of the usual size.
    pub(crate) fn engine_num_bytes(&self, bundle: &Bundle, config: &EncoderConfig) -> u64 {
        let (_, compute) = self.parts[0];
        let memory = self.memory_on(compute, bundle, (config, compute.weight_format()));
        memory.map_or(0, |memory| memory.of_engine(CPU_PASS_TOKENS, 0))
    }

    /// The memory of the parts on a device, working at the same time.
    fn memory_on(
        &self,
        device: Compute,
        bundle: &Bundle,
        (config, format): (&EncoderConfig, WeightFormat),
    ) -> Result<ModelMemory, EncoderError> {
        let here = self.parts.iter().filter(|(_, compute)| compute.device == device.device);
        here.map(|(blocks, _)| memory_of_encoder_part(bundle, (config.mode, format), blocks.clone()))
            .try_fold(ModelMemory::default(), |all, memory| Ok::<_, BundleError>(all.beside(memory?)))
            .map_err(|source| EncoderError::Bundle { source })
    }

    /// Refuses parts that do not fit into the memory of their devices.
    pub(crate) fn check_memory(&self, bundle: &Bundle, config: &EncoderConfig) -> Result<(), EncoderError> {
        // A text is read in one pass, even if it is longer than a batch.
        let pass_tokens = config.max_batch_tokens.max(bundle.manifest().limits.max_prompt_tokens);
        for (index, &(_, compute)) in self.parts.iter().enumerate() {
            if self.parts[..index].iter().any(|(_, earlier)| earlier.device == compute.device) {
                continue;
            }
            let format = compute.weight_format();
            self.memory_on(compute, bundle, (config, format))?;
            let (service, engines) = (ModelService::Encoder, config.engines);
            let planned = PlannedModels { service, format, engines, pass_tokens, cache_tokens: 0 };
            let memory = |format| self.memory_on(compute, bundle, (config, format)).unwrap_or_default();
            planned.check(compute, memory)?;
        }
        Ok(())
    }

    /// Tells where the blocks are, if there is anything to tell.
    pub(crate) fn log(&self) {
        if self.parts.len() > 1 || self.blocks().len() < self.num_blocks {
            for (blocks, compute) in &self.parts {
                tracing::info!(?blocks, of = self.num_blocks, device = ?compute.device, "loading blocks");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Compute = Compute::CPU_F32;

    fn blocks(share: Option<&str>, num_others: usize, num_devices: usize) -> Option<Vec<Range<usize>>> {
        let share = share.map(|share| share.parse().unwrap());
        let split = Split::of_blocks(&[1; 10], (share.as_ref(), num_others), &vec![CPU; num_devices]);
        split.ok().map(|split| split.parts.into_iter().map(|(blocks, _)| blocks).collect())
    }

    #[test]
    fn a_process_runs_all_blocks_or_its_share_and_cuts_them_by_its_devices() {
        assert_eq!(blocks(None, 0, 1), Some(vec![0..10]));
        assert_eq!(blocks(None, 0, 2), Some(vec![0..5, 5..10]));
        assert_eq!(blocks(None, 1, 2), Some(vec![0..2, 2..5]));
        assert_eq!(blocks(Some("0..8"), 1, 2), Some(vec![0..4, 4..8]));
        assert_eq!(blocks(Some("2/2"), 0, 1), Some(vec![5..10]));
        assert_eq!(blocks(Some("8..10"), 0, 2), Some(vec![8..9, 9..10]));
        assert_eq!(blocks(Some("8..10"), 0, 3), None);
    }
}
