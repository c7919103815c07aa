//! The byte between the cells of a table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One byte that is neither a quote nor part of a line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Separator(u8);

/// A text is no [`Separator`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no separator; use one ASCII character, such as `;` or `|`, or `tab`")]
pub struct InvalidSeparator(String);

impl Separator {
    /// Of CSV.
    pub const COMMA: Separator = Separator(b',');
    /// Of TSV.
    pub const TAB: Separator = Separator(b'\t');

    /// The byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        self.0
    }

    pub(crate) fn of_byte(byte: u8) -> Option<Separator> {
        (byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0)).then_some(Separator(byte))
    }
}

impl FromStr for Separator {
    type Err = InvalidSeparator;

    fn from_str(text: &str) -> Result<Separator, InvalidSeparator> {
        let invalid = || InvalidSeparator(text.to_owned());
        match text {
            "tab" | "\\t" => Ok(Separator::TAB),
            _ => match text.as_bytes() {
                [byte] => Separator::of_byte(*byte).ok_or_else(invalid),
                _ => Err(invalid()),
            },
        }
    }
}

impl fmt::Display for Separator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b'\t' => f.write_str("tab"),
            byte => write!(f, "{}", char::from(byte)),
        }
    }
}

impl Serialize for Separator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Separator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Separator, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_is_one_ascii_character_or_a_tab_by_name() {
        for (text, byte) in [(";", b';'), ("|", b'|'), ("tab", b'\t'), ("\\t", b'\t'), ("\t", b'\t')] {
            let separator: Separator = text.parse().unwrap();
            assert_eq!(separator.byte(), byte);
            assert_eq!(separator.to_string().parse(), Ok(separator));
        }
        for text in ["", "\"", "\n", ";;", "é"] {
            assert!(text.parse::<Separator>().is_err(), "{text:?}");
        }
    }
}
