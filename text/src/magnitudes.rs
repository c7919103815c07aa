//! Words that multiply the number before them, so that "100 mil" is the number "100,000".

/// Words of several languages for a thousand and a million, with their zeros.
const WORDS: [(&str, usize); 24] = [
    ("thousand", 3),
    ("mil", 3),
    ("mille", 3),
    ("mila", 3),
    ("tausend", 3),
    ("duizend", 3),
    ("tusen", 3),
    ("tusind", 3),
    ("tysięcy", 3),
    ("tysiące", 3),
    ("тысяч", 3),
    ("тысячи", 3),
    ("million", 6),
    ("millions", 6),
    ("millionen", 6),
    ("milhão", 6),
    ("milhões", 6),
    ("millón", 6),
    ("millones", 6),
    ("milione", 6),
    ("milioni", 6),
    ("miljoen", 6),
    ("milionów", 6),
    ("миллионов", 6),
];

/// The digits of `number` times the word that begins `after`; `None` if no such word follows.
pub(crate) fn multiplied(number: &str, after: &str) -> Option<String> {
    let rest = after.strip_prefix([' ', '\u{a0}'])?;
    let word = rest.split(|c: char| !c.is_alphabetic()).next()?.to_lowercase();
    let zeros = WORDS.iter().find(|(name, _)| *name == word)?.1;
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    // "2,5 mil" has one decimal; "2.500 mil" has three digits after its separator, and none.
    let last = number.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let decimals = if last.len() < number.len() && last.len() < 3 { last.len() } else { 0 };
    Some(digits + &"0".repeat(zeros - decimals))
}

#[cfg(test)]
mod tests {
    use super::multiplied;

    #[test]
    fn a_word_after_a_number_multiplies_it() {
        let cases = [
            ("100", " mil pessoas", Some("100000")),
            ("2,5", " milhões", Some("2500000")),
            ("2.500", " mil", Some("2500000")),
            ("30", " Tausend", Some("30000")),
            ("100", " milhas", None),
            ("100", "mil", None),
            ("7", "", None),
        ];
        for (number, after, expected) in cases {
            assert_eq!(multiplied(number, after).as_deref(), expected, "{number}{after}");
        }
    }
}
