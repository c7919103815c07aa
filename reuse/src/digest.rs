//! A hash over named fields of any length: no two lists of fields have the same bytes.

use sha2::{Digest, Sha256};

/// The hash under way.
#[derive(Debug, Clone)]
pub(crate) struct Fields(Sha256);

impl Fields {
    /// Begins with the purpose, so that hashes for different purposes differ.
    pub(crate) fn of(purpose: &str) -> Self {
        Self(Sha256::new()).with(purpose.as_bytes())
    }

    /// Adds a field.
    #[must_use]
    pub(crate) fn with(mut self, field: &[u8]) -> Self {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    /// Adds a number.
    #[must_use]
    pub(crate) fn with_number(self, number: u64) -> Self {
        self.with(&number.to_le_bytes())
    }

    /// Adds a field that may be absent.
    #[must_use]
    pub(crate) fn with_any(self, field: Option<&[u8]>) -> Self {
        match field {
            None => self.with_number(0),
            Some(field) => self.with_number(1).with(field),
        }
    }

    /// The first 16 bytes: even among 2^40 names, two are equal by accident with a probability of 2^-49.
    pub(crate) fn name(self) -> [u8; 16] {
        let hash = self.0.finalize();
        std::array::from_fn(|place| hash[place])
    }
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of `digits`, if they are as many and in lower case.
pub(crate) fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let is_lower = digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
    if digits.len() != 2 * N || !is_lower {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_be_shifted_into_each_other() {
        let names = [
            Fields::of("a").with(b"bc").with(b"d").name(),
            Fields::of("a").with(b"b").with(b"cd").name(),
            Fields::of("a").with(b"bcd").name(),
            Fields::of("ab").with(b"c").with(b"d").name(),
            Fields::of("a").with(b"bc").with_any(Some(b"d")).name(),
            Fields::of("a").with(b"bc").with_any(None).name(),
        ];
        for (place, name) in names.iter().enumerate() {
            assert!(!names[..place].contains(name), "{place}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_read_as_they_are_written() {
        let bytes: [u8; 16] = std::array::from_fn(|place| (place * 17) as u8);
        assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        for digits in ["", "00", &hex(&bytes).to_uppercase(), &format!("{}0", hex(&bytes)), &"+1".repeat(16)]
        {
            assert_eq!(from_hex::<16>(digits), None, "{digits}");
        }
    }
}
