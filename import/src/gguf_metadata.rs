//! Typed access to the metadata of a GGUF file; every error names the file and the key.

use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};

use crate::ImportError;

/// The key-value header of a GGUF file.
pub(super) struct GgufMetadata<'c> {
    path: PathBuf,
    content: &'c Content,
}

impl<'c> GgufMetadata<'c> {
    pub(super) fn new(path: &Path, content: &'c Content) -> Self {
        Self { path: path.to_owned(), content }
    }

    /// An error about the value of `key`; `problem` continues the sentence "metadata `key` ...".
    pub(super) fn problem(&self, key: &str, problem: impl Into<String>) -> ImportError {
        ImportError::GgufMetadata { path: self.path.clone(), key: key.to_owned(), problem: problem.into() }
    }

    pub(super) fn optional_unsigned(&self, key: &str) -> Result<Option<usize>, ImportError> {
        self.optional(key, "an unsigned number", |value| match value {
            Value::I32(number) => usize::try_from(*number).ok(),
            Value::I64(number) => usize::try_from(*number).ok(),
            other => other.to_u64().ok().and_then(|number| usize::try_from(number).ok()),
        })
    }

    pub(super) fn unsigned(&self, key: &str) -> Result<usize, ImportError> {
        self.required(key, self.optional_unsigned(key)?)
    }

    /// A token id, if the file names one.
    pub(super) fn optional_token_id(&self, key: &str) -> Result<Option<u32>, ImportError> {
        let id = self.optional_unsigned(key)?;
        id.map(|id| u32::try_from(id).map_err(|_| self.problem(key, "is not a token id"))).transpose()
    }

    /// A number stored as f32. It becomes the f64 with the same shortest decimal digits (1e-5, not
    /// 9.999999747378752e-6). The checkpoint's author wrote those digits, and they round to the same f32.
    pub(super) fn optional_float(&self, key: &str) -> Result<Option<f64>, ImportError> {
        self.optional(key, "a number", |value| match value {
            Value::F32(number) => number.to_string().parse().ok(),
            other => other.to_f64().ok(),
        })
    }

    pub(super) fn float(&self, key: &str) -> Result<f64, ImportError> {
        self.required(key, self.optional_float(key)?)
    }

    pub(super) fn optional_bool(&self, key: &str) -> Result<Option<bool>, ImportError> {
        self.optional(key, "true or false", |value| value.to_bool().ok())
    }

    pub(super) fn optional_string(&self, key: &str) -> Result<Option<&'c str>, ImportError> {
        self.optional(key, "a string", |value| value.to_string().ok().map(String::as_str))
    }

    pub(super) fn string(&self, key: &str) -> Result<&'c str, ImportError> {
        self.required(key, self.optional_string(key)?)
    }

    pub(super) fn strings(&self, key: &str) -> Result<Vec<&'c str>, ImportError> {
        let strings = self.optional(key, "a list of strings", |value| {
            value.to_vec().ok()?.iter().map(|item| item.to_string().ok().map(String::as_str)).collect()
        })?;
        self.required(key, strings)
    }

    pub(super) fn integers(&self, key: &str) -> Result<Vec<i64>, ImportError> {
        let integers = self.optional(key, "a list of integers", |value| {
            value.to_vec().ok()?.iter().map(as_integer).collect()
        })?;
        self.required(key, integers)
    }

    pub(super) fn floats(&self, key: &str) -> Result<Vec<f32>, ImportError> {
        let floats = self.optional(key, "a list of numbers", |value| {
            value.to_vec().ok()?.iter().map(|item| item.to_f32().ok()).collect()
        })?;
        self.required(key, floats)
    }

    fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'c Value) -> Option<T>,
    ) -> Result<Option<T>, ImportError> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.problem(key, format!("is not {expected}"))),
            },
        }
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, ImportError> {
        value.ok_or_else(|| self.problem(key, "is missing"))
    }
}

fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::I8(number) => Some(i64::from(*number)),
        Value::I16(number) => Some(i64::from(*number)),
        Value::I32(number) => Some(i64::from(*number)),
        Value::I64(number) => Some(*number),
        other => other.to_u64().ok().and_then(|number| i64::try_from(number).ok()),
    }
}
