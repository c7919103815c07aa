//! The small model before its first step: tokenizer, shape and weights, new or from a checkpoint.
//!
//! For a new model, the config gives family and shape, and the tokenizer is made from the training pairs or
//! is the LLM's. A checkpoint, from a public small model or a bundle, brings all three. From a bundle, the
//! projector's fitting tensors are kept too.

use std::path::{Path, PathBuf};

use baton_bundle::{
    Bundle, LanguageChoice, MANIFEST_FILE, ModelConfig, SLM_CHANGES, TextTokenizer, WeightDtype,
};
use baton_job::Mode;
use baton_model::{Checkpoint, ModelError, TensorSource};
use tch::{Kind, Tensor};

use crate::{
    Initialization, SlmShape, SlmTokenizer, TrainConfig, TrainError,
    alignment::align,
    export::copy,
    own_tokens::OwnTokens,
    pairs::TextPair,
    slm_family::slm_config,
    slm_tokenizer::{BOS_TOKEN, EOS_TOKEN, SlmTokenizerTraining},
    weights::{Weights, belongs_to_projector, initial_weights},
};

/// A bundle's projector, by its name there.
const PROJECTOR_FILE: &str = "projector/model.safetensors";

/// The small model's tokenizer and shape.
pub(crate) struct SlmStart {
    /// The bundle that it comes from, if it keeps its own tokens.
    pub(crate) own_tokens: Option<OwnTokens>,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: TextTokenizer,
    tokenizer_path: PathBuf,
}

impl SlmStart {
    /// Makes or copies the tokenizer into the run's directory, unless it exists.
    pub(crate) fn open(config: &TrainConfig, run: &Path, texts: &[TextPair]) -> Result<Self, TrainError> {
        if let Some(own) = OwnTokens::open(config)? {
            return Ok(Self {
                config: ModelConfig { dtype: WeightDtype::Bf16, ..own.bundle.small_model()?.1.clone() },
                tokenizer: own.bundle.text_tokenizer(Mode::Slm)?,
                tokenizer_path: run.join("tokenizer.json"),
                own_tokens: Some(own),
            });
        }
        let tokenizer_path = run.join("tokenizer.json");
        let llm_tokenizer = config.llm.join("tokenizer.json");
        if !tokenizer_path.exists() {
            match (&config.start_from, &config.slm) {
                (Some(start), _) => copy(&slm_directory(start).join("tokenizer.json"), &tokenizer_path)?,
                (None, Some(SlmShape { tokenizer: SlmTokenizer::Llm { .. }, .. })) => {
                    copy(&llm_tokenizer, &tokenizer_path)?;
                }
                (None, shape) => {
                    let SlmShape { llm_tokens, vocab_size, .. } = *shape.as_ref().expect("validated");
                    let llm_tokenizer = llm_tokenizer.as_path();
                    let training =
                        SlmTokenizerTraining { pairs: texts, llm_tokenizer, llm_tokens, vocab_size };
                    training.write(&tokenizer_path)?;
                }
            }
        }
        let tokenizer = TextTokenizer::open(&tokenizer_path)?;
        let config = match (&config.start_from, &config.slm) {
            (Some(start), _) => checkpoint_config(config, start)?,
            (None, shape) => {
                let shape = shape.as_ref().expect("validated");
                let [bos, eos] = match &shape.tokenizer {
                    SlmTokenizer::Own => [BOS_TOKEN, EOS_TOKEN],
                    SlmTokenizer::Llm { bos_token, eos_token } => [bos_token.as_str(), eos_token],
                };
                let id = |token: &str| {
                    tokenizer.token_id(token).ok_or_else(|| {
                        TrainError::Tokenizer(format!("{} lacks {token}", tokenizer_path.display()))
                    })
                };
                slm_config(config, shape, [id(bos)?, id(eos)?])
            }
        };
        Ok(Self { config, tokenizer, tokenizer_path, own_tokens: None })
    }

