//! Halves of surrogate pairs in JSON strings: `\ud83d` alone is no character, and parsers report it in
//! unhelpful words.

/// The first half pair in a JSON text, as spelled, and its byte, from 0.
pub(crate) fn find_half_pair(json: &str) -> Option<(&str, usize)> {
    let bytes = json.as_bytes();
    let mut place = 0;
    while let Some(found) = bytes[place..].iter().position(|&byte| byte == b'\\') {
        let start = place + found;
        match unit_at(json, start) {
            Some(0xd800..=0xdbff) if matches!(unit_at(json, start + 6), Some(0xdc00..=0xdfff)) => {
                place = start + 12;
            }
            Some(0xd800..=0xdfff) => return Some((&json[start..start + 6], start)),
            Some(_) => place = start + 6,
            None => place = start + 2, // another escape
        }
        if place >= bytes.len() {
            break;
        }
    }
    None
}

/// The unit of the escape `\uXXXX` at `start`, if there is one.
fn unit_at(json: &str, start: usize) -> Option<u16> {
    let digits = json.get(start..start + 6)?.strip_prefix("\\u")?;
    let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_pairs_are_found_and_whole_ones_and_escaped_backslashes_are_not() {
        assert_eq!(find_half_pair(r#""a\ud83d""#), Some((r"\ud83d", 2)));
        assert_eq!(find_half_pair(r#""\ud83d\ude00\uDC00 é""#), Some((r"\uDC00", 13)));
        assert_eq!(find_half_pair(r#""\ud83dé""#), Some((r"\ud83d", 1)));
        for json in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\u00e9\n""#, r#""\ud8""#, "\"\\"] {
            assert_eq!(find_half_pair(json), None, "{json}");
        }
    }
}
