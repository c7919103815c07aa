//! Plain words, in which no unit can begin. The search for units passes over them without the pattern, which
//! takes microseconds a word.

/// Letters of codes of currencies, such as "USD 5".
const CODE_LEN: usize = 3;

/// The end of the plain words that begin at `at`: a word there, or the first character that may begin a unit.
/// `at` is where the search goes on: the beginning of the text, or the end of a unit or of a word.
pub(crate) fn after_plain_words(text: &str, mut at: usize) -> usize {
    loop {
        let start = match at {
            0 if !text.starts_with(is_separator) => 0,
            _ => match len_of_separator(&text[at..]) {
                None => return at,
                Some(len) => at + len,
            },
        };
        let rest = &text[start..];
        if rest.is_empty() {
            return text.len();
        }
        let len = rest.find(|c| !is_letter(c)).unwrap_or(rest.len());
        let is_code = len == CODE_LEN && rest[..len].bytes().all(|byte| byte.is_ascii_uppercase());
        if is_code || len_of_separator(&rest[len..]).is_none() {
            return start;
        }
        at = start + len;
    }
}

fn is_separator(c: char) -> bool {
    " ,;.:!?".contains(c)
}

/// Bytes of a space, perhaps with a sign before it; or of what is left of the text, if that is a sign or
/// nothing. A sign before anything else may be part of a unit.
fn len_of_separator(text: &str) -> Option<usize> {
    let rest = text.strip_prefix([',', ';', '.', ':', '!', '?']).unwrap_or(text);
    let num_spaces = rest.len() - rest.trim_start_matches(' ').len();
    (num_spaces > 0 || rest.is_empty()).then_some(text.len() - rest.len() + num_spaces)
}

/// Letters of the scripts in which no letter is also a sign.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || ('\u{C0}'..'\u{530}').contains(&c) && c.is_alphabetic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_end_where_a_unit_may_begin() {
        for (text, rest) in [
            ("", ""),
            ("A word, and another one.", ""),
            ("It costs USD 5", "USD 5"),
            ("The file a.txt", "a.txt"),
            ("It is 5 %", "5 %"),
            ("Où est-il?", "est-il?"),
            ("See: /etc", "/etc"),
            ("Wait... what", "Wait... what"),
            ("one  two", ""),
            ("Run it\nnow", "it\nnow"),
            (" .x", ".x"),
        ] {
            assert_eq!(&text[after_plain_words(text, 0)..], rest, "{text:?}");
        }
        let text = "x_1, and so on %s";
        assert_eq!(&text[after_plain_words(text, 3)..], "%s");
        assert_eq!(after_plain_words("x_1y z", 3), 3, "within a word");
    }
}