    /// The forced first token of outputs. It precedes every response.
    pub(crate) fn first_token(&self) -> Result<Option<u32>, TrainError> {
        let of_language = match &self.own_tokens {
            Some(own) => own.bundle.first_token(&LanguageChoice::default(), &self.tokenizer)?,
            None => None,
        };
        Ok(of_language.or(self.config.output_rules.first_token_id))
    }

    /// The weights before the first step, and whether the projector's are random. `llm_embeddings`: `[llm
    /// vocab, d_llm]`, if there is an LLM.
    pub(crate) fn weights(
        &self,
        config: &TrainConfig,
        llm_embeddings: Option<&Tensor>,
    ) -> Result<(Weights, bool), TrainError> {
        let d_llm = llm_embeddings.map_or(0, |embeddings| embeddings.size()[1] as usize);
        let mut projector_is_random = true;
        let mut weights = initial_weights(config, &self.config, d_llm);
        if let Some(start) = &config.start_from {
            if start.join(MANIFEST_FILE).exists() {
                let bundle = Bundle::open(start)?;
                let starts = ["slm/model.safetensors", SLM_CHANGES, PROJECTOR_FILE];
                let mut made = starts.iter().filter(|name| bundle.manifest().files.contains_key(**name));
                made.try_for_each(|name| bundle.check_sha256(name))?;
            }
            let slm = Checkpoint::open(&slm_directory(start).join("model.safetensors"))?;
            for (name, shape) in self.config.tensor_shapes() {
                let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
                weights.insert(name.clone(), slm.tensor(&name, &shape)?.to_kind(Kind::Float));
            }
            let projector = start.join(PROJECTOR_FILE);
            if start.join(MANIFEST_FILE).exists() && projector.exists() {
                let projector = Checkpoint::open(&projector)?;
                for (name, weight) in weights.iter_mut().filter(|(name, _)| belongs_to_projector(name)) {
                    match projector.tensor(name, &weight.size()) {
                        Ok(trained) => {
                            *weight = trained.to_kind(Kind::Float);
                            projector_is_random &= !name.starts_with("projector.");
                        }
                        // The projector is of another LLM, or of another depth: start with a new one.
                        Err(ModelError::MissingTensor { .. } | ModelError::Shape { .. }) => {}
                        Err(damaged) => return Err(damaged.into()),
                    }
                }
            }
        } else if config.slm.as_ref().is_some_and(|slm| slm.initialization == Initialization::Aligned) {
            let embedding = self.config.embedding_name();
            let llm_tokenizer = config.llm.join("tokenizer.json");
            let llm_embeddings = llm_embeddings.expect("a shape is trained with an LLM");
            align((&mut weights, &embedding), llm_embeddings, &llm_tokenizer, &self.tokenizer_path)?;
        }
        Ok((weights, projector_is_random))
    }
}

/// Where the small model of a start is: a bundle has it in `slm/`.
fn slm_directory(start: &Path) -> PathBuf {
    if start.join(MANIFEST_FILE).exists() { start.join("slm") } else { start.to_owned() }
}

/// The config of a checkpoint, with positions for the longest pair.
fn checkpoint_config(config: &TrainConfig, start: &Path) -> Result<ModelConfig, TrainError> {
    let refused =
        |rule: String| TrainError::Config { field: "start_from", value: start.display().to_string(), rule };
    let mut slm = ModelConfig::read_checkpoint(&slm_directory(start))?;
    slm.dtype = WeightDtype::Bf16; // as it will be written
    if slm.bos_token_id.is_none() || slm.eos_token_ids.len() != 1 {
        return Err(refused(format!(
            "its config.json must name one begin token ({}) and one eos_token_id",
            slm.field_name("bos_token_id")
        )));
    }
    let longest = slm.longest_sequence(config.max_prompt_tokens, config.max_response_tokens + 1);
    match slm.max_positions() {
        Some(positions) if positions < longest => Err(refused(format!(
            "it has {positions} positions, but max_prompt_tokens and max_response_tokens allow {longest}"
        ))),
        Some(_) => Ok(slm),
        None => {
            slm.max_position_embeddings = slm.max_position_embeddings.max(longest);
            Ok(slm)
        }
    }
}
