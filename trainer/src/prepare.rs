//! From settings to a run that can take its next step: tokenizer, pairs, hidden states, weights, and the last
//! checkpoint.

use std::{fs, ops::ControlFlow, path::Path, time::Instant};

use baton_bundle::{
    Limits, LoraAdapter, ModelConfig, PromptEmbeddingSource, PromptReader, PromptTokenizer, adapter_files,
    are_layers_below,
};
use baton_model::{Checkpoint, Compute, LanguageModel, LlmWeights, ModelParts, TensorSource};
use tch::{Kind, Tensor};

use crate::{
    GeneralPairs, Initialization, PairFiles, Reads, SlmShape, SlmTokenizer, TrainConfig, TrainError, Trains,
    batches::Mix,
    checkpoint::{self, RunState},
    events::TrainEvent,
    learner::Learner,
    objective::{Objective, PairSet},
    optimizer::AdamW,
    own_tokens::OwnTokens,
    pairs::TextPairs,
    projector_start::settle,
    run::{Run, RunDirectories},
    slm_start::SlmStart,
    states::{EncodeJob, HiddenStates, write_atomically},
    token_pairs::TokenPairs,
    weights::{Weights, belongs_to_projector, matches},
};

/// States that a random projector is settled on, in tokens: many times the width of an LLM.
const SETTLING_NUM_TOKENS: usize = 20_000;

impl<'a> Run<'a> {
    /// Reads everything that a run needs; resumes from its last checkpoint if there is one.
    pub(crate) fn prepare(
        config: &'a TrainConfig,
        directories: &'a RunDirectories,
        report: &mut impl FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let directory = directories.run.as_path();
        let TextPairs { train: train_texts, general, validation: validation_texts, train_left_out } =
            TextPairs::read(config)?;

        let slm = SlmStart::open(config, directory, &train_texts)?;
        let (prompt_reader, limits) = match &slm.own_tokens {
            None => (PromptReader::LlmTokens(open_prompt_tokenizer(config)?), config.limits()),
            Some(own) => {
                let max_slm_prompt_tokens = Some(own.max_prompt_tokens(config));
                (own.prompt_reader(config)?, Limits { max_slm_prompt_tokens, ..config.limits() })
            }
        };
        let first_token = slm.first_token()?;
        let tokenize = |texts, files: &PairFiles| -> Result<(TokenPairs, Vec<usize>), TrainError> {
            let tokenizers = (&prompt_reader, &slm.tokenizer);
            let mut pairs = TokenPairs::of(texts, config.reader_context, tokenizers, limits)?;
            if let Some(first) = first_token {
                pairs.pairs.iter_mut().for_each(|pair| pair.response.insert(0, first));
            }
            let usable = pairs.usable(files, config)?;
            Ok((pairs, usable))
        };
        let (mut train_pairs, mut train_usable) = tokenize(&train_texts, &config.train)?;
        let (validation_pairs, validation_usable) = tokenize(&validation_texts, &config.dev)?;
        let mut mix = Mix::none(train_usable.len());
        if let Some(GeneralPairs { files, share }) = &config.general {
            let (pairs, usable) = tokenize(&general, files)?;
            mix = Mix::new(train_usable.len(), usable.len(), *share);
            let num_train = train_pairs.pairs.len();
            train_usable.extend(usable.into_iter().map(|place| num_train + place));
            train_pairs.extend(pairs);
        }

        let llm = config.has_llm().then(|| ReadLlm::open(config)).transpose()?;
        let (mut weights, projector_is_random) =
            slm.weights(config, llm.as_ref().map(|llm| &llm.embeddings))?;
        check_frozen(config, &slm.config, &weights)?;
        let _ = report(TrainEvent::Prepared {
            train_pairs: train_usable.len(),
            train_pairs_left_out: train_texts.len() + general.len() - train_usable.len() + train_left_out,
            validation_pairs: validation_usable.len(),
            parameters: weights.values().map(Tensor::numel).sum(),
        });

        let (validation_states, train_states) = match (config.reads, &llm) {
            (Reads::Slm, _) | (_, None) => (None, None),
            (Reads::Hybrid, Some(ReadLlm { config: llm_config, .. })) => {
                let llm_weights_path = config.llm.join("model.safetensors");
                let llm_sha256 = reader_sha256(config)?;
                let compute = Compute::fastest_cpu();
                let mut states = |set: &'static str, pairs: &TokenPairs| {
                    let job = EncodeJob {
                        states: &directories.states,
                        prompts: pairs.llm_prompts(),
                        llm_sha256: &llm_sha256,
                        llm_layer: config.llm_layer,
                        mixed_layers: &config.mixed_layers,
                        d_llm: llm_config.hidden_size,
                        compute,
                    };
                    let load_llm = || {
                        let parts = ModelParts { blocks: config.llm_layer, lm_head: false };
                        let checkpoint = Checkpoint::open(&llm_weights_path)?;
                        let adapter = open_adapter(config, llm_config)?;
                        let weights = LlmWeights::merged(checkpoint, adapter);
                        Ok(LanguageModel::load(llm_config, &weights, parts, compute)?)
                    };
                    let started = Instant::now();
                    HiddenStates::open_or_compute(&job, load_llm, |p| {
                        report(TrainEvent::Encoding {
                            set,
                            tokens_done: p.tokens_done,
                            tokens_total: p.tokens_total,
                            tokens_per_second: p.tokens_encoded as f64 / started.elapsed().as_secs_f64(),
                        })
                    })
                };
                (Some(states("dev", &validation_pairs)?), Some(states("train", &train_pairs)?))
            }
        };
        let d_llm = llm.as_ref().map_or(0, |llm| llm.config.hidden_size);
        let projector = config.projector(d_llm, slm.config.hidden_size);
        if let Some(states) = train_states.as_ref().filter(|_| projector_is_random) {
            settle(&mut weights, &projector, config.fusion, &states.sample(SETTLING_NUM_TOKENS))?;
        }
        let embeds_prompt = projector.prompt_embedding == PromptEmbeddingSource::Llm;
        let objective = Objective {
            config,
            slm_config: slm.config,
            projector,
            llm_embeddings: llm.filter(|_| embeds_prompt).map(|llm| llm.embeddings.to_kind(Kind::BFloat16)),
            own_tokens: slm.own_tokens,
        };
        let train = PairSet { pairs: train_pairs.pairs, mix, usable: train_usable, states: train_states };
        let validation = PairSet {
            pairs: validation_pairs.pairs,
            mix: Mix::none(validation_usable.len()),
            usable: validation_usable,
            states: validation_states,
        };
        Run::start((config, directory), Box::new(objective), [train, validation], weights, report)
    }

    /// A run over prepared sets, for training and validation; resumes from its last checkpoint if there is
    /// one.
    pub(crate) fn start(
        (config, directory): (&'a TrainConfig, &'a Path),
        learner: Box<dyn Learner + 'a>,
        [train, validation]: [PairSet; 2],
        weights: Weights,
        report: &mut impl FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let h = &config.hyperparameters;
        let optimizer = AdamW::new(&weights, h.weight_decay, h.clip_norm);
        let state = RunState { step: 0, best: None, train_seconds: 0.0 };
        let mut run = Self { config, directory, learner, train, validation, weights, optimizer, state };
        if let Some(state) = checkpoint::load_newest(directory, &mut run.weights, &mut run.optimizer)? {
            let _ = report(TrainEvent::Resumed { step: state.step });
            run.state = state;
        }
        for (name, weight) in &mut run.weights {
            *weight = weight.set_requires_grad(!is_frozen(config, name));
        }
        Ok(run)
    }
}

