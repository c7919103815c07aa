//! Some of the blocks that a bundle's LLM reads with: a part of a reader that is too large for one device.

use std::{cell::Cell, ops::Range};

use baton_bundle::{Bundle, LlmPart, ProjectorPart};
use tch::no_grad;

use crate::{Compute, LanguageModel, LayerStates, LlmWeights, ModelError, memory::PassSize};

/// A contiguous range of the LLM's blocks after the first ones. It continues what [`PromptEncoder::begin`]
/// has begun; the states do not depend on where the reader is cut.
///
/// [`PromptEncoder::begin`]: crate::PromptEncoder::begin
#[derive(Debug)]
pub struct ReaderPart {
    llm: LanguageModel,
    mixed_layers: Vec<usize>,
    pass_size: Cell<PassSize>, // tokens
}

impl ReaderPart {
    /// Loads these blocks alone.
    ///
    /// # Errors
    /// A file is missing or broken, or does not fit the manifest; or the LLM has no such blocks.
    pub fn load(bundle: &Bundle, blocks: Range<usize>, compute: Compute) -> Result<Self, ModelError> {
        let (_, config) = bundle.llm()?;
        let weights = LlmWeights::for_reading(bundle)?;
        let mixed_layers = mixed_layers_in(bundle, &blocks)?;
        let llm = LanguageModel::load_blocks(config, &weights, blocks, compute)?;
        Ok(Self { llm, mixed_layers, pass_size: Cell::new(PassSize::unbounded("read")) })
    }

    /// Continues the stream of some prompts. Result: the states of the layers in this part that the projector
    /// mixes, then the stream.
    ///
    /// # Panics
    /// A prompt is longer than the LLM's positions, or memory does not suffice for it alone.
    #[must_use]
    pub fn read(&self, stream: &LayerStates) -> LayerStates {
        let compute = self.llm.compute();
        let mut states = LayerStates::none(self.mixed_layers.len() + 1, self.llm.config().hidden_size);
        let read = |prompts: Range<usize>| {
            let x = stream.copied_to(&prompts, compute.device).swap_remove(0);
            let layers = no_grad(|| self.llm.read_blocks(x, &stream.layout(&prompts), &self.mixed_layers));
            states.extend(LayerStates::of_layers(stream.prompt_lens()[prompts].to_vec(), layers));
        };
        self.pass_size.set(self.pass_size.get().run(&stream.prompt_lens().iter().copied(), read));
        states
    }
}

/// The layers that the bundle's projector mixes, apart from the last one that is read, as far as they are
/// states after these blocks.
pub(crate) fn mixed_layers_in(bundle: &Bundle, blocks: &Range<usize>) -> Result<Vec<usize>, ModelError> {
    let (LlmPart { layers, .. }, _) = bundle.llm()?;
    let (small_model, _) = bundle.small_model()?;
    let mixed = small_model.projector().map(|ProjectorPart { mixed_layers, .. }| mixed_layers.as_slice());
    let is_here = |&layer: &usize| layer > blocks.start && layer <= blocks.end && layer < *layers;
    Ok(mixed.unwrap_or_default().iter().copied().filter(is_here).collect())
}

/// How many layers' states a part of a bundle's reader gives: the mixed ones among its blocks, and the last.
///
/// # Errors
/// The bundle does not read with an LLM.
pub fn num_layers_of_part(bundle: &Bundle, blocks: &Range<usize>) -> Result<usize, ModelError> {
    Ok(mixed_layers_in(bundle, blocks)?.len() + 1)
}
