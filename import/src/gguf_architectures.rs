//! The architectures of GGUF files: their metadata as a config, and their names of tensors.
//!
//! All are decoder-only families with rotary positions, so one table of names serves them. An
//! [`Architecture`] says only what the metadata does not: constants that llama.cpp has in its code, and
//! whether converters reorder rows.

use baton_bundle::{
    BlockNorms, DecoderConfig, ExpertsConfig, Family, FamilyConfig, GateActivation, LongRope, ModelConfig,
    OutputRules, QueryKeyNorms, RopeScaling, RotaryConfig, SlidingLayers, WeightDtype, Yarn,
};
use candle_core::quantized::gguf_file::Content;

use crate::{ImportError, gguf_metadata::GgufMetadata};

/// How one architecture of GGUF becomes a Hugging Face checkpoint.
pub(crate) struct Architecture {
    /// `general.architecture` in the file, and the prefix of its metadata keys.
    pub(crate) name: &'static str,
    family: Family,
    /// Whether the rows of query and key heads are stored with the halves of a rotation interleaved.
    pub(crate) interleaved: bool,
    /// Sets what distinguishes the family.
    settings: fn(&Source<'_>, &mut ModelConfig, &mut DecoderConfig) -> Result<(), ImportError>,
}

pub(crate) const ARCHITECTURES: [Architecture; 10] = [
    Architecture { name: "llama", family: Family::Llama, interleaved: true, settings: plain },
    Architecture { name: "qwen2", family: Family::Qwen2, interleaved: false, settings: qwen2 },
    Architecture { name: "qwen3", family: Family::Qwen3, interleaved: false, settings: qwen3 },
    Architecture { name: "qwen3moe", family: Family::Qwen3Moe, interleaved: false, settings: qwen3_moe },
    Architecture { name: "gemma2", family: Family::Gemma2, interleaved: false, settings: gemma2 },
    Architecture { name: "gemma3", family: Family::Gemma3, interleaved: false, settings: gemma3 },
    Architecture { name: "phi3", family: Family::Phi3, interleaved: false, settings: phi3 },
    Architecture { name: "olmo2", family: Family::Olmo2, interleaved: false, settings: olmo2 },
    Architecture { name: "granite", family: Family::Granite, interleaved: true, settings: granite },
    Architecture { name: "smollm3", family: Family::Smollm3, interleaved: true, settings: smollm3 },
];

/// Tensors with factors of frequencies, which become part of the config.
pub(crate) const FREQUENCY_TENSORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// A file's metadata, and its tensors of frequencies.
pub(crate) struct Source<'a> {
    pub(crate) metadata: &'a GgufMetadata<'a>,
    pub(crate) content: &'a Content,
    /// Present ones, in the order of [`FREQUENCY_TENSORS`].
    pub(crate) frequency_factors: [Option<Vec<f32>>; 3],
    pub(crate) architecture: &'static Architecture,
}

