//! The decoder-only families with rotary positions. Their differences are data.
//!
//! A [`DecoderConfig`] says all that distinguishes a family's block from Llama's, so one network
//! (`baton-model`'s `families/decoder.rs`) runs them all. A family is a short file beside this one: it reads
//! its own fields of `config.json` into that data, and writes them again. Shared fields and the names of
//! tensors are here.

use serde_json::{Map, Value};

use super::{
    FamilyConfig, ModelConfig, OutputRules, SlidingLayers, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    gemma, granite, llama, mistral, olmo2, phi3, qwen,
    rotary::RotaryConfig,
    smollm3,
    tensors::{NamedShape, Widths, around_blocks},
};
use crate::Family;

/// The differences between decoder-only families with rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The family.
    pub family: Family,
    /// Added to the mean square before the root in RMSNorm.
    pub rms_norm_eps: f64,
    /// Where a block has norms.
    pub norms: BlockNorms,
    /// Whether norm weights are stored as the factor minus one.
    pub norms_around_one: bool,
    /// Rotation of queries and keys.
    pub rotary: RotaryConfig,
    /// The rotation in blocks with a window, where it is another.
    pub local_rotary: Option<RotaryConfig>,
    /// For each block, whether it rotates at all. Empty: all do.
    pub rotated_layers: Vec<bool>,
    /// Blocks with sliding attention.
    pub sliding: Option<SlidingLayers>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Norms of queries and keys.
    pub query_key_norms: QueryKeyNorms,
    /// Whether queries, keys and values are stored as one matrix, and gates and ups as another.
    pub fused: bool,
    /// The function of the gates.
    pub gate: GateActivation,
    /// The experts among which a router chooses, where the feed-forward layer is a mixture.
    pub experts: Option<ExpertsConfig>,
    /// Factor of the products of queries and keys; none: one over the root of a head's width.
    pub attention_factor: Option<f64>,
    /// Products of queries and keys are kept below this by a hyperbolic tangent.
    pub attention_cap: Option<f64>,
    /// The same for logits.
    pub logit_cap: Option<f64>,
    /// Factor of embeddings; none: 1.
    pub embedding_factor: Option<f64>,
    /// Factor of what each part of a block adds; none: 1.
    pub residual_factor: Option<f64>,
    /// Logits are divided by this; none: 1.
    pub logits_divisor: Option<f64>,
}

/// Where a block has norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockNorms {
    /// Before each part: Llama and most others.
    Before,
    /// After each part: OLMo 2.
    After,
    /// Before and after each part: Gemma 2 and 3.
    BeforeAndAfter,
}

/// Norms of queries and keys, before positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorms {
    /// None.
    None,
    /// Of each head: Qwen3, Gemma 3.
    EachHead,
    /// Of all heads together: OLMo 2.
    AllHeads,
}

/// The function of a gated feed-forward layer's gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateActivation {
    /// `silu`.
    Silu,
    /// `gelu_pytorch_tanh`.
    GeluTanh,
}

/// A feed-forward layer of several, of which each token takes some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertsConfig {
    /// How many there are in a block.
    pub num_experts: usize,
    /// How many a token takes.
    pub per_token: usize,
    /// Width of one.
    pub intermediate_size: usize,
    /// Whether the weights of those that a token takes sum to one.
    pub normalized: bool,
    /// For each block, whether it has experts; others have one layer, of the model's `intermediate_size`.
    pub layers: Vec<bool>,
}

impl DecoderConfig {
    /// Llama's block under another family's name.
    #[must_use]
    pub fn plain(family: Family, rms_norm_eps: f64, rotary: RotaryConfig) -> Self {
        Self {
            family,
            rms_norm_eps,
            norms: BlockNorms::Before,
            norms_around_one: false,
            rotary,
            local_rotary: None,
            rotated_layers: Vec::new(),
            sliding: None,
            qkv_bias: false,
            query_key_norms: QueryKeyNorms::None,
            fused: false,
            gate: GateActivation::Silu,
            experts: None,
            attention_factor: None,
            attention_cap: None,
            logit_cap: None,
            embedding_factor: None,
            residual_factor: None,
            logits_divisor: None,
        }
    }

    /// A Llama with plain rotary positions of this base.
    #[must_use]
    pub fn llama(rms_norm_eps: f64, rope_theta: f64) -> Self {
        Self::plain(Family::Llama, rms_norm_eps, RotaryConfig::plain(rope_theta))
    }

    /// The same as a Qwen2: with biases on queries, keys and values.
    #[must_use]
    pub fn qwen2(rms_norm_eps: f64, rope_theta: f64) -> Self {
        Self { family: Family::Qwen2, qkv_bias: true, ..Self::llama(rms_norm_eps, rope_theta) }
    }

    /// The same as a Qwen3: with norms of query and key heads.
    #[must_use]
    pub fn qwen3(rms_norm_eps: f64, rope_theta: f64) -> Self {
        let query_key_norms = QueryKeyNorms::EachHead;
        Self { family: Family::Qwen3, query_key_norms, ..Self::llama(rms_norm_eps, rope_theta) }
    }

