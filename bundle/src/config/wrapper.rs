//! Multimodal checkpoints, of which Baton reads the text model: its settings lie in `text_config`, its
//! tensors under a prefix of their own.

use serde_json::{Map, Value};

/// The types of such files, and the type of a text model that does not name its own.
const WRAPPERS: [(&str, &str); 2] = [("gemma3", "gemma3_text"), ("mistral3", "mistral")];
/// Fields that a text model takes from the file around it where it lacks them.
const INHERITED: [&str; 7] = [
    "dtype",
    "torch_dtype",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "quantization_config",
];

/// The content of a text model's file: that of `text_config` where the file is a multimodal model's, or else
/// the file's own.
pub(super) fn text_model(json: Map<String, Value>) -> Map<String, Value> {
    let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let Some((_, usual_type)) = WRAPPERS.iter().find(|(wrapper, _)| *wrapper == model_type) else {
        return json;
    };
    let Some(Value::Object(text)) = json.get("text_config") else { return json };
    let mut text = text.clone();
    for field in INHERITED {
        if let Some(value) = json.get(field).filter(|_| !text.contains_key(field)) {
            text.insert(field.to_owned(), value.clone());
        }
    }
    text.entry("model_type").or_insert_with(|| (*usual_type).into());
    text
}
