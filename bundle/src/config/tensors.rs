//! Names and shapes of a checkpoint's tensors.

use std::fmt::Display;

use super::ModelConfig;

/// Name of a tensor, and its sizes, outermost first.
pub type NamedShape = (String, Vec<usize>);

/// The tensors of a checkpoint by their place in the model, in the order of the forward pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorLayout {
    /// Tensors before the blocks: first the embedding matrix, then positions.
    pub before: Vec<NamedShape>,
    /// The blocks that read: all of a decoder-only model, the encoder of another.
    pub blocks: Vec<Vec<NamedShape>>,
    /// The final norm of an encoder.
    pub between: Vec<NamedShape>,
    /// The blocks of the decoder that follows an encoder; a decoder-only model has none.
    pub decoder_blocks: Vec<Vec<NamedShape>>,
    /// Tensors after the blocks: the final norm, and the head unless it is the embedding matrix.
    pub after: Vec<NamedShape>,
}

/// The tensors of one block, without the part of their names that has its number.
pub(super) type Block = Vec<(&'static str, Vec<usize>)>;

impl TensorLayout {
    /// All tensors.
    #[must_use]
    pub fn all(self) -> Vec<NamedShape> {
        let Self { before, blocks, between, decoder_blocks, after } = self;
        let (blocks, decoder_blocks) = (blocks.into_iter().flatten(), decoder_blocks.into_iter().flatten());
        before.into_iter().chain(blocks).chain(between).chain(decoder_blocks).chain(after).collect()
    }
}

/// The tensors of `num_blocks` blocks, which `block` gives, under names that begin with `prefix` and the
/// block's number.
pub(super) fn numbered<Name: Display>(
    prefix: &str,
    num_blocks: usize,
    block: impl Fn(usize) -> Vec<(Name, Vec<usize>)>,
) -> Vec<Vec<NamedShape>> {
    let full_names = |layer: usize| {
        let name = move |(suffix, shape)| (format!("{prefix}.{layer}.{suffix}"), shape);
        block(layer).into_iter().map(name).collect()
    };
    (0..num_blocks).map(full_names).collect()
}

/// Llama's names for the tensors outside the blocks, which other families took over.
pub(super) fn around_blocks(config: &ModelConfig, block: impl Fn(usize) -> Vec<NamedShape>) -> TensorLayout {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut after = vec![("model.norm.weight".to_owned(), vec![hidden])];
    after.extend(untied_head(config));
    TensorLayout {
        before: vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])],
        blocks: numbered("model.layers", config.num_hidden_layers, block),
        between: Vec::new(),
        decoder_blocks: Vec::new(),
        after,
    }
}

/// The head, if it has its own matrix.
pub(super) fn untied_head(config: &ModelConfig) -> Option<NamedShape> {
    let shape = vec![config.vocab_size, config.hidden_size];
    (!config.tie_word_embeddings).then(|| ("lm_head.weight".to_owned(), shape))
}

/// The widths that shapes are made of.
pub(super) struct Widths {
    pub(super) hidden: usize,
    pub(super) inner: usize,
    /// Outputs of the queries' projection.
    pub(super) queries: usize,
    /// Outputs of the keys' projection, and of the values'.
    pub(super) keys: usize,
}

impl Widths {
    pub(super) fn of(config: &ModelConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            inner: config.intermediate_size,
            queries: config.num_attention_heads * config.head_dim,
            keys: config.num_key_value_heads * config.head_dim,
        }
    }
}
