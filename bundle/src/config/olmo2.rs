//! OLMo 2's `config.json`: Llama with norms after the parts of a block and not before them, and norms of all
//! queries and all keys. Reference: OLMo Team, arXiv 2501.00656, and Hugging Face `Olmo2ForCausalLM`.

use serde_json::Value;

use super::{
    ModelConfig, UnsupportedSetting,
    decoder::{self, BlockNorms, DecoderConfig, Defaults, GateActivation, KeyValueHeads, QueryKeyNorms},
    fields::Fields,
};
use crate::Family;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::Silu, &["hidden_act"])?;
    let constants = DecoderConfig {
        norms: BlockNorms::After,
        query_key_norms: QueryKeyNorms::AllHeads,
        ..decoder::read_plain(fields, Family::Olmo2, (1e-5, 10_000.0))?
    };
    let defaults = Defaults {
        num_key_value_heads: KeyValueHeads::AsManyAsQueries,
        max_position_embeddings: 2048,
        ..Defaults::default()
    };
    decoder::read(fields, constants, &defaults)
}

pub(super) fn write() -> (&'static str, Vec<(&'static str, Value)>) {
    ("Olmo2ForCausalLM", Vec::new())
}