    /// The experts of a block, if it has some.
    #[must_use]
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertsConfig> {
        self.experts.as_ref().filter(|experts| experts.layers.get(layer).copied().unwrap_or(false))
    }

    /// The rotation of a block's queries and keys, if it has one.
    #[must_use]
    pub fn rotary_of(&self, layer: usize) -> Option<&RotaryConfig> {
        if !self.rotated_layers.get(layer).copied().unwrap_or(true) {
            return None;
        }
        let is_local = self.sliding.as_ref().and_then(|sliding| sliding.window(layer)).is_some();
        Some(self.local_rotary.as_ref().filter(|_| is_local).unwrap_or(&self.rotary))
    }

    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        SlidingLayers::check(self.sliding.as_ref(), config)?;
        self.rotary.check(config.head_dim)?;
        if let Some(local) = &self.local_rotary {
            local.check(config.head_dim)?;
        }
        let num_layers = config.num_hidden_layers;
        let Some(experts) = &self.experts else { return Ok(()) };
        if !(1..=1 << 16).contains(&experts.num_experts) {
            return Err(UnsupportedSetting::new("num_experts", &experts.num_experts, "1 to 2^16"));
        }
        if !(1..=experts.num_experts).contains(&experts.per_token) {
            let supported = "a number from 1 to num_experts";
            return Err(UnsupportedSetting::new("num_experts_per_tok", &experts.per_token, supported));
        }
        if !(1..=1 << 24).contains(&experts.intermediate_size) || experts.layers.len() != num_layers {
            let supported = "a number from 1 to 2^24";
            return Err(UnsupportedSetting::new(
                "moe_intermediate_size",
                &experts.intermediate_size,
                supported,
            ));
        }
        Ok(())
    }
}

impl GateActivation {
    const fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }
}

/// Transformers' defaults for absent fields. A field without one is required.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) num_attention_heads: Option<usize>,
    pub(super) num_key_value_heads: KeyValueHeads,
    /// None: `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    pub(super) vocab_size: Option<usize>,
    pub(super) max_position_embeddings: usize,
    pub(super) tie_word_embeddings: bool,
    pub(super) bos_token_id: Option<u32>,
    pub(super) eos_token_id: Option<u32>,
}

/// The number of key and value heads where a file does not say.
#[derive(Debug, Default, Clone, Copy)]
pub(super) enum KeyValueHeads {
    #[default]
    Required,
    AsManyAsQueries,
    Number(usize),
}

