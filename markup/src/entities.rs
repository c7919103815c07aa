//! Character references of HTML: `&eacute;`, `&#233;`, `&#xE9;`.

/// The longest name of a character has 31 letters.
const MAX_NAME_BYTES: usize = 33;

/// A reference at the beginning of `text`: its length in bytes and its character. `None` for what is no
/// reference, and for the few that are several characters.
pub(crate) fn reference(text: &str) -> Option<(usize, char)> {
    let rest = text.strip_prefix('&')?;
    let end = rest.bytes().take(MAX_NAME_BYTES).position(|byte| byte == b';')?;
    let name = &rest[..end];
    let c = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?).filter(|c| *c != '\0')?
        }
        None => {
            let mut chars = quick_xml::escape::resolve_html5_entity(name)?.chars();
            chars.next().filter(|_| chars.next().is_none())?
        }
    };
    Some((end + 2, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_known_by_name_and_number() {
        for text in ["&eacute; x", "&#233;", "&#xE9;"] {
            assert_eq!(reference(text).unwrap().1, '\u{e9}', "{text}");
        }
        assert_eq!(reference("&nbsp;x"), Some((6, '\u{a0}')));
        for text in ["& b;", "&nothing;", "&eacute", "&#xFFFFFF;", "&#0;", "a&amp;", "&", "\u{e9}&"] {
            assert_eq!(reference(text), None, "{text}");
        }
    }
}
