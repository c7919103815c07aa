//! Trains the LLM itself: all of it, or an adapter beside its frozen matrices (LoRA; Hu et al., arXiv
//! 2106.09685).
//!
//! A sequence is the decoder's input in mode `llm`: the prompt in its template, the prompt's end, the
//! response. The loss is that of the response and its end token. A whole LLM is built anew at every step from
//! its f32 master weights, like small models. A frozen one is built once, around the adapter's matrices,
//! which the optimizer changes in place.

use std::{ops::ControlFlow, path::Path};

use baton_bundle::{
    LinearLayer, LoraShape, ModelConfig, PromptReader, PromptTokenizer, TextTokenizer, lora_tensor_names,
};
use baton_model::{Checkpoint, LanguageModel, LowRank, ModelError, ModelParts, TensorSource};
use tch::{Device, Kind, Tensor};

use crate::{
    TrainConfig, TrainError, TrainEvent,
    batches::Mix,
    learner::{Finished, Learner},
    llm_export,
    objective::{PackedTokens, PairSet, Regularization, compute},
    pairs::{TextPair, TextPairs},
    run::Run,
    token_pairs::TokenPairs,
    weights::Weights,
};

/// The state that stays the same from step to step.
struct LlmLearner<'a> {
    config: &'a TrainConfig,
    llm_config: ModelConfig,
    /// The token that a decoder is fed first, the last of the prompt's end, and the one that ends a response.
    begin_and_end: [i64; 2],
    /// None where the whole LLM learns.
    adapted: Option<AdaptedLlm>,
}

/// A frozen LLM around the matrices of an adapter.
struct AdaptedLlm {
    model: LanguageModel,
    layers: Vec<LinearLayer>,
    shape: LoraShape,
}

impl<'a> Run<'a> {
    /// Reads everything that fine-tuning the LLM needs; resumes from the last checkpoint if there is one.
    pub(crate) fn prepare_llm(
        config: &'a TrainConfig,
        directory: &'a Path,
        report: &mut impl FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let llm_config = ModelConfig::read_checkpoint(&config.llm)?;
        let mut prompt_end = config.llm_training().writer().prompt_end_ids(&config.llm, &llm_config)?;
        let begin = prompt_end.pop().expect("a prompt's end is never empty");
        let tokenizer_path = config.llm.join("tokenizer.json");
        let prompt_reader =
            PromptReader::LlmTokens(PromptTokenizer::open(&tokenizer_path, &config.template)?);
        let limits = config.limits();
        let response_tokenizer = TextTokenizer::open(&tokenizer_path)?;
        let end = config.llm_training().writer().eos_id(&response_tokenizer)?;
        let tokenize = |texts: &[TextPair], files| -> Result<PairSet, TrainError> {
            let tokenizers = (&prompt_reader, &response_tokenizer);
            let mut pairs = TokenPairs::of(texts, config.reader_context, tokenizers, limits)?;
            let usable = pairs.usable(files, config)?;
            pairs.pairs.iter_mut().for_each(|pair| pair.prompt.extend(&prompt_end));
            Ok(PairSet { pairs: pairs.pairs, mix: Mix::none(usable.len()), usable, states: None })
        };
        let texts = TextPairs::read(config)?;
        let (train, validation) =
            (tokenize(&texts.train, &config.train)?, tokenize(&texts.validation, &config.dev)?);

        let checkpoint = Checkpoint::open(&config.llm.join("model.safetensors"))?;
        let (weights, adapted) = match &config.llm_training().lora {
            None => (master_weights(&llm_config, &checkpoint)?, None),
            Some(lora) => {
                let (layers, shape) = (lora.layers(&llm_config)?, lora.shape());
                let weights = first_adapter(&layers, shape, config.hyperparameters.seed);
                let model = load_frozen(&llm_config, &checkpoint, (&weights, &layers, shape))?;
                (weights, Some(AdaptedLlm { model, layers, shape }))
            }
        };
        let _ = report(TrainEvent::Prepared {
            train_pairs: train.usable.len(),
            train_pairs_left_out: texts.train.len() - train.usable.len() + texts.train_left_out,
            validation_pairs: validation.usable.len(),
            parameters: weights.values().map(Tensor::numel).sum(),
        });
        let learner = LlmLearner { config, llm_config, begin_and_end: [begin, end].map(i64::from), adapted };
        Run::start((config, directory), Box::new(learner), [train, validation], weights, report)
    }
}

