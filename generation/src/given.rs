//! A value as it comes in, before it is one option's value.

use std::fmt;

/// A value of a job file, a bundle, the wire or a flag.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// JSON's null: no value.
    Null,
    /// True or false.
    Truth(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number, also one that is not finite: the schema refuses that by name.
    Number(f64),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

impl Given {
    /// The meaning of a flag's value.
    #[must_use]
    pub fn of_flag(text: &str) -> Self {
        if let Ok(truth) = text.parse() {
            Self::Truth(truth)
        } else if let Ok(integer) = text.parse() {
            Self::Integer(integer)
        } else if let Ok(number) = text.parse() {
            Self::Number(number)
        } else {
            Self::Text(text.to_owned())
        }
    }
}

/// Short, for messages: `4`, `0.7`, `1e-40`, `"heuristic"`, `["a", "b"]`.
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Number(number) if *number == 0.0 || (1e-6..1e15).contains(&number.abs()) => {
                write!(f, "{number}")
            }
            Self::Number(number) if number.is_finite() => write!(f, "{number:e}"),
            Self::Number(number) => f.write_str(&number.to_string().to_lowercase()),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Texts(texts) => write!(f, "{texts:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_parsed_by_their_form() {
        let cases = [
            ("true", Given::Truth(true)),
            ("-1", Given::Integer(-1)),
            ("18446744073709551615", Given::Integer(u64::MAX.into())),
            ("-0.5", Given::Number(-0.5)),
            ("1e3", Given::Number(1000.0)),
            ("inf", Given::Number(f64::INFINITY)),
            ("never", Given::Text("never".into())),
            ("", Given::Text(String::new())),
        ];
        for (text, expected) in cases {
            assert_eq!(Given::of_flag(text), expected, "{text}");
        }
        assert!(matches!(Given::of_flag("NaN"), Given::Number(number) if number.is_nan()));
    }

    #[test]
    fn values_are_shown_short() {
        let shown = |text: &str| Given::of_flag(text).to_string();
        assert_eq!(
            ["6.0", "0.7", "1e-40", "1e30", "nan", "-inf", "never", "0.0"].map(shown),
            ["6", "0.7", "1e-40", "1e30", "nan", "-inf", "\"never\"", "0"]
        );
    }
}
