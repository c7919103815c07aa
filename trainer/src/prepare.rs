//! From settings to a run that can take its next step: tokenizer, pairs, hidden states, weights, and the last checkpoint.

use std::{fs, ops::ControlFlow, path::Path, time::Instant};

use baton_bundle::{ModelConfig, PromptTokenizer, TextTokenizer};
use baton_model::{Checkpoint, Compute, LanguageModel, ModelParts, TensorSource};
use tch::{Kind, Tensor};

use crate::{
    Initialization, Reads, TrainConfig, TrainError,
    alignment::align,
    checkpoint::{self, RunState},
    events::TrainEvent,
    objective::{Objective, PairSet},
    optimizer::AdamW,
    pairs::{TokenPair, read_pairs, tokenize_pairs},
    run::{Run, RunDirectories},
    slm_family::slm_config,
    slm_tokenizer::{BOS_TOKEN, EOS_TOKEN, SlmTokenizerTraining},
    states::{EncodeJob, HiddenStates, write_atomically},
    weights::{initial_weights, reads_prompt_embedding},
};

impl<'a> Run<'a> {
    /// Reads everything a run needs; goes on from its last checkpoint if there is one.
    pub(crate) fn prepare(
        config: &'a TrainConfig,
        directories: &'a RunDirectories,
        report: &mut impl FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let directory = directories.run.as_path();
        let llm_config = ModelConfig::read(&config.llm.join("config.json"))?;
        let train_texts = read_pairs(&config.train, &config.source_field, &config.target_field)?;
        let mut validation_texts = read_pairs(&config.dev, &config.source_field, &config.target_field)?;
        validation_texts.truncate(config.hyperparameters.validation_pairs);

        let tokenizer_path = directory.join("tokenizer.json");
        if !tokenizer_path.exists() {
            let training = SlmTokenizerTraining {
                pairs: &train_texts,
                llm_tokenizer: &config.llm.join("tokenizer.json"),
                llm_tokens: config.slm.llm_tokens,
                vocab_size: config.slm.vocab_size,
            };
            training.write(&tokenizer_path)?;
        }
        let slm_tokenizer = TextTokenizer::open(&tokenizer_path)?;
        let prompt_tokenizer = PromptTokenizer::open(&config.llm.join("tokenizer.json"), &config.template)?;
        let special = |token: &str| {
            slm_tokenizer
                .token_id(token)
                .ok_or_else(|| TrainError::Tokenizer(format!("{} lacks {token}", tokenizer_path.display())))
        };
        let slm_config = slm_config(config, special(BOS_TOKEN)?, special(EOS_TOKEN)?);

        let tokenize = |texts, path: &Path| -> Result<(Vec<TokenPair>, Vec<usize>), TrainError> {
            let (max_prompt_tokens, max_response_tokens) =
                (config.max_prompt_tokens, config.max_response_tokens);
            let pairs = tokenize_pairs(texts, &prompt_tokenizer, &slm_tokenizer, max_prompt_tokens)?;
            let usable: Vec<usize> =
                (0..pairs.len()).filter(|&i| pairs[i].response.len() <= max_response_tokens).collect();
            if usable.is_empty() {
                return Err(TrainError::NoPairs {
                    path: path.to_owned(),
                    max_prompt_tokens,
                    max_response_tokens,
                });
            }
            Ok((pairs, usable))
        };
        let (train_pairs, train_usable) = tokenize(&train_texts, &config.train)?;
        let (validation_pairs, validation_usable) = tokenize(&validation_texts, &config.dev)?;

        let d_llm = llm_config.hidden_size;
        let llm_weights_path = config.llm.join("model.safetensors");
        let llm_embeddings = Checkpoint::open(&llm_weights_path)?
            .tensor(&llm_config.embedding_name(), &[llm_config.vocab_size as i64, d_llm as i64])?;
        let mut weights = initial_weights(config, &slm_config, d_llm);
        if config.slm.initialization == Initialization::Aligned {
            let embedding = slm_config.embedding_name();
            align(
                (&mut weights, &embedding),
                &llm_embeddings,
                &config.llm.join("tokenizer.json"),
                &tokenizer_path,
            )?;
        }
        let _ = report(TrainEvent::Prepared {
            train_pairs: train_usable.len(),
            train_pairs_too_long: train_texts.len() - train_usable.len(),
            validation_pairs: validation_usable.len(),
            parameters: weights.values().map(Tensor::numel).sum(),
        });

        let (validation_states, train_states) = match config.reads {
            Reads::Slm => (None, None),
            Reads::Hybrid => {
                let llm_sha256 = baton_bundle::sha256_of_file(&llm_weights_path)?;
                let mut states = |set: &'static str, pairs: &[TokenPair]| {
                    let job = EncodeJob {
                        directory: &directories.states.join(set),
                        prompts: pairs.iter().map(|p| p.prompt.as_slice()).collect(),
                        llm_sha256: &llm_sha256,
                        llm_layer: config.llm_layer,
                        d_llm,
                    };
                    let load_llm = || {
                        let parts = ModelParts { blocks: config.llm_layer, lm_head: false };
                        let checkpoint = Checkpoint::open(&llm_weights_path)?;
                        Ok(LanguageModel::load(&llm_config, &checkpoint, parts, Compute::CPU_BF16)?)
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
        let h = &config.hyperparameters;
        let optimizer = AdamW::new(&weights, h.weight_decay, h.clip_norm);
        let mut run = Self {
            config,
            directory,
            objective: Objective {
                config,
                slm_config,
                d_llm,
                llm_embeddings: reads_prompt_embedding(config)
                    .then(|| llm_embeddings.to_kind(Kind::BFloat16)),
            },
            train: PairSet { pairs: train_pairs, usable: train_usable, states: train_states },
            validation: PairSet {
                pairs: validation_pairs,
                usable: validation_usable,
                states: validation_states,
            },
            weights,
            optimizer,
            state: RunState { step: 0, best: None, train_seconds: 0.0 },
        };
        if let Some(state) = checkpoint::load_newest(directory, &mut run.weights, &mut run.optimizer)? {
            let _ = report(TrainEvent::Resumed { step: state.step });
            run.state = state;
        }
        for weight in run.weights.values_mut() {
            *weight = weight.set_requires_grad(true);
        }
        Ok(run)
    }
}

/// Finds out whether everything that a run reads is there, before anything is written.
pub(crate) fn check_inputs(config: &TrainConfig) -> Result<(), TrainError> {
    let llm = ModelConfig::read(&config.llm.join("config.json"))?;
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
            rule: format!("of an encoder the last states are read: must be {}", llm.num_hidden_layers),
        });
    }
    if config.slm.initialization == Initialization::Aligned && config.slm.d_model > llm.hidden_size {
        return Err(TrainError::Config {
            field: "slm.d_model",
            value: config.slm.d_model.to_string(),
            rule: format!("with aligned initialization at most the LLM's width, {}", llm.hidden_size),
        });
    }
    Checkpoint::open(&config.llm.join("model.safetensors"))?;
    PromptTokenizer::open(&config.llm.join("tokenizer.json"), &config.template)?;
    for path in [&config.train, &config.dev] {
        fs::File::open(path).map_err(TrainError::io("read", path))?;
    }
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
