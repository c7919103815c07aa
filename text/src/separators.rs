//! The separators of numbers in a language: between groups of three digits, and before decimals.

use crate::code::language_of_code;

/// How a language writes numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Separators {
    group: char,
    decimal: char,
}

const ENGLISH: Separators = Separators { group: ',', decimal: '.' };
const POINTS: Separators = Separators { group: '.', decimal: ',' };
/// Groups are parted by a space that breaks no line.
const SPACES: Separators = Separators { group: '\u{a0}', decimal: ',' };

impl Separators {
    /// Those of a language, a code such as `pt_BR`.
    pub(crate) fn of_language(code: &str) -> Self {
        match language_of_code(code) {
            "ca" | "da" | "de" | "el" | "es" | "gl" | "hr" | "id" | "is" | "it" | "nl" | "pt" | "ro"
            | "sl" | "sr" | "tr" | "vi" => POINTS,
            "be" | "bg" | "cs" | "et" | "fi" | "fr" | "hu" | "lt" | "lv" | "nb" | "nn" | "no" | "pl"
            | "ru" | "sk" | "sv" | "uk" => SPACES,
            _ => ENGLISH,
        }
    }

    /// A number of this language as `other` writes it; unchanged if it is not certain which number it is.
    pub(crate) fn rewritten(self, number: &str, other: Self) -> String {
        let (whole, decimals) = match number.split_once(self.decimal) {
            Some((whole, decimals)) => (whole, Some(decimals)),
            None => (number, None),
        };
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let groups: Vec<&str> = whole.split(self.group).collect();
        let is_first_whole = groups.len() == 1 || groups[0].len() <= 3;
        let is_number = groups.iter().all(|group| is_digits(group))
            && is_first_whole
            && groups[1..].iter().all(|group| group.len() == 3)
            && decimals.is_none_or(is_digits);
        if !is_number {
            return number.to_owned();
        }
        let mut rewritten = groups.join(other.group.encode_utf8(&mut [0; 4]));
        if let Some(decimals) = decimals {
            rewritten.push(other.decimal);
            rewritten += decimals;
        }
        rewritten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rewritten_for_another_language() {
        let rewritten =
            |number, from, to| Separators::of_language(from).rewritten(number, Separators::of_language(to));
        assert_eq!(rewritten("1,234,567.5", "en", "pt_BR"), "1.234.567,5");
        assert_eq!(rewritten("1,234", "en", "fr"), "1\u{a0}234");
        assert_eq!(rewritten("1.234,5", "de", "en"), "1,234.5");
        assert_eq!(rewritten("3.14", "en", "it"), "3,14");
        for number in ["2024", "1,23", "1,234.5.6", "1'000"] {
            assert_eq!(rewritten(number, "en", "it"), number);
        }
    }
}
