//! Line breaks within a paragraph of Markdown: what comes between two lines, and where breaks go in a text
//! that takes the paragraph's place.

use std::ops::Range;

/// The bytes of a line break at the beginning of `text` that parts no paragraph: white space with one line
/// end, and the marks of quotes before the next line.
pub(crate) fn soft_break(text: &str) -> Option<usize> {
    let is_blank = |c: char| c == ' ' || c == '\t';
    let rest = text.trim_start_matches(is_blank);
    let rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'))?;
    let mut next = rest.trim_start_matches(is_blank);
    while let Some(inner) = next.strip_prefix('>') {
        next = inner.trim_start_matches(is_blank);
    }
    (!next.starts_with(['\n', '\r'])).then(|| text.len() - next.len())
}

/// A break of the source: its bytes, and the share of the text before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Break {
    pub(crate) text: String,
    pub(crate) share: f64,
}

/// Puts breaks into a text of one line, each in place of the space that is nearest to the same share of the
/// text. A break that fits nowhere is left out: inside a zone, or where the next line would begin a block.
pub(crate) fn wrapped(text: &str, breaks: &[Break], zones: &[Range<usize>]) -> String {
    let in_zone = |place: usize| zones.iter().any(|zone| zone.start < place && place < zone.end);
    let fits = |place: &usize| {
        let (before, after) = (&text[..*place], &text[place + 1..]);
        !in_zone(*place) && !before.ends_with([' ', '\\']) && !after.starts_with(' ') && !begins_block(after)
    };
    let spaces: Vec<usize> = text.match_indices(' ').map(|(place, _)| place).filter(fits).collect();
    let (mut wrapped, mut at, mut left) = (String::with_capacity(text.len() + 16), 0, &spaces[..]);
    for Break { text: between, share } in breaks {
        let wanted = (share * text.len() as f64) as usize;
        let nearest = (0..left.len()).min_by_key(|&number| left[number].abs_diff(wanted));
        let Some(number) = nearest else { break };
        wrapped.push_str(&text[at..left[number]]);
        wrapped.push_str(between);
        at = left[number] + 1;
        left = &left[number + 1..];
    }
    wrapped.push_str(&text[at..]);
    wrapped
}

/// Whether a line with this text would be more than the next line of a paragraph.
fn begins_block(line: &str) -> bool {
    let word = line.split(' ').next().unwrap_or_default();
    let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_number = digits.len() < word.len() && (digits.starts_with(['.', ')']) || digits.is_empty());
    word.starts_with(['-', '+', '*', '#', '>', '=', '|', '<', '`', '~', '_', ':', '[']) || is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_break_has_one_line_end_and_the_marks_after_it() {
        for (text, len) in [("\nx", 1), (" \n> x", 4), ("\r\n  > > x", 8), ("\n  x", 3)] {
            assert_eq!(soft_break(text), Some(len), "{text:?}");
        }
        for text in ["x", " x", "\n\nx", "\n>\n> x", ""] {
            assert_eq!(soft_break(text), None, "{text:?}");
        }
    }

    #[test]
    fn breaks_keep_their_share_and_begin_no_block() {
        let one = |share| vec![Break { text: "\n> ".to_owned(), share }];
        assert_eq!(wrapped("one two three four", &one(0.5), &[]), "one two\n> three four");
        assert_eq!(wrapped("one - 2. four", &one(0.4), &[]), "one - 2.\n> four");
        assert_eq!(wrapped("one two", &one(0.5), &[0..7]), "one two", "inside a unit");
        let two = [one(0.3), one(0.6)].concat();
        assert_eq!(wrapped("a b", &two, &[]), "a\n> b", "no place is left");
    }
}
