//! Typed access to the fields of a `config.json`; every refusal names its field.
//!
//! A field that is `null` counts as left out, as transformers has it.

use std::fmt::Display;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::WeightDtype;

/// A setting of a `config.json` that Baton does not implement.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{field}` is {value}, but only {supported} is supported")]
pub struct UnsupportedSetting {
    /// Path of the field, such as `rope_scaling.rope_type`.
    pub field: String,
    /// The value in the file, as JSON, or "missing".
    pub value: String,
    /// The supported values.
    pub supported: &'static str,
}

impl UnsupportedSetting {
    /// `value`: the value found; `supported`: the supported values.
    pub fn new(field: impl Into<String>, value: &dyn Display, supported: &'static str) -> Self {
        Self { field: field.into(), value: value.to_string(), supported }
    }
}

/// The fields of a file.
pub(super) struct Fields<'a> {
    json: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// # Errors
    /// The checkpoint is quantized in a way that the import does not read.
    pub(super) fn new(json: &'a Map<String, Value>) -> Result<Self, UnsupportedSetting> {
        let fields = Self { json };
        if let Some(settings) = fields.get("quantization_config") {
            let text = |key: &str| settings.get(key).and_then(Value::as_str).unwrap_or_default();
            let bits = settings.get("bits").and_then(Value::as_u64);
            let is_read = match text("quant_method") {
                "fp8" => true,
                "compressed-tensors" => text("format") == "float-quantized",
                "gptq" => {
                    let formats = ["", "gptq", "gptq_v2"];
                    matches!(bits, Some(2 | 4 | 8)) && formats.contains(&text("checkpoint_format"))
                }
                "awq" => {
                    matches!(bits, Some(4)) && ["", "gemm"].contains(&&text("version").to_lowercase()[..])
                }
                _ => false,
            };
            if !is_read {
                let supported = "a checkpoint of floats, of FP8 (quant_method fp8), of GPTQ with 2, 4 or 8 \
                                 bits, or of AWQ with 4 bits (version gemm)";
                return Err(UnsupportedSetting::new("quantization_config", settings, supported));
            }
        }
        Ok(fields)
    }

    /// A field, unless it is left out or `null`.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.json.get(field).filter(|value| !value.is_null())
    }

    /// Whether the file has a field, be it `null`.
    pub(super) fn is_present(&self, field: &str) -> bool {
        self.json.contains_key(field)
    }

    fn optional<T>(
        &self,
        field: &str,
        supported: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, UnsupportedSetting> {
        self.get(field)
            .map(|value| convert(value).ok_or_else(|| UnsupportedSetting::new(field, value, supported)))
            .transpose()
    }

    pub(super) fn optional_size(&self, field: &str) -> Result<Option<usize>, UnsupportedSetting> {
        self.optional(field, "a whole number", |value| usize::try_from(value.as_u64()?).ok())
    }

    pub(super) fn size(&self, field: &str) -> Result<usize, UnsupportedSetting> {
        self.optional_size(field)?.ok_or_else(|| UnsupportedSetting::new(field, &"missing", "a whole number"))
    }

    pub(super) fn optional_number(&self, field: &str) -> Result<Option<f64>, UnsupportedSetting> {
        self.optional(field, "a number", Value::as_f64)
    }

    /// A number above zero.
    pub(super) fn positive(&self, field: &str, default: f64) -> Result<f64, UnsupportedSetting> {
        let number = self.optional_number(field)?.unwrap_or(default);
        if number > 0.0 && number.is_finite() {
            return Ok(number);
        }
        Err(UnsupportedSetting::new(field, &number, "a positive number"))
    }

    pub(super) fn flag(&self, field: &str, default: bool) -> Result<bool, UnsupportedSetting> {
        Ok(self.optional(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// Refuses a field that must be absent.
    pub(super) fn must_be_absent(
        &self,
        field: &str,
        supported: &'static str,
    ) -> Result<(), UnsupportedSetting> {
        self.get(field).map_or(Ok(()), |value| Err(UnsupportedSetting::new(field, value, supported)))
    }

    /// Refuses a flag with another value; left out, it counts as having it.
    pub(super) fn must_be(&self, field: &str, wanted: bool) -> Result<(), UnsupportedSetting> {
        if self.flag(field, wanted)? == wanted {
            return Ok(());
        }
        Err(UnsupportedSetting::new(field, &!wanted, if wanted { "true" } else { "false" }))
    }

    /// Refuses a text that is not among `accepted`, which `supported` puts in words; left out, it counts as
    /// accepted.
    pub(super) fn must_be_one_of(
        &self,
        field: &str,
        accepted: &[&str],
        supported: &'static str,
    ) -> Result<(), UnsupportedSetting> {
        let accept = |value: &Value| accepted.contains(&value.as_str()?).then_some(());
        self.optional(field, supported, accept).map(|_| ())
    }

    pub(super) fn optional_token_id(&self, field: &str) -> Result<Option<u32>, UnsupportedSetting> {
        self.optional(field, "a token id", |value| u32::try_from(value.as_u64()?).ok())
    }

    /// One token id, or several.
    pub(super) fn token_ids(&self, field: &str) -> Result<Vec<u32>, UnsupportedSetting> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let ids = self.optional(field, "a token id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// Number type of the tensors, under either of the two names it has had.
    pub(super) fn dtype(&self) -> Result<WeightDtype, UnsupportedSetting> {
        for field in ["dtype", "torch_dtype"] {
            let read = |value: &Value| WeightDtype::deserialize(value).ok();
            if let Some(dtype) = self.optional(field, "float32, bfloat16 or float16", read)? {
                return Ok(dtype);
            }
        }
        Ok(WeightDtype::default())
    }
}

/// The beginning and the end of every family's file, with `fields` between.
pub(super) fn file(
    config: &super::ModelConfig,
    architecture: &str,
    fields: Vec<(&str, Value)>,
) -> Map<String, Value> {
    let eos_token_id = match config.eos_token_ids[..] {
        [] => Value::Null,
        [id] => id.into(),
        _ => config.eos_token_ids.clone().into(),
    };
    let begin = [
        ("architectures", Value::from(vec![architecture])),
        ("model_type", config.family().model_type().into()),
        ("vocab_size", config.vocab_size.into()),
    ];
    let end = [
        ("tie_word_embeddings", config.tie_word_embeddings.into()),
        ("bos_token_id", config.bos_token_id.into()),
        ("eos_token_id", eos_token_id),
        ("dtype", config.dtype.name().into()),
    ];
    let rules = config.output_rules.fields();
    begin
        .into_iter()
        .chain(fields)
        .chain(end)
        .chain(rules)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
