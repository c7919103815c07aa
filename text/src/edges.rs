//! The edges of a text: everything before and after the part that a model rewrites.

use std::sync::LazyLock;

use regex::Regex;

use crate::unit::{Unit, UnitKind};

/// A mark that numbers, lists or quotes a line at its beginning, with the white space after it.
static LINE_MARKER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(?:\[[ xX]\]|\[[0-9]{1,3}\]:?|[-*+•–—‣◦▪●○·▶]|#{1,6}|>+|\(?[0-9]{1,3}[.):]|[0-9]+(?:\.[0-9]+)+[.)]?",
        r"|\(?[a-zA-Z][)]|[a-z]\.|[A-Z]:|[ivx]{2,5}[.)]|[IVX]{2,5}[.)])[\s\u{a0}]+",
    ))
        .expect("the pattern is valid")
});

/// Signs that enclose a whole text.
const ENCLOSURES: [(&str, &str); 8] =
    [("\"", "\""), ("“", "”"), ("«", "»"), ("„", "“"), ("‘", "’"), ("(", ")"), ("[", "]"), ("'", "'")];

/// The bytes of `text` that are between its edges; `units` are those of the text. Empty if nothing is left
/// that has a letter outside units, terms aside.
pub(crate) fn core(text: &str, units: &[Unit]) -> std::ops::Range<usize> {
    let mut start = 0;
    let mut end = text.len();
    loop {
        let before = (start, end);
        let in_unit = |unit: &&Unit| start <= unit.range.start && unit.range.end <= end;
        let (mut inner, last) = (units.iter().filter(in_unit), units.iter().rfind(in_unit));
        let first_start = inner.next().map_or(end, |unit| unit.range.start);
        // a unit can begin or end with what looks like space
        let last_end = last.map_or(start, |unit| unit.range.end);
        (start, end) = (
            first_start.min(start + leading_space(&text[start..end])),
            last_end.max(end - trailing_space(&text[start..end])),
        );
        if let Some(marker) = LINE_MARKER.find(&text[start..end]) {
            start += marker.end();
        }
        let first = units.iter().find(|unit| unit.range.start == start && unit.range.end <= end);
        let last = units.iter().rev().find(|unit| unit.range.end == end && unit.range.start >= start);
        match (first, last) {
            (Some(first), Some(last)) if first.range != last.range && encloses(text, units, first, last) => {
                start = first.range.end;
                end = last.range.start;
            }
            _ => {
                if let Some(first) = first.filter(|unit| leads(text, unit, end)) {
                    start = first.range.end + separator(&text[first.range.end..end]);
                } else if let Some(last) = last.filter(|unit| trails(text, units, unit, start)) {
                    end = last.range.start;
                }
            }
        }
        for (open, close) in ENCLOSURES {
            let inner = text[start..end].strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
            let whole = inner.filter(|inner| !inner.contains(open) && !inner.contains(close));
            if whole.is_some_and(|inner| !inner.trim().is_empty()) {
                start += open.len();
                end -= close.len();
            }
        }
        if (start, end) == before || start >= end {
            break;
        }
    }
    let within =
        |place: usize| units.iter().any(|unit| unit.kind != UnitKind::Term && unit.range.contains(&place));
    let has_letter = start < end
        && text[start..end].char_indices().any(|(place, c)| c.is_alphabetic() && !within(start + place));
    if has_letter { start..end } else { 0..0 }
}

fn leading_space(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_space).len()
}

fn trailing_space(text: &str) -> usize {
    text.len() - text.trim_end_matches(is_space).len()
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || c.is_control() || crate::normal::is_invisible(c)
}

/// A colon or dash between a unit and the text after it.
fn separator(rest: &str) -> usize {
    let trimmed = rest.trim_start_matches(is_space);
    let is_one = trimmed.starts_with(": ") || trimmed.starts_with("- ") || trimmed.starts_with("– ");
    if is_one { rest.len() - trimmed.len() + trimmed.chars().next().map_or(0, char::len_utf8) } else { 0 }
}

/// Whether two units open and close a pair around all that is between them.
fn encloses(text: &str, units: &[Unit], first: &Unit, last: &Unit) -> bool {
    let (open, close) = (&text[first.range.clone()], &text[last.range.clone()]);
    if first.kind == UnitKind::Emphasis && close.starts_with(']') {
        let is_end =
            |unit: &&Unit| unit.kind == UnitKind::Emphasis && text[unit.range.clone()].starts_with(']');
        return open.ends_with('[') && units.iter().filter(is_end).count() == 1;
    }
    if first.kind == UnitKind::Emphasis {
        let count = units.iter().filter(|unit| &text[unit.range.clone()] == open).count();
        return open == close && count == 2;
    }
    let (Some(opened), Some(closed)) = (open_name(open), close_name(close)) else { return false };
    if opened != closed {
        return false;
    }
    let mut depth = 0_i32;
    for unit in
        units.iter().filter(|unit| unit.range.start >= first.range.start && unit.range.end <= last.range.end)
    {
        let tag = &text[unit.range.clone()];
        depth += i32::from(open_name(tag) == Some(opened)) - i32::from(close_name(tag) == Some(opened));
        if depth == 0 && unit.range != last.range {
            return false; // the pair ends before the text does
        }
    }
    depth == 0
}

