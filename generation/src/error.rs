//! Why an option is refused.

/// A value that an option may not have, by itself or beside the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`generation.{option}` is {value}; allowed: {allowed}")]
pub struct OptionError {
    /// The option's name.
    pub option: &'static str,
    /// The value found, in quotes if it is a text.
    pub value: String,
    /// The allowed values, in words.
    pub allowed: String,
}
