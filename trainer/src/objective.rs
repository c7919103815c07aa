//! The training objective: from some pairs to the mean loss of their response tokens.
//!
//! The models of `baton-model` are built anew at every step from the f32 master weights, cast to bf16 if the
//! CPU multiplies that faster. Gradients therefore flow through the very code that inference runs.

use std::ops::Range;

use baton_bundle::{ModelConfig, ProjectorPart, PromptAttention};
use baton_model::{
    AlignedRows, Compute, LanguageModel, ModelParts, PackedLayout, Projector, PromptEmbedding, ResponsePass,
    fuse, response_cross_entropy,
};
use tch::{Device, Tensor};

use crate::{
    Reads, TrainConfig, TrainError,
    batches::Mix,
    export,
    learner::{Finished, Learner},
    own_tokens::OwnTokens,
    states::HiddenStates,
    token_pairs::TokenPair,
    weights::Weights,
};

/// The arithmetic of a step.
pub(crate) fn compute() -> Compute {
    Compute::fastest_float_cpu().differentiable()
}

/// Tokenized pairs with the hidden states of their prompts.
pub(crate) struct PairSet {
    /// All pairs whose prompt is short enough.
    pub(crate) pairs: Vec<TokenPair>,
    /// The usable ones whose response is also short enough.
    pub(crate) usable: Vec<usize>,
    /// None where the LLM is not read.
    pub(crate) states: Option<HiddenStates>,
    /// Which of the usable pairs are mixed in.
    pub(crate) mix: Mix,
}

impl PairSet {
    /// Rows of each usable pair in a packed batch.
    pub(crate) fn row_counts(&self) -> Vec<usize> {
        self.usable.iter().map(|&pair| self.pairs[pair].num_rows()).collect()
    }

    /// The states that a pair takes: the place of the LLM's reading, and the run of its tokens.
    fn taken(&self, pair: usize) -> (usize, Range<usize>) {
        match &self.pairs[pair].taken {
            None => (pair, 0..self.pairs[pair].prompt.len()),
            Some(taken) => (taken.reading, taken.tokens.clone()),
        }
    }

    /// The states that some pairs take, one after the other, if the LLM reads: as in
    /// [`HiddenStates::packed`].
    fn packed_states(&self, batch: &[usize]) -> Option<Tensor> {
        let taken: Vec<(usize, Range<usize>)> = batch.iter().map(|&pair| self.taken(pair)).collect();
        self.states.as_ref().map(|states| states.packed(&taken))
    }

    /// From places in `usable` to places in `pairs`.
    pub(crate) fn pairs_of(&self, batch: &[usize]) -> Vec<usize> {
        batch.iter().map(|&place| self.usable[place]).collect()
    }
}

/// How strongly training is regularized; both zero in validation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Regularization {
    pub(crate) label_smoothing: f64,
    pub(crate) dropout: f64,
}

impl Regularization {
    pub(crate) const NONE: Self = Self { label_smoothing: 0.0, dropout: 0.0 };
}

/// The state that stays the same from step to step.
pub(crate) struct Objective<'a> {
    pub(crate) config: &'a TrainConfig,
    pub(crate) slm_config: ModelConfig,
    pub(crate) projector: ProjectorPart,
    /// `[llm vocab, d_llm]` bf16, where the prompt's own embedding takes part.
    pub(crate) llm_embeddings: Option<Tensor>,
    /// The start of a small model that keeps its own tokens.
    pub(crate) own_tokens: Option<OwnTokens>,
}

impl Learner for Objective<'_> {
    fn loss(
        &self,
        weights: &Weights,
        set: &PairSet,
        batch: &[usize],
        regularization: Regularization,
    ) -> Result<Tensor, TrainError> {
        let slm = LanguageModel::load(
            &self.slm_config,
            weights,
            ModelParts { blocks: self.slm_config.num_hidden_layers, lm_head: true },
            compute(),
        )?;
        let bos =
            i64::from(self.slm_config.bos_token_id.expect("the small model's config names a BOS token"));
        let eos = i64::from(self.slm_config.eos_token_ids[0]);
        let packed = PackedTokens::new(set, batch, bos, eos);

        let (prompt_states, prompt_attention) = match &self.own_tokens {
            None => (self.prompt_states(weights, set, batch, &packed)?, self.config.prompt_attention),
            Some(own) => {
                (self.own_states(&slm, (weights, set), batch, &packed)?, own.part().prompt_attention)
            }
        };
        Ok(packed.response_loss(&slm, prompt_states, prompt_attention, regularization))
    }

    fn write_bundle(&self, finished: &Finished<'_>) -> Result<(), TrainError> {
        export::write_bundle(self.config, (&self.slm_config, self.own_tokens.as_ref()), finished)
    }
}

