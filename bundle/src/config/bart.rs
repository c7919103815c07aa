//! `config.json` and tensors of BART and its kin: BART, mBART, Marian, M2M-100, Pegasus, and the students of
//! Firefox Translations and Bergamot.
//!
//! They are one network with a few choices, [`BartWiring`], and common names. In old files these choices are
//! options, from one class of transformers; such options must match the family's choices.

use serde_json::{Map, Value};

use super::{
    DecoderPast, FamilyConfig, ModelConfig, OutputRules, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    tensors::{Block, NamedShape, Widths, numbered, untied_head},
};

/// Constants of a BART or one of its kin.
#[derive(Debug, Clone, PartialEq)]
pub struct BartConfig {
    /// The kind.
    pub kind: BartKind,
    /// Blocks of the decoder; `num_hidden_layers` are those of the encoder.
    pub num_decoder_layers: usize,
    /// The function between the two layers of a feed-forward layer.
    pub activation_function: BartActivation,
    /// Whether embeddings are multiplied by the root of their width.
    pub scale_embedding: bool,
    /// Added to the variance before the root in LayerNorm.
    pub layer_norm_eps: f64,
}

/// The members of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BartKind {
    /// BART.
    Bart,
    /// mBART.
    Mbart,
    /// M2M-100, NLLB-200, SMaLL-100.
    M2m100,
    /// Models that Marian trained and Hugging Face publishes: opus-mt.
    Marian,
    /// Pegasus.
    Pegasus,
    /// Students of Firefox Translations and Bergamot.
    Bergamot,
}

/// The structure of one kind's network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BartWiring {
    /// The places of a block's norms.
    pub norms: NormPlace,
    /// The kind of positions.
    pub positions: BartPositions,
    /// Whether embeddings, with positions added, pass a norm.
    pub embedding_norm: bool,
    /// Whether a number is added to each logit.
    pub logits_bias: bool,
    /// The way in which a block of the decoder sees earlier output.
    pub past: DecoderPast,
}

/// The places of a block's norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// `x + part(norm(x))`, and a norm after the last block.
    Before,
    /// `norm(x + part(x))`
    Behind,
}

/// The numbers that are added to embeddings for their positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BartPositions {
    /// Rows of a table in the checkpoint, of which this many at the start belong to no position.
    Learned {
        /// The row of the first position.
        first: usize,
    },
    /// Sines in the first half of the channels, cosines in the second: channel `i` of either turns by
    /// `10000^(-i / divisor)` a position.
    Sinusoidal {
        /// See above.
        divisor: f64,
        /// The angles of the first position are multiplied by it.
        first: usize,
    },
}

