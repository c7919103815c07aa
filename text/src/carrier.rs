//! Carriers: words that replace units in a model's input, because the model may not be able to spell the
//! units.
//!
//! A model of any vocabulary reads and copies a short word with a capital and a number much like a name. It
//! may never have seen a placeholder, a link or a path. Amounts and identifiers stay visible, because the
//! sentence agrees with them; only signs beyond ASCII become plain.

use crate::unit::UnitKind;

/// The beginning of every carrier.
const CARRIER_LETTER: char = 'X';

/// Signs that a model may not be able to spell, and for which none of ASCII stands.
const CURRENCIES: [char; 7] = ['€', '£', '¥', '₹', '₽', '₩', '₺'];

/// Gives the units of one text their carriers; no carrier is a word of the text.
#[derive(Debug)]
pub(crate) struct Carriers<'a> {
    text: &'a str,
    number: usize,
}

impl<'a> Carriers<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Carriers { text, number: 0 }
    }

    /// The form in which a model sees a unit that is no term, and whether it is a carrier.
    pub(crate) fn seen(&mut self, unit: &str, kind: UnitKind) -> (String, bool) {
        let is_carried = kind.is_carried() || unit.contains(CURRENCIES);
        match is_carried {
            true => (self.next(), true),
            false => (unit.chars().map(plain_sign).collect(), false),
        }
    }

    /// The next carrier.
    pub(crate) fn next(&mut self) -> String {
        loop {
            self.number += 1;
            let carrier = format!("{CARRIER_LETTER}{}", self.number);
            if !self.text.contains(&carrier) {
                return carrier;
            }
        }
    }
}

/// The sign of ASCII with the same meaning for a model.
fn plain_sign(c: char) -> char {
    match c {
        '₀'..='₉' => digit(c, '₀'),
        '⁰' | '⁴'..='⁹' => digit(c, '⁰'),
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        'µ' | 'μ' => 'u',
        '−' => '-',
        '±' => '+',
        c if c.is_whitespace() => ' ',
        _ => c,
    }
}

fn digit(c: char, zero: char) -> char {
    char::from_digit(u32::from(c) - u32::from(zero), 10).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_are_new_words() {
        let mut carriers = Carriers::of("The X1 and the X3 open {a}.");
        assert_eq!(carriers.seen("{a}", UnitKind::Placeholder).0, "X2");
        assert_eq!(carriers.seen("/etc", UnitKind::Path).0, "X4");
    }

    #[test]
    fn amounts_and_identifiers_are_seen_plainly() {
        let seen = |unit, kind| Carriers::of("").seen(unit, kind).0;
        assert_eq!(seen("£5", UnitKind::Amount), "X1");
        assert_eq!(seen("−5 m²", UnitKind::Amount), "-5 m2");
        assert_eq!(seen("CO₂", UnitKind::Identifier), "CO2");
        assert_eq!(seen("x⁷", UnitKind::Identifier), "x7");
    }
}
