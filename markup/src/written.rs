//! One part of a document as plain text with tags, and the text in its place as markup again.
//!
//! References such as `&eacute;`, and Markdown's escapes such as `\*`, become the characters that they stand
//! for; breaks within a paragraph become spaces. The text in the part's place gets the same forms back: as
//! often as the source has them, or everywhere if the source has no other form. A text that did not change
//! therefore becomes its source again, byte for byte.

use std::collections::HashMap;
use std::ops::Range;

use crate::breaks::{Break, soft_break, wrapped};
use crate::entities::reference;
use crate::{Markup, html};

/// A part of a document, without its forms of writing.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The plain text, with the tags of the source.
    pub text: String,
    /// For each byte of `text`, the byte of the source at which its character begins, and the source's end.
    pub origins: Vec<u32>,
    /// The bytes of `text` that are markup, in order.
    pub verbatim: Vec<Verbatim>,
    markup: Markup,
    /// How the source writes characters that are not always written plainly, in order; `None` is plainly.
    forms: HashMap<char, Vec<Option<String>>>,
    breaks: Vec<Break>,
}

/// Bytes that come back as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verbatim {
    /// Bytes of the plain text.
    pub range: Range<usize>,
    /// Whether it is an element with its content, as opposed to a tag.
    pub is_element: bool,
}

impl Written {
    /// Of a part of a document.
    #[must_use]
    pub fn of(source: &str, markup: Markup) -> Self {
        let mut written = Written {
            text: String::with_capacity(source.len()),
            origins: Vec::with_capacity(source.len() + 1),
            verbatim: Vec::new(),
            markup,
            forms: HashMap::new(),
            breaks: Vec::new(),
        };
        let zones = if markup == Markup::Html { html::verbatim(source) } else { Vec::new() };
        let mut zones = zones.into_iter().peekable();
        let mut at = 0;
        while at < source.len() {
            let rest = &source[at..];
            if let Some((range, is_element)) = zones.next_if(|(range, _)| range.start == at) {
                written.keep(&source[range.clone()], at, is_element);
                at = range.end;
            } else if let Some(len) = escaped_tag(rest, markup) {
                written.keep(&rest[..len], at, true);
                at += len;
            } else {
                at += written.take(source, at);
            }
        }
        let end = u32::try_from(source.len()).unwrap_or(u32::MAX); // texts are limited far below
        written.origins.push(end);
        let len = written.text.len().max(1) as f64;
        written.breaks.iter_mut().for_each(|one| one.share /= len);
        let is_plain = |forms: &[Option<String>]| forms.iter().all(Option::is_none);
        written.forms.retain(|c, forms| matches!(c, '<' | '>' | '&') || !is_plain(forms));
        written
    }

    /// Takes one character, reference or break of the source; returns its bytes.
    fn take(&mut self, source: &str, at: usize) -> usize {
        let rest = &source[at..];
        let is_markdown = self.markup == Markup::Markdown;
        if is_markdown && let Some(len) = soft_break(rest) {
            self.breaks.push(Break { text: rest[..len].to_owned(), share: self.text.len() as f64 });
            self.push(' ', at);
            return len;
        }
        if let Some((len, c)) = reference(rest) {
            if is_decoded(c, &rest[len..], self.markup) {
                self.push(c, at);
                self.forms.entry(c).or_default().push(Some(rest[..len].to_owned()));
                return len;
            }
            for (place, c) in rest[..len].char_indices() {
                self.push(c, at + place); // a unit
            }
            return len;
        }
        let mut chars = rest.chars();
        let first = chars.next().expect("something is left");
        if is_markdown
            && first == '\\'
            && let Some(c) = chars.next().filter(|c| "*_[]()#+-.!|~<>".contains(*c))
        {
            self.push(c, at);
            self.forms.entry(c).or_default().push(Some(rest[..2].to_owned()));
            return 2;
        }
        self.push(first, at);
        self.forms.entry(first).or_default().push(None);
        first.len_utf8()
    }

