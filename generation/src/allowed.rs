//! The values that an option may have.

use std::fmt;

use crate::Given;

/// The allowed values. Bounds are inclusive. No range contains infinities or NaN, so these are never allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allowed {
    /// True or false.
    Truth,
    /// Whole numbers. The largest number of 32 or 64 bits as the upper bound means no upper bound.
    Integers(u64, u64),
    /// Numbers.
    Numbers(f64, f64),
    /// One of these words.
    Names(&'static [&'static str]),
    /// A non-empty text.
    Text,
    /// A list of non-empty texts.
    Texts,
}

impl Allowed {
    /// Whether a value is of the right kind and in range.
    #[must_use]
    pub fn admits(&self, given: &Given) -> bool {
        match (self, given) {
            (Self::Truth, Given::Truth(_)) => true,
            (Self::Integers(least, most), Given::Integer(value)) => {
                (i128::from(*least)..=i128::from(*most)).contains(value)
            }
            (Self::Numbers(least, most), Given::Integer(value)) => {
                (*least..=*most).contains(&(*value as f64))
            }
            (Self::Numbers(least, most), Given::Number(value)) => (*least..=*most).contains(value),
            (Self::Names(names), Given::Text(name)) => names.contains(&name.as_str()),
            (Self::Text, Given::Text(text)) => !text.is_empty(),
            (Self::Texts, Given::Texts(texts)) => !texts.iter().any(String::is_empty),
            _ => false,
        }
    }
}

/// In words, as in `1 to 64` or `0 or more`.
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth => f.write_str("true or false"),
            Self::Integers(least, most) if [u64::from(u32::MAX), u64::MAX].contains(most) => {
                write!(f, "{least} or more")
            }
            Self::Integers(least, most) => write!(f, "{least} to {most}"),
            Self::Numbers(least, most) => write!(f, "{least} to {most}"),
            Self::Names(names) => f.write_str(&names.join(", ")),
            Self::Text => f.write_str("a non-empty string"),
            Self::Texts => f.write_str("non-empty strings"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_has_numbers_that_are_not_finite() {
        let all = Allowed::Numbers(f64::MIN, f64::MAX);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!all.admits(&Given::Number(value)));
        }
        assert!(all.admits(&Given::Number(-0.0)));
    }

    #[test]
    fn kinds_are_told_apart_but_a_whole_number_is_a_number_too() {
        assert!(Allowed::Numbers(0.0, 1.0).admits(&Given::Integer(1)));
        assert!(!Allowed::Integers(0, 9).admits(&Given::Number(1.0)));
        assert!(!Allowed::Integers(0, u64::MAX).admits(&Given::Integer(-1)));
        assert!(!Allowed::Truth.admits(&Given::Integer(1)));
        assert!(!Allowed::Texts.admits(&Given::Texts(vec!["a".into(), String::new()])));
    }

    #[test]
    fn ranges_are_said_in_words() {
        assert_eq!(Allowed::Integers(1, u64::from(u32::MAX)).to_string(), "1 or more");
        assert_eq!(Allowed::Numbers(1e-6, 1000.0).to_string(), "0.000001 to 1000");
    }
}