impl Source<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name)
    }

    fn size(&self, key: &str) -> Result<usize, ImportError> {
        self.metadata.unsigned(&self.key(key))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, ImportError> {
        self.metadata.optional_unsigned(&self.key(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ImportError> {
        self.metadata.optional_float(&self.key(key))
    }

    fn problem(&self, key: &str, problem: impl Into<String>) -> ImportError {
        self.metadata.problem(&self.key(key), problem)
    }

    /// The config of the whole model.
    pub(crate) fn config(&self) -> Result<ModelConfig, ImportError> {
        let hidden_size = self.size("embedding_length")?;
        let num_attention_heads = self.size("attention.head_count")?;
        if num_attention_heads == 0 {
            return Err(self.problem("attention.head_count", "is 0"));
        }
        let key_length = self.optional_size("attention.key_length")?;
        let head_dim = key_length.unwrap_or(hidden_size / num_attention_heads);
        let num_key_value_heads = self.optional_size("attention.head_count_kv")?;
        let mut eos_token_ids = Vec::new();
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
            let id = self.metadata.optional_token_id(key)?;
            eos_token_ids.extend(id.filter(|id| !eos_token_ids.contains(id)));
        }
        let rms_norm_eps = self.metadata.float(&self.key("attention.layer_norm_rms_epsilon"))?;
        let max_position_embeddings = self.size("context_length")?;
        let rotary = self.rotary((head_dim, max_position_embeddings))?;
        let mut constants = DecoderConfig::plain(self.architecture.family, rms_norm_eps, rotary);
        let mut config = ModelConfig {
            hidden_size,
            intermediate_size: self.size("feed_forward_length")?,
            num_hidden_layers: self.size("block_count")?,
            num_attention_heads,
            num_key_value_heads: num_key_value_heads.unwrap_or(num_attention_heads),
            head_dim,
            vocab_size: self.metadata.strings("tokenizer.ggml.tokens")?.len(),
            max_position_embeddings,
            tie_word_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            bos_token_id: self.metadata.optional_token_id("tokenizer.ggml.bos_token_id")?,
            eos_token_ids,
            output_rules: OutputRules::default(),
            dtype: WeightDtype::F32,
            family: FamilyConfig::Decoder(DecoderConfig::llama(rms_norm_eps, 1e4)), // until settings are read
        };
        if let Some(experts) = self.optional_size("expert_count")?
            && experts > 0
            && self.architecture.family != Family::Qwen3Moe
        {
            let problem = format!("is {experts}; mixtures of experts are supported of qwen3moe alone");
            return Err(self.problem("expert_count", problem));
        }
        (self.architecture.settings)(self, &mut config, &mut constants)?;
        config.family = FamilyConfig::Decoder(constants);
        Ok(config)
    }

    fn rotary(&self, (head_dim, longest): (usize, usize)) -> Result<RotaryConfig, ImportError> {
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        let rotated = self.optional_size("rope.dimension_count")?.unwrap_or(head_dim);
        let original = self.optional_size("rope.scaling.original_context_length")?;
        let factor = self.number("rope.scaling.factor")?.unwrap_or(1.0);
        let kind = self.metadata.optional_string(&self.key("rope.scaling.type"))?.unwrap_or("none");
        for key in ["yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor"] {
            let key = format!("rope.scaling.{key}");
            if self.number(&key)?.is_some() {
                return Err(self.problem(&key, "is not supported"));
            }
        }
        let [of_llama, short, long] = self.frequency_factors.each_ref();
        let scaling = match (kind, of_llama, short.as_ref().zip(long.as_ref())) {
            ("none", None, None) => RopeScaling::None,
            ("none" | "longrope", None, Some((short, long))) => RopeScaling::LongRope(LongRope {
                short_factors: short.iter().copied().map(exact).collect(),
                long_factors: long.iter().copied().map(exact).collect(),
                factor: longest as f64 / original.unwrap_or(longest) as f64,
                original_positions: original.unwrap_or(longest),
                attention_factor: self.number("rope.scaling.attn_factor")?,
            }),
            ("none", Some(factors), None) => self.llama3(theta, factors)?,
            ("linear", None, None) => RopeScaling::Linear { factor },
            ("yarn", None, None) => RopeScaling::Yarn(Yarn {
                factor,
                beta_fast: self.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                original_positions: original.unwrap_or(longest),
                attention_factor: self.number("rope.scaling.attn_factor")?,
                mscales: None,
                truncate: true,
                query_growth: None,
            }),
            _ => {
                let problem = format!("is `{kind}`; none, linear, yarn and longrope are supported");
                return Err(self.problem("rope.scaling.type", problem));
            }
        };
        Ok(RotaryConfig { theta, partial_factor: rotated as f64 / head_dim.max(1) as f64, scaling })
    }

    /// The scaling of Llama 3.1 and 3.2 whose divisors of frequencies a converter stored.
    fn llama3(&self, theta: f64, divisors: &[f32]) -> Result<RopeScaling, ImportError> {
        let factor = divisors.iter().copied().fold(1.0_f32, f32::max).round();
        let scaling = RopeScaling::Llama3 {
            factor: f64::from(factor),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192,
        };
        let rotary = |scaling| RotaryConfig { scaling, ..RotaryConfig::plain(theta) };
        let [plain, scaled] = [RopeScaling::None, scaling.clone()]
            .map(|scaling| rotary(scaling).frequencies(2 * divisors.len()));
        let fits = plain
            .iter()
            .zip(&scaled)
            .zip(divisors)
            .all(|((plain, scaled), &divisor)| (plain / scaled / f64::from(divisor) - 1.0).abs() < 1e-4);
        match fits {
            true => Ok(scaling),
            false => {
                let problem = "has factors of frequencies that are not those of Llama 3.1 or 3.2";
                Err(self.metadata.problem(FREQUENCY_TENSORS[0], problem))
            }
        }
    }

    fn sliding(
        &self,
        config: &ModelConfig,
        is_sliding: impl Fn(usize) -> bool,
    ) -> Result<Option<SlidingLayers>, ImportError> {
        let window = self.optional_size("attention.sliding_window")?.filter(|&window| window > 0);
        let layers: Vec<bool> = (0..config.num_hidden_layers.min(1000)).map(is_sliding).collect();
        Ok(window.map(|window| SlidingLayers { window, layers }))
    }
}

/// The f64 with the same shortest decimal digits.
fn exact(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

type Settings = Result<(), ImportError>;

fn plain(_: &Source<'_>, _: &mut ModelConfig, _: &mut DecoderConfig) -> Settings {
    Ok(())
}

fn qwen2(_: &Source<'_>, _: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    constants.qkv_bias = true;
    Ok(())
}

fn qwen3(_: &Source<'_>, _: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    constants.query_key_norms = QueryKeyNorms::EachHead;
    Ok(())
}

fn qwen3_moe(source: &Source<'_>, config: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    constants.query_key_norms = QueryKeyNorms::EachHead;
    constants.experts = Some(ExpertsConfig {
        num_experts: source.size("expert_count")?,
        per_token: source.size("expert_used_count")?,
        intermediate_size: source.size("expert_feed_forward_length")?,
        normalized: true,
        layers: vec![true; config.num_hidden_layers.min(1000)],
    });
    Ok(())
}

/// The settings of both of Gemma's architectures. `largest`: the blocks of the one size whose scores are
/// scaled by another width.
fn gemma(config: &ModelConfig, constants: &mut DecoderConfig, largest: usize) {
    let scaled_by = match config.num_hidden_layers == largest {
        true => config.hidden_size / config.num_attention_heads,
        false => config.head_dim,
    };
    constants.norms = BlockNorms::BeforeAndAfter;
    constants.norms_around_one = true;
    constants.gate = GateActivation::GeluTanh;
    constants.attention_factor = Some((scaled_by as f64).powf(-0.5));
    constants.embedding_factor = Some((config.hidden_size as f64).sqrt());
}

fn gemma2(source: &Source<'_>, config: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    gemma(config, constants, 46);
    constants.sliding = source.sliding(config, |layer| layer.is_multiple_of(2))?;
    constants.attention_cap = source.number("attn_logit_softcapping")?;
    constants.logit_cap = source.number("final_logit_softcapping")?;
    Ok(())
}

fn gemma3(source: &Source<'_>, config: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    gemma(config, constants, 62);
    constants.query_key_norms = QueryKeyNorms::EachHead;
    constants.sliding = source.sliding(config, |layer| (layer + 1) % 6 != 0)?;
    constants.local_rotary =
        Some(RotaryConfig::plain(source.number("rope.freq_base_swa")?.unwrap_or(10_000.0)));
    Ok(())
}

fn phi3(source: &Source<'_>, config: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    constants.fused = true;
    constants.sliding = source.sliding(config, |_| true)?;
    Ok(())
}

fn olmo2(_: &Source<'_>, _: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    constants.norms = BlockNorms::After;
    constants.query_key_norms = QueryKeyNorms::AllHeads;
    Ok(())
}

fn granite(source: &Source<'_>, _: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    constants.embedding_factor = Some(source.number("embedding_scale")?.unwrap_or(1.0));
    constants.residual_factor = Some(source.number("residual_scale")?.unwrap_or(1.0));
    constants.attention_factor = Some(source.number("attention.scale")?.unwrap_or(1.0));
    constants.logits_divisor = Some(source.number("logit_scale")?.unwrap_or(1.0));
    Ok(())
}

fn smollm3(_: &Source<'_>, config: &mut ModelConfig, constants: &mut DecoderConfig) -> Settings {
    let layers = 0..config.num_hidden_layers.min(1000);
    constants.rotated_layers = layers.map(|layer| (layer + 1) % 4 != 0).collect();
    Ok(())
}

/// Where a file has a tensor.
pub(crate) struct Place {
    pub(crate) name: String,
    /// The part of a stack of experts' matrices that it is.
    pub(crate) expert: Option<usize>,
}

impl Place {
    /// The place of a tensor by its Hugging Face name.
    pub(crate) fn of(hugging_face: &str, config: &ModelConfig) -> Self {
        let whole = |name: &str| Self { name: name.to_owned(), expert: None };
        match hugging_face {
            "model.embed_tokens.weight" => return whole("token_embd.weight"),
            "model.norm.weight" => return whole("output_norm.weight"),
            "lm_head.weight" => return whole("output.weight"),
            _ => {}
        }
        let rest = hugging_face.strip_prefix("model.layers.").expect("other tensors are in blocks");
        let (layer, rest) = rest.split_once('.').expect("a block's tensor has a name after its number");
        let (module, kind) = rest.rsplit_once('.').expect("a tensor is a weight or a bias of a module");
        let (module, expert) = match module.strip_prefix("mlp.experts.").and_then(|rest| rest.split_once('.'))
        {
            None => (module.to_owned(), None),
            Some((expert, module)) => (format!("mlp.experts.{module}"), expert.parse().ok()),
        };
        let norms = config.decoder().map(|decoder| decoder.norms);
        let own = match module.as_str() {
            "input_layernorm" => "attn_norm",
            "self_attn.q_proj" => "attn_q",
            "self_attn.k_proj" => "attn_k",
            "self_attn.v_proj" => "attn_v",
            "self_attn.qkv_proj" => "attn_qkv",
            "self_attn.q_norm" => "attn_q_norm",
            "self_attn.k_norm" => "attn_k_norm",
            "self_attn.o_proj" => "attn_output",
            "post_attention_layernorm" if norms == Some(BlockNorms::Before) => "ffn_norm",
            "post_attention_layernorm" => "post_attention_norm",
            "pre_feedforward_layernorm" => "ffn_norm",
            "post_feedforward_layernorm" => "post_ffw_norm",
            "mlp.gate_proj" => "ffn_gate",
            "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
            "mlp.down_proj" => "ffn_down",
            "mlp.gate" => "ffn_gate_inp",
            "mlp.experts.gate_proj" => "ffn_gate_exps",
            "mlp.experts.up_proj" => "ffn_up_exps",
            "mlp.experts.down_proj" => "ffn_down_exps",
            other => unreachable!("no family has {other}"),
        };
        Self { name: format!("blk.{layer}.{own}.{kind}"), expert }
    }
}