    fn push(&mut self, c: char, origin: usize) {
        self.text.push(c);
        self.origins.resize(self.text.len(), u32::try_from(origin).unwrap_or(u32::MAX));
    }

    fn keep(&mut self, markup: &str, at: usize, is_element: bool) {
        let start = self.text.len();
        for (place, c) in markup.char_indices() {
            self.push(c, at + place);
        }
        self.verbatim.push(Verbatim { range: start..self.text.len(), is_element });
    }

    /// A text in the place of this one, as markup. `units`: its bytes that no break may part.
    #[must_use]
    pub fn back(&self, text: &str, units: &[Range<usize>]) -> String {
        if self.markup == Markup::None {
            return text.to_owned();
        }
        let text = &wrapped(text, &self.breaks, units)[..];
        let kept: Vec<&str> = self.verbatim.iter().map(|it| &self.text[it.range.clone()]).collect();
        let starts_kept =
            |rest: &str| kept.iter().filter(|kept| rest.starts_with(**kept)).map(|kept| kept.len()).max();
        let is_whole_reference = |rest: &str| {
            let (len, c) = reference(rest)?;
            let is_unit = !is_decoded(c, &rest[len..], self.markup) && self.text.contains(&rest[..len]);
            is_unit.then_some(len)
        };
        let (mut pieces, mut at) = (Vec::new(), 0); // plain characters, and what stays
        while at < text.len() {
            let rest = &text[at..];
            let first = rest.chars().next().expect("something is left");
            let len = match first {
                '<' => starts_kept(rest),
                '&' => starts_kept(rest).or_else(|| is_whole_reference(rest)),
                _ => None,
            };
            pieces.push((at..at + len.unwrap_or(first.len_utf8()), len.is_none().then_some(first)));
            at += len.unwrap_or(first.len_utf8());
        }
        let mut counts: HashMap<char, usize> = HashMap::new();
        for c in pieces.iter().filter_map(|(_, c)| *c) {
            *counts.entry(c).or_default() += 1;
        }
        let mut seen: HashMap<char, usize> = HashMap::new();
        let (mut back, mut has_open_quote) = (String::with_capacity(text.len() + 16), false);
        for (range, c) in pieces {
            let Some(c) = c else {
                back.push_str(&text[range]);
                continue;
            };
            let number = seen.entry(c).or_default();
            let form = self.form(c, *number, counts[&c]);
            *number += 1;
            let form = match form {
                Form::Unknown => self.safe(c, &mut has_open_quote),
                Form::Plain => None,
                Form::As(form) => Some(form),
            };
            match form {
                Some(form) => back.push_str(form),
                None => back.push(c),
            }
        }
        back
    }

    /// How the source writes a character, the one of this number among `count`.
    fn form(&self, c: char, number: usize, count: usize) -> Form<'_> {
        let Some(forms) = self.forms.get(&c) else { return Form::Unknown };
        let form = match forms.len() == count {
            true => forms[number].as_deref(),
            false if forms.iter().all(Option::is_some) => forms[0].as_deref(),
            false if matches!(c, '<' | '&') => return Form::Unknown,
            false => None,
        };
        form.map_or(Form::Plain, Form::As)
    }

    /// A character in a form that is no markup, if it might be some and the source has none of it. Quotes
    /// might end an attribute.
    fn safe(&self, c: char, has_open_quote: &mut bool) -> Option<&'static str> {
        match (c, self.markup) {
            ('&', Markup::Html) => Some("&amp;"),
            ('<', Markup::Html) => Some("&lt;"),
            ('>', Markup::Html) => Some("&gt;"),
            ('\'', _) if !self.text.contains('\'') => Some("’"),
            ('"', _) if !self.text.contains('"') => {
                *has_open_quote = !*has_open_quote;
                Some(if *has_open_quote { "“" } else { "”" })
            }
            _ => None,
        }
    }
}