/// A config from the fields that all these families have.
pub(super) fn read(
    fields: &Fields<'_>,
    constants: DecoderConfig,
    defaults: &Defaults,
) -> Result<ModelConfig, UnsupportedSetting> {
    let size = |field, default: Option<usize>| match default {
        Some(default) => Ok(fields.optional_size(field)?.unwrap_or(default)),
        None => fields.size(field),
    };
    let hidden_size = fields.size("hidden_size")?;
    let heads = size("num_attention_heads", defaults.num_attention_heads)?;
    let head_dim = match (fields.optional_size("head_dim")?, defaults.head_dim) {
        (Some(head_dim), _) | (None, Some(head_dim)) => head_dim,
        (None, None) => hidden_size.checked_div(heads).unwrap_or(0),
    };
    let key_value_heads = match defaults.num_key_value_heads {
        KeyValueHeads::Required => None,
        KeyValueHeads::AsManyAsQueries => Some(heads),
        KeyValueHeads::Number(number) => Some(number),
    };
    let mut eos_token_ids = fields.token_ids("eos_token_id")?;
    if eos_token_ids.is_empty() {
        eos_token_ids.extend(defaults.eos_token_id);
    }
    Ok(ModelConfig {
        hidden_size,
        intermediate_size: fields.size("intermediate_size")?,
        num_hidden_layers: fields.size("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: size("num_key_value_heads", key_value_heads)?,
        head_dim,
        vocab_size: size("vocab_size", defaults.vocab_size)?,
        max_position_embeddings: fields
            .optional_size("max_position_embeddings")?
            .unwrap_or(defaults.max_position_embeddings),
        tie_word_embeddings: fields.flag("tie_word_embeddings", defaults.tie_word_embeddings)?,
        bos_token_id: fields.optional_token_id("bos_token_id")?.or(defaults.bos_token_id),
        eos_token_ids,
        output_rules: OutputRules::default(),
        dtype: fields.dtype()?,
        family: FamilyConfig::Decoder(constants),
    })
}

/// The plain block of a family, with its norms' epsilon and rotation as the file has them.
pub(super) fn read_plain(
    fields: &Fields<'_>,
    family: Family,
    (rms_norm_eps, theta): (f64, f64),
) -> Result<DecoderConfig, UnsupportedSetting> {
    fields.must_be("attention_bias", false)?;
    fields.must_be("mlp_bias", false)?;
    let rms_norm_eps = fields.positive("rms_norm_eps", rms_norm_eps)?;
    Ok(DecoderConfig::plain(family, rms_norm_eps, RotaryConfig::read(fields, theta)?))
}

pub(super) fn write(config: &ModelConfig, constants: &DecoderConfig) -> Map<String, Value> {
    let mut fields: Vec<(&'static str, Value)> = vec![
        ("hidden_size", config.hidden_size.into()),
        ("intermediate_size", config.intermediate_size.into()),
        ("num_hidden_layers", config.num_hidden_layers.into()),
        ("num_attention_heads", config.num_attention_heads.into()),
        ("num_key_value_heads", config.num_key_value_heads.into()),
        ("head_dim", config.head_dim.into()),
        ("max_position_embeddings", config.max_position_embeddings.into()),
        ("rms_norm_eps", constants.rms_norm_eps.into()),
        ("hidden_act", constants.gate.name().into()),
        ("attention_bias", false.into()),
        ("mlp_bias", false.into()),
    ];
    fields.extend(constants.rotary.write());
    let (architecture, own) = match constants.family {
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => qwen::write(config, constants),
        Family::Gemma2 | Family::Gemma3 => gemma::write(config, constants),
        Family::Mistral | Family::Ministral | Family::Ministral3 => mistral::write(config, constants),
        Family::Phi3 => phi3::write(config, constants),
        Family::Olmo2 => olmo2::write(),
        Family::Granite => granite::write(constants),
        Family::Smollm3 => smollm3::write(config, constants),
        _ => llama::write(),
    };
    for (name, value) in own {
        fields.retain(|(known, _)| *known != name);
        fields.push((name, value));
    }
    fields::file(config, architecture, fields)
}

pub(super) fn tensors(config: &ModelConfig, constants: &DecoderConfig) -> TensorLayout {
    around_blocks(config, |layer| block(config, constants, layer))
}

/// The tensors of a block, in the order of the forward pass.
fn block(config: &ModelConfig, constants: &DecoderConfig, layer: usize) -> Vec<NamedShape> {
    let Widths { hidden, inner, queries, keys } = Widths::of(config);
    let mut tensors = Vec::new();
    let mut push = |name: &str, shape: Vec<usize>| tensors.push((name.to_owned(), shape));
    let (has_before, has_after) = match constants.norms {
        BlockNorms::Before => (true, false),
        BlockNorms::After => (false, true),
        BlockNorms::BeforeAndAfter => (true, true),
    };
    if has_before {
        push("input_layernorm.weight", vec![hidden]);
    }
    if constants.fused {
        push("self_attn.qkv_proj.weight", vec![queries + 2 * keys, hidden]);
    } else {
        for (name, width) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
            push(&format!("self_attn.{name}.weight"), vec![width, hidden]);
            if constants.qkv_bias {
                push(&format!("self_attn.{name}.bias"), vec![width]);
            }
        }
    }
    let norm_widths = match constants.query_key_norms {
        QueryKeyNorms::None => None,
        QueryKeyNorms::EachHead => Some([config.head_dim; 2]),
        QueryKeyNorms::AllHeads => Some([queries, keys]),
    };
    if let Some([query_width, key_width]) = norm_widths {
        push("self_attn.q_norm.weight", vec![query_width]);
        push("self_attn.k_norm.weight", vec![key_width]);
    }
    push("self_attn.o_proj.weight", vec![hidden, queries]);
    push("post_attention_layernorm.weight", vec![hidden]);
    if has_before && has_after {
        push("pre_feedforward_layernorm.weight", vec![hidden]);
    }
    let gated = |push: &mut dyn FnMut(&str, Vec<usize>), part: &str, inner: usize| {
        push(&format!("{part}.gate_proj.weight"), vec![inner, hidden]);
        push(&format!("{part}.up_proj.weight"), vec![inner, hidden]);
        push(&format!("{part}.down_proj.weight"), vec![hidden, inner]);
    };
    match constants.experts_of(layer) {
        Some(experts) => {
            push("mlp.gate.weight", vec![experts.num_experts, hidden]);
            for expert in 0..experts.num_experts {
                gated(&mut push, &format!("mlp.experts.{expert}"), experts.intermediate_size);
            }
        }
        None if constants.fused => {
            push("mlp.gate_up_proj.weight", vec![2 * inner, hidden]);
            push("mlp.down_proj.weight", vec![hidden, inner]);
        }
        None => gated(&mut push, "mlp", inner),
    }
    if has_after {
        push("post_feedforward_layernorm.weight", vec![hidden]);
    }
    tensors
}

/// Fields that say what the family always is; a file that says otherwise is refused.
pub(super) fn must_gate_by(
    fields: &Fields<'_>,
    gate: GateActivation,
    names: &[&str],
) -> Result<(), UnsupportedSetting> {
    names.iter().try_for_each(|name| fields.must_be_one_of(name, &[gate.name()], gate.name()))
}