/// Whether the unit at the beginning precedes the sentence and is not part of it.
fn leads(text: &str, unit: &Unit, end: usize) -> bool {
    let found = &text[unit.range.clone()];
    match unit.kind {
        UnitKind::Emoji | UnitKind::Sign => true,
        UnitKind::Tag => open_name(found).is_none() && close_name(found).is_none(),
        UnitKind::Emphasis | UnitKind::Script | UnitKind::Entity | UnitKind::Term => false,
        _ => separator(&text[unit.range.end..end]) > 0,
    }
}

/// Whether the unit at the end follows the sentence and is not part of it.
fn trails(text: &str, units: &[Unit], unit: &Unit, start: usize) -> bool {
    let found = &text[unit.range.clone()];
    let before = text[start..unit.range.start].trim_end_matches(is_space);
    match unit.kind {
        UnitKind::Emoji | UnitKind::Sign => true,
        UnitKind::Tag => {
            let is_single = open_name(found).is_none() && close_name(found).is_none();
            let opener = |other: &Unit| open_name(&text[other.range.clone()]) == close_name(found);
            let has_opener = units.iter().any(|other| {
                other.range.start >= start && other.range.end <= unit.range.start && opener(other)
            });
            is_single || !has_opener
        }
        UnitKind::Emphasis | UnitKind::Script | UnitKind::Entity | UnitKind::Term => false,
        _ => before.ends_with(':'),
    }
}

/// The name of a tag that opens an element; elements without content open none.
pub(crate) fn open_name(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix('<')?.strip_suffix('>')?;
    let name = inner.split(|c: char| c.is_whitespace() || c == '/').next()?;
    let is_void = matches!(
        name.to_ascii_lowercase().as_str(),
        "br" | "hr"
            | "img"
            | "input"
            | "wbr"
            | "meta"
            | "link"
            | "area"
            | "base"
            | "col"
            | "embed"
            | "source"
            | "track"
    );
    let opens = !name.is_empty() && !inner.starts_with(['/', '!']) && !inner.ends_with('/') && !is_void;
    opens.then_some(name)
}

/// The name of a tag that closes an element.
pub(crate) fn close_name(tag: &str) -> Option<&str> {
    tag.strip_prefix("</")?.strip_suffix('>').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::UnitFinder;

    fn core_of(text: &str) -> &str {
        let units = UnitFinder::new(&crate::TextOptions::default()).unwrap().find(text);
        &text[core(text, &units)]
    }

    #[test]
    fn signs_around_a_sentence_are_outside() {
        for around in [
            ("", ""),
            ("  ", "\n"),
            ("- ", ""),
            ("* ", ""),
            ("• ", ""),
            ("# ", ""),
            ("> ", ""),
            ("1) ", ""),
            ("12. ", ""),
            ("1.2. ", ""),
            ("IV. ", ""),
            ("[1] ", ""),
            ("Q: ", ""),
            ("[", "](https://example.org/)"),
            ("a) ", ""),
            ("[ ] ", ""),
            ("🎉 ", ""),
            ("", " 👍"),
            ("<p>", "</p>"),
            ("", "<br/>"),
            ("\"", "\""),
            ("(", ")"),
            ("**", "**"),
            ("{0}: ", ""),
            ("- [x] ", " ✓\n"),
            ("<p><b>", "</b></p>"),
        ] {
            let text = format!("{}A tool that reads mail.{}", around.0, around.1);
            assert_eq!(core_of(&text), "A tool that reads mail.", "{text:?}");
        }
    }

    #[test]
    fn signs_of_the_sentence_stay_in_it() {
        for text in [
            "{0} files were deleted.",
            "<b>A tool</b> reads <b>mail</b>",
            "A-team of 5.",
            "\"Yes\" and \"no\"",
            "I. Newton wrote it",
            "**Read** and **write**",
        ] {
            assert_eq!(core_of(text), text);
        }
    }

    #[test]
    fn text_without_a_letter_has_no_core() {
        for text in [
            "1,234.56",
            "12:30",
            "$19.99",
            "-----",
            "...",
            "(555) 123-4567",
            "😀😀",
            "✓",
            "1.",
            "@",
            "{}",
            "\"\"",
            "007",
            "²",
            "±5",
            "© 2024",
            "| 1 | 2 |",
            "https://example.org/a",
            "%s",
            "{name}",
            "",
        ] {
            assert_eq!(core_of(text), "", "{text:?}");
        }
    }
}