/// How a character is written.
enum Form<'w> {
    As(&'w str),
    Plain,
    /// The source does not tell.
    Unknown,
}

/// The length of a tag in references, `&lt;b&gt;`, at the beginning of `text`: the text speaks of a tag.
fn escaped_tag(text: &str, markup: Markup) -> Option<usize> {
    let inner = text.strip_prefix("&lt;").filter(|_| markup != Markup::None)?;
    let begins = inner.strip_prefix('/').unwrap_or(inner).starts_with(|c: char| c.is_ascii_alphabetic());
    let end = inner.find("&gt;").filter(|end| begins && !inner[..*end].contains(['<', '>', '\n']))?;
    Some("&lt;".len() + end + "&gt;".len())
}

/// Whether a reference becomes its character: not if that, with the text `after` it, would be markup, or if
/// nobody would see it.
fn is_decoded(c: char, after: &str, markup: Markup) -> bool {
    match c {
        '<' => {
            markup == Markup::Html
                && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || "/!?".contains(c))
        }
        '&' => {
            let name = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '#');
            markup == Markup::Html && !(name.starts_with(';') && name.len() < after.len())
        }
        '>' => markup == Markup::Html,
        c => markup != Markup::None && !c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(source: &str, markup: Markup) -> String {
        let written = Written::of(source, markup);
        assert_eq!(written.origins.len(), written.text.len() + 1);
        written.text
    }

    #[test]
    fn references_become_characters_and_tags_stay() {
        for (source, text) in [
            ("Caf&eacute; &amp; <b title=\"&quot;\">tea</b>", "Café & <b title=\"&quot;\">tea</b>"),
            ("AT&amp;T, 1 &lt; 2, &lt;b&gt; &amp;amp;", "AT&T, 1 < 2, &lt;b&gt; &amp;amp;"),
            ("<code>a &amp; b</code> &#8220;c&#8221;", "<code>a &amp; b</code> “c”"),
        ] {
            assert_eq!(plain(source, Markup::Html), text);
        }
        assert_eq!(plain("a\n> b \\*c\\* &lt;", Markup::Markdown), "a b *c* &lt;");
        assert_eq!(plain("a &amp; b", Markup::None), "a &amp; b");
    }

    #[test]
    fn another_text_gets_the_same_forms() {
        let html = Written::of("Caf&eacute; &amp; <b>tea</b> &lt;i&gt;", Markup::Html);
        assert_eq!(
            html.back("é é & <b>x</b> < y > &lt;i&gt;", &[]),
            "&eacute; &eacute; &amp; <b>x</b> &lt; y &gt; &lt;i&gt;"
        );
        assert_eq!(html.back("l'a \"b\"", &[]), "l’a “b”", "no quote can end an attribute");
        let mixed = Written::of("é &eacute;", Markup::Html);
        assert_eq!((mixed.back("x é é", &[]), mixed.back("é", &[])), ("x é &eacute;".into(), "é".into()));
        let markdown = Written::of("one two\n> three four 2 \\* 3", Markup::Markdown);
        assert_eq!(markdown.back("um dois três quatro 2 * 3", &[]), "um dois\n> três quatro 2 \\* 3");
    }

    proptest! {
        #[test]
        fn what_does_not_change_is_written_as_it_was(
            source in "([a-c <>&;\"'#/]|<b>|</b>|&amp;|&lt;|&gt;|&eacute;|é|&quot;|\n|> |\\\\[*]|<code>|\
                </code>){0,24}"
        ) {
            for markup in Markup::ALL {
                let written = Written::of(&source, markup);
                prop_assert_eq!(written.origins.len(), written.text.len() + 1);
                if markup == Markup::Html {
                    prop_assert_eq!(written.back(&written.text, &[]), source.clone());
                }
            }
        }
    }
}
