//! The settings by which the LLM itself is fine-tuned, and their checks.

use baton_bundle::{LinearLayer, LlmWriter, LoraShape, ModelConfig, TextTokenizer};
use serde::{Deserialize, Serialize};

use crate::{Hyperparameters, TrainConfig, TrainError, Trains, config::check};

/// Section `[llm_training]` of a config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmTraining {
    /// The text after a prompt's last token, such as `\n<|im_start|>assistant\n`; the response begins after
    /// it.
    pub prompt_end: String,
    /// The token that ends a response, in the LLM's tokenizer.
    pub eos_token: String,
    /// Longer responses are left out of training, and outputs end there. Tokens of the LLM's tokenizer.
    pub max_new_tokens: usize,
    /// Whether every weight of the LLM learns. Takes 16 bytes of memory for each, and a copy in the format of
    /// the products.
    #[serde(default, skip_serializing_if = "is_false")]
    pub whole: bool,
    /// Instead, the layers that get an adapter to train.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraTargets>,
    /// How it is trained; left out, as the config's own section says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperparameters: Option<Hyperparameters>,
}

/// A LoRA adapter (Hu et al., arXiv 2106.09685) before it learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraTargets {
    /// Rank of the addition to a matrix.
    pub rank: usize,
    /// It is scaled by `alpha / rank`.
    pub alpha: f64,
    /// The linear layers, by name in all blocks (`q_proj`) or by path (`layers.3.self_attn.q_proj`).
    pub targets: Vec<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl LlmTraining {
    /// Checks that the LLM has the tokens and layers that the settings name, and room for the longest pair.
    pub(crate) fn check_llm(&self, config: &TrainConfig, llm: &ModelConfig) -> Result<(), TrainError> {
        if let Some(lora) = &self.lora {
            lora.layers(llm)?;
        }
        let prompt_end = self.writer().prompt_end_ids(&config.llm, llm)?;
        self.writer().eos_id(&TextTokenizer::open(&config.llm.join("tokenizer.json"))?)?;
        let longest =
            llm.longest_sequence(config.max_prompt_tokens + prompt_end.len(), config.max_response_tokens);
        let positions = llm.max_positions().unwrap_or(usize::MAX);
        check(
            longest <= positions,
            "llm_training.max_new_tokens",
            self.max_new_tokens.to_string(),
            &format!("with prompt_end and max_prompt_tokens at most {positions}, the LLM's positions"),
        )
    }

    /// How the fine-tuned LLM writes.
    pub(crate) fn writer(&self) -> LlmWriter {
        LlmWriter {
            prompt_end: self.prompt_end.clone(),
            eos_token: self.eos_token.clone(),
            max_new_tokens: self.max_new_tokens,
        }
    }
}

impl LoraTargets {
    pub(crate) fn shape(&self) -> LoraShape {
        LoraShape { rank: self.rank, alpha: self.alpha, rank_stabilized: false }
    }

    /// The layers of `llm` that are named.
    ///
    /// # Errors
    /// A target names no layer; the error lists the names.
    pub(crate) fn layers(&self, llm: &ModelConfig) -> Result<Vec<LinearLayer>, TrainError> {
        let layers = llm.linear_layers();
        let is_unknown = |target: &&String| !layers.iter().any(|layer| layer.is_named_by(target));
        if let Some(target) = self.targets.iter().find(is_unknown) {
            let mut names: Vec<&str> = layers.iter().map(LinearLayer::short_name).collect();
            names.sort_unstable();
            names.dedup();
            return Err(TrainError::Config {
                field: "llm_training.lora.targets",
                value: format!("{target:?}"),
                rule: format!("the LLM has no such linear layer; there are: {}", names.join(", ")),
            });
        }
        let is_named = |layer: &LinearLayer| self.targets.iter().any(|target| layer.is_named_by(target));
        Ok(layers.into_iter().filter(is_named).collect())
    }
}

impl TrainConfig {
    /// The settings of the run that fine-tunes the LLM itself, on the same pairs in the same template.
    ///
    /// # Errors
    /// There is no `[llm_training]`.
    pub fn for_llm(self) -> Result<Self, TrainError> {
        let training = self.llm_training.clone().ok_or_else(|| TrainError::Config {
            field: "llm_training",
            value: "missing".to_owned(),
            rule: "fine-tuning the LLM needs this section: prompt_end, eos_token, max_new_tokens, and lora \
                or whole"
                .to_owned(),
        })?;
        Ok(Self {
            trains: Trains::Llm,
            max_response_tokens: training.max_new_tokens,
            hyperparameters: training.hyperparameters.unwrap_or(self.hyperparameters),
            slm: None,
            start_from: None,
            ..self
        })
    }

    pub(crate) fn llm_training(&self) -> &LlmTraining {
        self.llm_training.as_ref().expect("validated")
    }

    pub(crate) fn validate_llm_training(&self) -> Result<(), TrainError> {
        let training = self.llm_training.as_ref();
        check(training.is_some(), "llm_training", "missing".to_owned(), "the LLM needs this section")?;
        let LlmTraining { lora, whole, max_new_tokens, .. } = self.llm_training();
        check(
            lora.is_some() != *whole,
            "llm_training.whole",
            whole.to_string(),
            "give one of the two: whole = true, or lora = { rank, alpha, targets }",
        )?;
        check(*max_new_tokens > 0, "llm_training.max_new_tokens", "0".to_owned(), "must be at least 1")?;
        check(
            self.llm_adapter.is_none(),
            "llm_adapter",
            format!("{:?}", self.llm_adapter),
            "the LLM starts from its own weights; leave it out",
        )?;
        let projector_steps = self.hyperparameters.projector_steps;
        check(
            projector_steps == 0,
            "hyperparameters.projector_steps",
            projector_steps.to_string(),
            "must be 0 when the LLM learns: there is no projector",
        )?;
        let Some(LoraTargets { rank, alpha, targets }) = lora else { return Ok(()) };
        check(*rank > 0, "llm_training.lora.rank", rank.to_string(), "must be at least 1")?;
        check(*alpha > 0.0, "llm_training.lora.alpha", alpha.to_string(), "must be above 0")?;
        check(!targets.is_empty(), "llm_training.lora.targets", "[]".to_owned(), "must name a layer")
    }
}