/// The LLM of a run, with its parts in memory.
struct ReadLlm {
    config: ModelConfig,
    embeddings: Tensor, // [vocab, d_llm]
}

impl ReadLlm {
    fn open(config: &TrainConfig) -> Result<Self, TrainError> {
        let llm = ModelConfig::read(&config.llm.join("config.json"))?;
        let weights = Checkpoint::open(&config.llm.join("model.safetensors"))?;
        let shape = [llm.vocab_size as i64, llm.hidden_size as i64];
        Ok(Self { embeddings: weights.tensor(&llm.embedding_name(), &shape)?, config: llm })
    }
}

/// The LLM's tokenizer with the config's template.
pub(crate) fn open_prompt_tokenizer(config: &TrainConfig) -> Result<PromptTokenizer, TrainError> {
    Ok(PromptTokenizer::open(&config.llm.join("tokenizer.json"), &config.template)?)
}

/// Whether a tensor does not learn. The projector's always do.
fn is_frozen(config: &TrainConfig, name: &str) -> bool {
    !belongs_to_projector(name) && config.frozen.iter().any(|pattern| matches(pattern, name))
}

/// A pattern that names no tensor is a mistake, and some tensor must learn.
fn check_frozen(config: &TrainConfig, slm: &ModelConfig, weights: &Weights) -> Result<(), TrainError> {
    let refused = |value: String, rule: String| Err(TrainError::Config { field: "frozen", value, rule });
    let names: Vec<String> = slm.tensor_shapes().into_iter().map(|(name, _)| name).collect();
    let names_nothing = |pattern: &&String| !names.iter().any(|name| matches(pattern, name));
    if let Some(pattern) = config.frozen.iter().find(names_nothing) {
        let rule = format!("names no tensor of the small model; the first of them is {}", names[0]);
        return refused(pattern.clone(), rule);
    }
    if weights.keys().all(|name| is_frozen(config, name)) {
        let rule = "freezes every tensor, so nothing would learn: leave some out, or read an LLM, whose \
                    projector learns";
        return refused(config.frozen.join(", "), rule.to_owned());
    }
    Ok(())
}

