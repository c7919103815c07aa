//! The attributes of a tag: where their values are, and which are texts.

use std::ops::Range;

/// Attributes that people read, whatever their element.
const TEXTS: [&str; 5] = ["alt", "aria-label", "aria-description", "placeholder", "title"];

/// Names and properties of a `meta` whose content people read.
const DESCRIPTIONS: [&str; 6] =
    ["description", "og:description", "og:title", "og:image:alt", "twitter:description", "twitter:title"];

/// An attribute with a quoted value, bytes of the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Quoted {
    name: Range<usize>,
    /// Without its quotes.
    value: Range<usize>,
}

/// The quoted attributes of a tag, `<name a="b" c='d'>`.
fn quoted(tag: &str) -> Vec<Quoted> {
    let bytes = tag.as_bytes();
    let is_space = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_whitespace);
    let is_end = |at: usize| bytes.get(at).is_none_or(|byte| matches!(byte, b'>' | b'/'));
    let skip = |from: usize, is_skipped: &dyn Fn(usize) -> bool| {
        (from..bytes.len()).find(|&at| !is_skipped(at)).unwrap_or(bytes.len())
    };
    let mut found = Vec::new();
    let mut at = skip(1, &|at| !is_space(at) && !is_end(at)); // behind the element's name
    while at < bytes.len() {
        at = skip(at, &|at| is_space(at) || bytes[at] == b'/');
        let start = at;
        at = skip(at, &|at| !is_space(at) && !is_end(at) && bytes[at] != b'=');
        let name = start..at;
        let equals = skip(at, &is_space);
        if bytes.get(equals) != Some(&b'=') {
            at = at.max(start + 1);
            continue;
        }
        at = skip(equals + 1, &is_space);
        match bytes.get(at) {
            Some(quote @ (b'"' | b'\'')) => {
                let end = skip(at + 1, &|at| bytes[at] != *quote);
                if end < bytes.len() {
                    found.push(Quoted { name, value: at + 1..end });
                }
                at = end + 1;
            }
            _ => at = skip(at, &|at| !is_space(at) && bytes[at] != b'>'),
        }
    }
    found
}

/// The value of an attribute.
fn value<'t>(tag: &'t str, attributes: &[Quoted], name: &str) -> Option<&'t str> {
    let it = attributes.iter().find(|attribute| tag[attribute.name.clone()].eq_ignore_ascii_case(name))?;
    Some(&tag[it.value.clone()])
}

/// The values of a tag that are texts with a letter, bytes of the tag; `element` is its name.
pub(crate) fn texts(tag: &str, element: &str) -> Vec<Range<usize>> {
    let attributes = quoted(tag);
    let is_description = element == "meta"
        && ["name", "property"]
            .into_iter()
            .filter_map(|name| value(tag, &attributes, name))
            .any(|name| DESCRIPTIONS.iter().any(|known| name.eq_ignore_ascii_case(known)));
    let is_text = |attribute: &&Quoted| {
        let name = tag[attribute.name.clone()].to_ascii_lowercase();
        let is_read = TEXTS.contains(&name.as_str()) || name == "content" && is_description;
        is_read && tag[attribute.value.clone()].contains(char::is_alphabetic)
    };
    attributes.iter().filter(is_text).map(|attribute| attribute.value.clone()).collect()
}

/// Whether a tag says that its content must not be translated.
pub(crate) fn is_not_translated(tag: &str) -> bool {
    let attributes = quoted(tag);
    let says_no = value(tag, &attributes, "translate").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    let classes = value(tag, &attributes, "class").unwrap_or_default();
    says_no
        || classes.split_ascii_whitespace().any(|class| class == "notranslate")
        || tag.to_ascii_lowercase().contains(" translate=no")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_tags_are_found_whatever_their_spelling() {
        let found = |tag: &'static str, element| -> Vec<&str> {
            texts(tag, element).into_iter().map(|range| &tag[range]).collect()
        };
        assert_eq!(found("<img src=\"a.png\" alt=\"A cat\">", "img"), ["A cat"]);
        assert_eq!(found("<a TITLE = 'a > b' href=x aria-label=\"C\"/>", "a"), ["a > b", "C"]);
        assert_eq!(found("<meta name=\"description\" content=\"A page\">", "meta"), ["A page"]);
        for tag in [
            "<meta name=\"viewport\" content=\"width\">",
            "<img alt=\"\" title=\"1\">",
            "<img alt=cat>",
            "<a data-title=\"x\">",
            "<a",
            "<a title=\"x",
            "</p>",
        ] {
            assert_eq!(found(tag, "meta"), [""; 0], "{tag}");
        }
    }

    #[test]
    fn tags_say_what_is_not_translated() {
        for tag in ["<b translate=\"no\">", "<p translate=no>", "<i class='x notranslate'>"] {
            assert!(is_not_translated(tag), "{tag}");
        }
        assert!(!is_not_translated("<b translate=\"yes\" class=\"notranslated\">"));
    }
}