impl Objective<'_> {
    /// The small model's input for the prompts, `[prompt tokens, d_slm]` f32.
    fn prompt_states(
        &self,
        weights: &Weights,
        set: &PairSet,
        batch: &[usize],
        packed: &PackedTokens,
    ) -> Result<Tensor, TrainError> {
        let (d_llm, d_slm) = (self.projector.d_llm, self.projector.d_slm);
        let prompt_embeddings = || -> Result<Tensor, TrainError> {
            let table =
                self.llm_embeddings.as_ref().expect("loaded whenever the prompt embedding takes part");
            let embedding = PromptEmbedding::load(weights, d_llm, d_slm, compute())?;
            Ok(embedding.forward(&table.index_select(0, &Tensor::from_slice(&packed.prompt_tokens))))
        };
        match (self.config.reads, set.packed_states(batch)) {
            (Reads::Hybrid, Some(states)) => {
                let projector = Projector::load(weights, &self.projector, compute())?;
                let projected = projector.forward(&states, &packed.layout.prompts_only());
                let embedded = self.llm_embeddings.as_ref().map(|_| prompt_embeddings()).transpose()?;
                Ok(fuse(self.config.fusion, projected, || {
                    embedded.expect("fusion `add` has prompt embeddings")
                }))
            }
            _ => prompt_embeddings(),
        }
    }
}

impl Objective<'_> {
    /// The same where the small model reads its own tokens.
    fn own_states(
        &self,
        slm: &LanguageModel,
        (weights, set): (&Weights, &PairSet),
        batch: &[usize],
        packed: &PackedTokens,
    ) -> Result<Tensor, TrainError> {
        let embeddings = slm.embed(&Tensor::from_slice(&packed.prompt_tokens));
        let Some(states) = set.packed_states(batch) else { return Ok(embeddings) };
        let projector = Projector::load(weights, &self.projector, compute())?;
        let mut first_state = 0;
        let alignments = batch.iter().map(|&pair| {
            let TokenPair { prompt, taken, .. } = &set.pairs[pair];
            let taken = taken.as_ref().expect("the LLM reads for every pair");
            let first = first_state;
            first_state += taken.tokens.len();
            (first, prompt.len(), &taken.alignment)
        });
        let aligned = AlignedRows::new(alignments, Device::Cpu);
        Ok(aligned.add_projected(embeddings, &projector, &states))
    }
}

/// Token ids of one packed batch: each sequence is prompt, BOS, response.
pub(crate) struct PackedTokens {
    layout: PackedLayout,
    pub(crate) prompt_tokens: Vec<i64>,
    response_inputs: Vec<i64>,
    response_targets: Vec<i64>,
}

impl PackedTokens {
    pub(crate) fn new(set: &PairSet, batch: &[usize], bos: i64, eos: i64) -> Self {
        let pairs: Vec<&TokenPair> = batch.iter().map(|&i| &set.pairs[i]).collect();
        let ids = |tokens: &[u32]| tokens.iter().map(|&t| i64::from(t)).collect::<Vec<_>>();
        let prompt_tokens: Vec<i64> = pairs.iter().flat_map(|p| ids(&p.prompt)).collect();
        let (mut response_inputs, mut response_targets) = (Vec::new(), Vec::new());
        for pair in &pairs {
            let response = ids(&pair.response);
            response_inputs.push(bos);
            response_inputs.extend(&response);
            response_targets.extend(&response);
            response_targets.push(eos);
        }
        let layout =
            PackedLayout::prompts_and_responses(pairs.iter().map(|p| (p.prompt.len(), p.response.len() + 1)));
        Self { layout, prompt_tokens, response_inputs, response_targets }
    }

    /// Mean loss of the response tokens that `writer` writes. `prompt_states`: its input, `[prompt tokens,
    /// d]` f32.
    pub(crate) fn response_loss(
        &self,
        writer: &LanguageModel,
        prompt_states: Tensor,
        prompt_attention: PromptAttention,
        Regularization { label_smoothing, dropout }: Regularization,
    ) -> Tensor {
        let pass = ResponsePass { layout: &self.layout, prompt_attention, dropout };
        let logits = writer.response_logits(prompt_states, &Tensor::from_slice(&self.response_inputs), pass);
        response_cross_entropy(&logits, &Tensor::from_slice(&self.response_targets), label_smoothing)
    }
}