/// The adapter that the LLM reads with.
fn open_adapter(config: &TrainConfig, llm: &ModelConfig) -> Result<Option<LoraAdapter>, TrainError> {
    Ok(config.llm_adapter.as_ref().map(|adapter| LoraAdapter::open(adapter, llm)).transpose()?)
}

/// Identifies the weights that the LLM reads with.
fn reader_sha256(config: &TrainConfig) -> Result<String, TrainError> {
    let mut files = vec![config.llm.join("model.safetensors")];
    files.extend(config.llm_adapter.iter().flat_map(|adapter| adapter_files(adapter)));
    let hashes = files.iter().map(|file| baton_bundle::sha256_of_file(file));
    Ok(hashes.collect::<Result<Vec<_>, _>>()?.join("+"))
}

/// Checks that everything that a run reads exists, before anything is written.
pub(crate) fn check_inputs(config: &TrainConfig) -> Result<(), TrainError> {
    if config.has_llm() {
        let llm = ModelConfig::read(&config.llm.join("config.json"))?;
        match config.trains {
            Trains::Slm => check_slm(config, &llm)?,
            Trains::Llm => config.llm_training().check_llm(config, &llm)?,
        }
        Checkpoint::open(&config.llm.join("model.safetensors"))?;
        open_prompt_tokenizer(config)?;
    }
    OwnTokens::open(config)?;
    let general = config.general.as_ref().map(|general| &general.files);
    for files in [&config.train, &config.dev].into_iter().chain(general) {
        files.list()?;
    }
    Ok(())
}

/// Checks the LLM's layers and fields that a small model depends on.
fn check_slm(config: &TrainConfig, llm: &ModelConfig) -> Result<(), TrainError> {
    if config.llm_layer == 0 || config.llm_layer > llm.num_hidden_layers {
        return Err(TrainError::Config {
            field: "llm_layer",
            value: config.llm_layer.to_string(),
            rule: format!("the LLM has layers 1 to {}", llm.num_hidden_layers),
        });
    }
    if llm.encoder_decoder().is_some() && config.llm_layer != llm.num_hidden_layers {
        return Err(TrainError::Config {
            field: "llm_layer",
            value: config.llm_layer.to_string(),
            rule: format!("an encoder is read after its last layer: must be {}", llm.num_hidden_layers),
        });
    }
    if !are_layers_below(&config.mixed_layers, config.llm_layer)
        || (llm.encoder_decoder().is_some() && !config.mixed_layers.is_empty())
    {
        return Err(TrainError::Config {
            field: "mixed_layers",
            value: format!("{:?}", config.mixed_layers),
            rule: "must rise from 1, below llm_layer; must be empty for an encoder".to_owned(),
        });
    }
    if let Some(slm) = &config.slm {
        let SlmShape { d_model, vocab_size, .. } = *slm;
        let refused =
            |field, value: usize, rule| Err(TrainError::Config { field, value: value.to_string(), rule });
        if slm.initialization == Initialization::Aligned && d_model > llm.hidden_size {
            let rule = format!("with aligned initialization at most the LLM's width, {}", llm.hidden_size);
            return refused("slm.d_model", d_model, rule);
        }
        if slm.tokenizer != SlmTokenizer::Own && vocab_size != llm.vocab_size {
            let rule = format!("with the LLM's tokenizer as many as the LLM has, {}", llm.vocab_size);
            return refused("slm.vocab_size", vocab_size, rule);
        }
    }
    open_adapter(config, llm)?;
    Ok(())
}

/// Makes the directory this run's, or finds that it is.
pub(crate) fn claim_directory(config: &TrainConfig, directory: &Path) -> Result<(), TrainError> {
    let path = directory.join("train.json");
    let ours = serde_json::to_value(config).expect("a config is plain data");
    match fs::read(&path) {
        Ok(bytes) => {
            let theirs: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            match first_difference("", &theirs, &ours) {
                None => Ok(()),
                Some(difference) => Err(TrainError::OtherRun { path: directory.to_owned(), difference }),
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(directory).map_err(TrainError::io("read", directory))?;
            if entries.next().is_some() {
                return Err(TrainError::ForeignDirectory { path: directory.to_owned() });
            }
            write_atomically(&path, &serde_json::to_vec_pretty(&ours).expect("a config is plain data"))
        }
        Err(e) => Err(TrainError::io("read", &path)(e)),
    }
}

/// The first leaf at which two JSON values differ, as "field was A, is now B".
fn first_difference(at: &str, theirs: &serde_json::Value, ours: &serde_json::Value) -> Option<String> {
    match (theirs, ours) {
        (serde_json::Value::Object(a), serde_json::Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter().find_map(|key| {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let null = serde_json::Value::Null;
                first_difference(&path, a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null))
            })
        }
        _ if theirs == ours => None,
        _ => Some(format!("{at} was {theirs}, is now {ours}")),
    }
}
