//! Inline Markdown: the marks that open and close emphasis, and the parts around the text of a link.

use std::ops::Range;

/// The opening and the closing mark of a pair, bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) open: Range<usize>,
    pub(crate) close: Range<usize>,
}

/// Links and images: `[` or `![`, and the part after the text, `](target)` or `][name]`.
pub(crate) fn links(text: &str) -> Vec<Pair> {
    let bytes = text.as_bytes();
    let mut open: Vec<usize> = Vec::new();
    let mut pairs = Vec::new();
    let mut place = 0;
    while place < bytes.len() {
        let mut next = place + 1;
        match bytes[place] {
            b'\n' if bytes.get(place + 1) == Some(&b'\n') => open.clear(),
            b'[' => open.push(place),
            b']' => {
                let start = open.pop();
                if let Some((start, end)) = start.zip(end_of_target(text, place + 1)) {
                    let is_image = start > 0 && bytes[start - 1] == b'!';
                    let has_text = !text[start + 1..place].trim().is_empty();
                    let opening = start - usize::from(is_image)..start + 1;
                    pairs.extend(has_text.then_some(Pair { open: opening, close: place..end }));
                    next = end;
                }
            }
            _ => {}
        }
        place = next;
    }
    pairs
}

/// The end of `(target)` or `[name]` at `start`.
fn end_of_target(text: &str, start: usize) -> Option<usize> {
    let (open, close) = match text[start..].chars().next()? {
        '(' => ('(', ')'),
        '[' => ('[', ']'),
        _ => return None,
    };
    let mut depth = 0_usize;
    for (place, c) in text[start..].char_indices() {
        match c {
            '\n' => return None,
            c if c == open => depth += 1,
            c if c == close => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (place > 1).then_some(start + place + 1);
        }
    }
    None
}

/// A run of equal marks.
struct Marks {
    range: Range<usize>,
    opens: bool,
    closes: bool,
}

/// Emphasis: `*x*`, `**x**`, `***x***`, the same with `_`, `~~x~~`, `==x==`. Marks inside `taken` and marks
/// without a partner do not count. As in CommonMark, a mark opens before a word and closes after one, but
/// never within a word.
pub(crate) fn emphasis(text: &str, taken: impl Fn(&Range<usize>) -> bool) -> Vec<Pair> {
    let mut open: Vec<Marks> = Vec::new();
    let mut pairs: Vec<Pair> = Vec::new();
    for marks in runs(text).filter(|marks| !taken(&marks.range)) {
        let is_partner = |other: &Marks| text[other.range.clone()] == text[marks.range.clone()];
        if marks.closes
            && let Some(place) = open.iter().rposition(is_partner)
        {
            let opened = open.swap_remove(place);
            open.truncate(place); // what was opened within it is not closed
            pairs.push(Pair { open: opened.range, close: marks.range });
        } else if marks.opens {
            open.push(marks);
        }
    }
    pairs
}

fn runs(text: &str) -> impl Iterator<Item = Marks> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find(['*', '_', '~', '='])?;
            let sign = text[start..].chars().next()?;
            let len = text[start..].len() - text[start..].trim_start_matches(sign).len();
            at = start + len;
            let is_mark = match sign {
                '*' | '_' => len <= 3,
                _ => len == 2,
            };
            let before = text[..start].chars().next_back();
            let after = text[at..].chars().next();
            let is_space = |c: Option<char>| c.is_none_or(char::is_whitespace);
            let in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            let is_sign = |c: Option<char>| c.is_some_and(|c| !c.is_alphanumeric() && !c.is_whitespace());
            let is_inside_word = in_word(before) && in_word(after);
            if is_mark && !is_inside_word {
                let opens = !is_space(after) && (!is_sign(after) || is_space(before) || is_sign(before));
                let closes = !is_space(before) && (!is_sign(before) || is_space(after) || is_sign(after));
                return Some(Marks {
                    range: start..at,
                    opens: opens && !in_word(before),
                    closes: closes && !in_word(after),
                });
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(text: &str, pairs: Vec<Pair>) -> Vec<(&str, &str)> {
        pairs.into_iter().map(|pair| (&text[pair.open], &text[pair.close])).collect()
    }

    #[test]
    fn emphasis_comes_in_pairs_around_words() {
        fn found(text: &str) -> Vec<(&str, &str)> {
            marks(text, emphasis(text, |_| false))
        }
        for mark in ["*", "**", "***", "_", "__", "~~", "=="] {
            for text in ["a ? b", "?a? b", "a ?b c?.", "(?a?)", "a ?\"b\"? c"] {
                let text = match text.matches('?').count() {
                    1 => text.replace('?', &format!("{mark}x y{mark}")),
                    _ => text.replace('?', mark),
                };
                assert_eq!(found(&text), [(mark, mark)], "{text}");
            }
        }
        assert_eq!(found("**a *b* c**"), [("*", "*"), ("**", "**")]);
        for text in
            ["2 * 3 * 4", "snake_case_name", "a*b*c", "two ** stars", "a == b", "**a", "a* and *b", "* * *"]
        {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn links_are_the_parts_around_their_text() {
        let found = |text| marks(text, links(text));
        assert_eq!(
            found("See [the page](https://x.org/a_(b) \"t\")."),
            [("[", "](https://x.org/a_(b) \"t\")")]
        );
        assert_eq!(found("![a cat](a.png) and [b][1]"), [("![", "](a.png)"), ("[", "][1]")]);
        assert_eq!(found("[![x](a.png)](b)"), [("![", "](a.png)"), ("[", "](b)")]);
        for text in ["an [x] and (y)", "[](x)", "[x] (y)", "[x]()", "a[1]"] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