/// Their activation functions, by their names in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BartActivation {
    /// `relu`
    Relu,
    /// `swish`, `silu`
    Swish,
    /// `gelu`, by the error function.
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`: its approximation with tanh.
    GeluTanh,
}

/// Rows of a learned table before that of the first position, a remainder of fairseq.
const UNUSED_POSITIONS: usize = 2;

impl BartKind {
    /// The structure of its network, for hidden states of this `width`.
    #[must_use]
    pub fn wiring(self, width: usize) -> BartWiring {
        let half = width as f64 / 2.0;
        let learned = BartPositions::Learned { first: UNUSED_POSITIONS };
        let sines = |divisor, first| BartPositions::Sinusoidal { divisor, first };
        let wiring = |norms, positions, embedding_norm, logits_bias| {
            let past = DecoderPast::Attention;
            BartWiring { norms, positions, embedding_norm, logits_bias, past }
        };
        match self {
            Self::Bart => wiring(NormPlace::Behind, learned, true, true),
            Self::Mbart => wiring(NormPlace::Before, learned, true, true),
            Self::M2m100 => wiring(NormPlace::Before, sines(half - 1.0, UNUSED_POSITIONS), false, false),
            Self::Marian => wiring(NormPlace::Behind, sines(half, 0), false, true),
            Self::Pegasus => wiring(NormPlace::Before, sines(half, 0), false, true),
            Self::Bergamot => BartWiring {
                past: DecoderPast::Recurrence,
                ..wiring(NormPlace::Behind, sines(half - 1.0, 0), false, true)
            },
        }
    }

    /// The values that transformers takes for missing fields.
    fn defaults(self) -> Defaults {
        let defaults = |activation_function, [begin, end, pad]: [Option<u32>; 3]| Defaults {
            activation_function,
            scale_embedding: false,
            begin,
            end,
            pad,
            layer_norm_eps: 1e-5,
        };
        match self {
            Self::Bart => defaults(BartActivation::Gelu, [Some(2), Some(2), Some(1)]),
            Self::Mbart => defaults(BartActivation::Gelu, [None, Some(2), Some(1)]),
            Self::M2m100 => Defaults {
                scale_embedding: true,
                ..defaults(BartActivation::Relu, [Some(2), Some(2), Some(1)])
            },
            Self::Marian => defaults(BartActivation::Gelu, [Some(58100), Some(0), Some(58100)]),
            Self::Pegasus => defaults(BartActivation::Gelu, [Some(0), Some(1), Some(0)]),
            Self::Bergamot => Defaults {
                scale_embedding: true,
                layer_norm_eps: 1e-6,
                ..defaults(BartActivation::Relu, [None; 3])
            },
        }
    }
}

struct Defaults {
    activation_function: BartActivation,
    scale_embedding: bool,
    begin: Option<u32>,
    end: Option<u32>,
    pad: Option<u32>,
    layer_norm_eps: f64,
}

impl BartActivation {
    const NAMES: [(&'static str, Self); 6] = [
        ("relu", Self::Relu),
        ("swish", Self::Swish),
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("silu", Self::Swish),
        ("gelu_pytorch_tanh", Self::GeluTanh),
    ];

    fn read(fields: &Fields<'_>, default: Self) -> Result<Self, UnsupportedSetting> {
        let Some(value) = fields.get("activation_function") else { return Ok(default) };
        let known = Self::NAMES.into_iter().find(|(name, _)| value == name);
        let supported = "relu, swish, silu, gelu, gelu_new or gelu_pytorch_tanh";
        let unsupported = || UnsupportedSetting::new("activation_function", value, supported);
        known.map(|(_, activation)| activation).ok_or_else(unsupported)
    }

    fn name(self) -> &'static str {
        let known = Self::NAMES.into_iter().find(|(_, activation)| *activation == self);
        known.expect("each has a name").0
    }
}

impl BartConfig {
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        let (d, heads) = (config.hidden_size, config.num_attention_heads);
        if d != heads * config.head_dim {
            return Err(UnsupportedSetting::new("encoder_attention_heads", &heads, "a divisor of d_model"));
        }
        let has_sines = matches!(self.kind.wiring(d).positions, BartPositions::Sinusoidal { .. });
        if has_sines && (!d.is_multiple_of(2) || d < 4) {
            return Err(UnsupportedSetting::new("d_model", &d, "an even number from 4 on"));
        }
        if !(1..=1000).contains(&self.num_decoder_layers) {
            return Err(UnsupportedSetting::new("decoder_layers", &self.num_decoder_layers, "1 to 1000"));
        }
        if config.num_key_value_heads != heads {
            let (found, supported) = (&config.num_key_value_heads, "as many as query heads");
            return Err(UnsupportedSetting::new("num_key_value_heads", found, supported));
        }
        Ok(())
    }
}

/// This family's name for a field of [`ModelConfig`].
pub(super) fn field_name(field: &'static str) -> &'static str {
    match field {
        "hidden_size" => "d_model",
        "intermediate_size" => "encoder_ffn_dim",
        "num_hidden_layers" => "encoder_layers",
        "num_attention_heads" | "num_key_value_heads" => "encoder_attention_heads",
        "bos_token_id" => "decoder_start_token_id",
        other => other,
    }
}

pub(super) fn read_bart(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, BartKind::Bart)
}

pub(super) fn read_mbart(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, BartKind::Mbart)
}

pub(super) fn read_m2m_100(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, BartKind::M2m100)
}

pub(super) fn read_marian(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, BartKind::Marian)
}

pub(super) fn read_pegasus(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, BartKind::Pegasus)
}

pub(super) fn read_bergamot(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, BartKind::Bergamot)
}

fn read(fields: &Fields<'_>, kind: BartKind) -> Result<ModelConfig, UnsupportedSetting> {
    let (hidden_size, heads) = (fields.size("d_model")?, fields.size("encoder_attention_heads")?);
    let (inner, vocab_size) = (fields.size("encoder_ffn_dim")?, fields.size("vocab_size")?);
    let wiring = kind.wiring(hidden_size);
    fields.must_be("is_encoder_decoder", true)?;
    fields.must_be("share_encoder_decoder_embeddings", true)?;
    fields.must_be("normalize_before", wiring.norms == NormPlace::Before)?;
    fields.must_be("add_final_layer_norm", wiring.norms == NormPlace::Before)?;
    fields.must_be("normalize_embedding", wiring.embedding_norm)?;
    let has_sines = matches!(wiring.positions, BartPositions::Sinusoidal { .. });
    fields.must_be("static_position_embeddings", has_sines)?;
    for (field, size, supported) in [
        ("decoder_ffn_dim", inner, "that of encoder_ffn_dim"),
        ("decoder_attention_heads", heads, "that of encoder_attention_heads"),
        ("decoder_vocab_size", vocab_size, "that of vocab_size"),
    ] {
        if let Some(found) = fields.optional_size(field)?.filter(|&found| found != size) {
            return Err(UnsupportedSetting::new(field, &found, supported));
        }
    }
    let defaults = kind.defaults();
    let pad = fields.optional_token_id("pad_token_id")?.or(defaults.pad);
    if kind == BartKind::M2m100 && pad != Some(1) {
        // Positions begin after it.
        return Err(UnsupportedSetting::new("pad_token_id", &pad.unwrap_or_default(), "1"));
    }
    let begin = fields.optional_token_id("decoder_start_token_id")?.or(defaults.begin);
    let ends = fields.token_ids("eos_token_id")?;
    let mut output_rules = OutputRules::default();
    if fields.flag("force_bos_token_to_be_generated", false)? {
        output_rules.first_token_id = fields.optional_token_id("bos_token_id")?;
    }
    if kind == BartKind::Marian {
        // It begins outputs, and Marian never computes its logits.
        output_rules.suppressed_token_ids.extend(pad.filter(|&pad| (pad as usize) < vocab_size));
    }
    let eps = match kind {
        BartKind::Bergamot => fields.positive("layer_norm_eps", defaults.layer_norm_eps)?,
        _ => defaults.layer_norm_eps, // transformers reads none
    };
    Ok(ModelConfig {
        hidden_size,
        intermediate_size: inner,
        num_hidden_layers: fields.size("encoder_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: hidden_size / heads.max(1),
        vocab_size,
        max_position_embeddings: fields.optional_size("max_position_embeddings")?.unwrap_or(1024),
        tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        bos_token_id: begin,
        eos_token_ids: if ends.is_empty() { defaults.end.into_iter().collect() } else { ends },
        output_rules,
        dtype: fields.dtype()?,
        family: FamilyConfig::Bart(BartConfig {
            kind,
            num_decoder_layers: fields.size("decoder_layers")?,
            activation_function: BartActivation::read(fields, defaults.activation_function)?,
            scale_embedding: match kind {
                BartKind::Bergamot => true,
                _ => fields.flag("scale_embedding", defaults.scale_embedding)?,
            },
            layer_norm_eps: eps,
        }),
    })
}

pub(super) fn write(config: &ModelConfig, constants: &BartConfig) -> Map<String, Value> {
    let (heads, inner) = (config.num_attention_heads, config.intermediate_size);
    let mut fields = vec![
        ("d_model", config.hidden_size.into()),
        ("encoder_ffn_dim", inner.into()),
        ("decoder_ffn_dim", inner.into()),
        ("encoder_layers", config.num_hidden_layers.into()),
        ("decoder_layers", constants.num_decoder_layers.into()),
        ("encoder_attention_heads", heads.into()),
        ("decoder_attention_heads", heads.into()),
        ("max_position_embeddings", config.max_position_embeddings.into()),
        ("activation_function", constants.activation_function.name().into()),
        ("scale_embedding", constants.scale_embedding.into()),
        ("is_encoder_decoder", true.into()),
        ("decoder_start_token_id", config.bos_token_id.into()),
    ];
    let architecture = match constants.kind {
        BartKind::Bart => "BartForConditionalGeneration",
        BartKind::Mbart => "MBartForConditionalGeneration",
        BartKind::M2m100 => "M2M100ForConditionalGeneration",
        BartKind::Marian => "MarianMTModel",
        BartKind::Pegasus => "PegasusForConditionalGeneration",
        BartKind::Bergamot => "BergamotForConditionalGeneration",
    };
    match constants.kind {
        BartKind::Bergamot => fields.push(("layer_norm_eps", constants.layer_norm_eps.into())),
        BartKind::Marian => {
            let is_suppressed = |id: &u32| config.output_rules.suppressed_token_ids.contains(id);
            let pad = config.bos_token_id.filter(is_suppressed);
            fields.extend(pad.map(|pad| ("pad_token_id", pad.into())));
        }
        BartKind::M2m100 => fields.push(("pad_token_id", 1.into())),
        BartKind::Bart | BartKind::Mbart | BartKind::Pegasus => {}
    }
    let mut file = fields::file(config, architecture, fields);
    file.shift_remove("bos_token_id"); // only what is written has a begin
    file
}

pub(super) fn tensors(config: &ModelConfig, constants: &BartConfig) -> TensorLayout {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let wiring = constants.kind.wiring(hidden);
    let encoder_block = |_| {
        let mut tensors = attention(config, SELF_ATTENTION);
        tensors.extend(feed_forward(config));
        tensors
    };
    let decoder_block = |_| {
        let mut tensors = match wiring.past {
            DecoderPast::Attention => attention(config, SELF_ATTENTION),
            DecoderPast::Recurrence => recurrence(config),
        };
        tensors.extend(attention(config, CROSS_ATTENTION));
        tensors.extend(feed_forward(config));
        tensors
    };
    let norm = |name: String| ["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![hidden]));
    let first_of_stack = |stack: &str| -> Vec<NamedShape> {
        let mut tensors = Vec::new();
        if let BartPositions::Learned { first } = wiring.positions {
            let shape = vec![config.max_position_embeddings + first, hidden];
            tensors.push((format!("model.{stack}.embed_positions.weight"), shape));
        }
        if wiring.embedding_norm {
            tensors.extend(norm(format!("model.{stack}.layernorm_embedding")));
        }
        tensors
    };
    let last_of_stack = |stack: &str| -> Vec<NamedShape> {
        match wiring.norms {
            NormPlace::Before => norm(format!("model.{stack}.layer_norm")).into(),
            NormPlace::Behind => Vec::new(),
        }
    };
    let mut before = vec![("model.shared.weight".to_owned(), vec![vocab, hidden])];
    before.extend(first_of_stack("encoder"));
    let mut after = [first_of_stack("decoder"), last_of_stack("decoder")].concat();
    if wiring.logits_bias {
        after.push(("final_logits_bias".to_owned(), vec![1, vocab]));
    }
    after.extend(untied_head(config));
    TensorLayout {
        before,
        blocks: numbered("model.encoder.layers", config.num_hidden_layers, encoder_block),
        between: last_of_stack("encoder"),
        decoder_blocks: numbered("model.decoder.layers", constants.num_decoder_layers, decoder_block),
        after,
    }
}

/// Weights and biases of queries, keys, values and output, and of the norm.
type AttentionNames = [[&'static str; 2]; 5];

const SELF_ATTENTION: AttentionNames = [
    ["self_attn.q_proj.weight", "self_attn.q_proj.bias"],
    ["self_attn.k_proj.weight", "self_attn.k_proj.bias"],
    ["self_attn.v_proj.weight", "self_attn.v_proj.bias"],
    ["self_attn.out_proj.weight", "self_attn.out_proj.bias"],
    ["self_attn_layer_norm.weight", "self_attn_layer_norm.bias"],
];
const CROSS_ATTENTION: AttentionNames = [
    ["encoder_attn.q_proj.weight", "encoder_attn.q_proj.bias"],
    ["encoder_attn.k_proj.weight", "encoder_attn.k_proj.bias"],
    ["encoder_attn.v_proj.weight", "encoder_attn.v_proj.bias"],
    ["encoder_attn.out_proj.weight", "encoder_attn.out_proj.bias"],
    ["encoder_attn_layer_norm.weight", "encoder_attn_layer_norm.bias"],
];

fn attention(config: &ModelConfig, [q, k, v, out, norm]: AttentionNames) -> Block {
    let hidden = config.hidden_size;
    let mut tensors = Block::new();
    for [weight, bias] in [q, k, v, out] {
        tensors.extend([(weight, vec![hidden, hidden]), (bias, vec![hidden])]);
    }
    tensors.extend(norm.map(|name| (name, vec![hidden])));
    tensors
}

fn recurrence(config: &ModelConfig) -> Block {
    let hidden = config.hidden_size;
    vec![
        ("rnn.forget.weight", vec![hidden, hidden]),
        ("rnn.forget.bias", vec![hidden]),
        ("rnn.input.weight", vec![hidden, hidden]),
        ("rnn_layer_norm.weight", vec![hidden]),
        ("rnn_layer_norm.bias", vec![hidden]),
    ]
}

fn feed_forward(config: &ModelConfig) -> Block {
    let Widths { hidden, inner, .. } = Widths::of(config);
    vec![
        ("fc1.weight", vec![inner, hidden]),
        ("fc1.bias", vec![inner]),
        ("fc2.weight", vec![hidden, inner]),
        ("fc2.bias", vec![hidden]),
        ("final_layer_norm.weight", vec![hidden]),
        ("final_layer_norm.bias", vec![hidden]),
    ]
}