impl Learner for LlmLearner<'_> {
    fn loss(
        &self,
        weights: &Weights,
        set: &PairSet,
        batch: &[usize],
        regularization: Regularization,
    ) -> Result<Tensor, TrainError> {
        let built_anew;
        let llm = match &self.adapted {
            Some(adapted) => &adapted.model,
            None => {
                built_anew =
                    LanguageModel::load(&self.llm_config, weights, whole(&self.llm_config), compute())?;
                &built_anew
            }
        };
        let [begin, end] = self.begin_and_end;
        let packed = PackedTokens::new(set, batch, begin, end);
        let prompts = llm.embed(&Tensor::from_slice(&packed.prompt_tokens));
        Ok(packed.response_loss(llm, prompts, self.llm_config.prompt_attention(), regularization))
    }

    fn write_bundle(&self, finished: &Finished<'_>) -> Result<(), TrainError> {
        let adapter = self.adapted.as_ref().map(|adapted| (adapted.shape, adapted.layers.as_slice()));
        llm_export::write_bundle(self.config, &self.llm_config, adapter, finished)
    }
}

fn whole(config: &ModelConfig) -> ModelParts {
    ModelParts { blocks: config.num_hidden_layers, lm_head: true }
}

/// All weights of the LLM in f32.
fn master_weights(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<Weights, TrainError> {
    let weight = |(name, shape): (String, Vec<usize>)| {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        Ok((name.clone(), checkpoint.tensor(&name, &shape)?.to_kind(Kind::Float)))
    };
    config.tensor_shapes().into_iter().map(weight).collect()
}

/// An adapter that changes nothing yet: A is normal with deviation in^-1/2, B is zero.
fn first_adapter(layers: &[LinearLayer], shape: LoraShape, seed: u64) -> Weights {
    tch::manual_seed(seed as i64);
    let options = (Kind::Float, Device::Cpu);
    let rank = shape.rank as i64;
    let mut weights = Weights::new();
    for layer in layers {
        let (inputs, outputs) = (layer.inputs as i64, layer.outputs as i64);
        let [a, b] = lora_tensor_names(layer);
        weights.insert(a, Tensor::randn([rank, inputs], options) * (layer.inputs as f64).powf(-0.5));
        weights.insert(b, Tensor::zeros([outputs, rank], options));
    }
    weights
}

/// The frozen LLM, which holds the very tensors in `weights`.
fn load_frozen(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    (weights, layers, shape): (&Weights, &[LinearLayer], LoraShape),
) -> Result<LanguageModel, ModelError> {
    LanguageModel::load(config, &Adapted { checkpoint, weights, layers, shape }, whole(config), compute())
}

/// A checkpoint with an adapter that learns.
struct Adapted<'a> {
    checkpoint: &'a Checkpoint,
    weights: &'a Weights,
    layers: &'a [LinearLayer],
    shape: LoraShape,
}

impl TensorSource for Adapted<'_> {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        self.checkpoint.tensor(name, shape)
    }

    fn low_rank(&self, name: &str) -> Option<LowRank> {
        let module = name.strip_suffix(".weight")?;
        let layer = self.layers.iter().find(|layer| layer.module == module)?;
        let [a, b] = lora_tensor_names(layer).map(|name| self.weights[&name].shallow_clone());
        Some(LowRank { a, b, scale: self.shape.scale() })
    }
}
