//! HTML: the tags of a document, and the texts between block elements.

use std::ops::Range;

use html5gum::Tokenizer;
use html5gum::emitters::default::{DefaultEmitter, Token};

use crate::attributes::{is_not_translated, texts};
use crate::elements::{is_inline, is_protected, is_void};
use crate::entities::reference;
use crate::run::{Attribute, Run, Zone, outermost};

/// A tag, a comment or a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Bytes of the document, from `<` to `>`.
    pub(crate) range: Range<usize>,
    /// In small letters; empty for comments and declarations.
    pub(crate) name: String,
    pub(crate) kind: TagKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagKind {
    Opens,
    Closes,
    /// An element without content.
    Alone,
    Comment,
    Declaration,
}

/// The tags of a document, in order.
pub(crate) fn tags(document: &str) -> Vec<Tag> {
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    emitter.naively_switch_states(true); // the content of `script` and the like has no tags
    let mut tags: Vec<Tag> = Vec::new();
    for token in Tokenizer::new_with_emitter(document, emitter) {
        let Ok(token) = token;
        let (span, name, kind) = match token {
            Token::StartTag(tag) => {
                let name = String::from_utf8_lossy(&tag.name).to_ascii_lowercase();
                let is_alone = tag.self_closing || is_void(&name);
                (tag.span, name, if is_alone { TagKind::Alone } else { TagKind::Opens })
            }
            Token::EndTag(tag) => {
                let name = String::from_utf8_lossy(&tag.name).to_ascii_lowercase();
                (tag.span, name, TagKind::Closes)
            }
            Token::Comment(comment) => (comment.span, String::new(), TagKind::Comment),
            Token::Doctype(doctype) => (doctype.span, String::new(), TagKind::Declaration),
            Token::String(_) | Token::Error(_) => continue,
        };
        let from = tags.last().map_or(0, |last| last.range.end);
        tags.extend(whole(document, from, span.start..span.end).map(|range| Tag { range, name, kind }));
    }
    tags
}

/// The bytes of a tag from `<` to `>`, of a token that begins or ends nearly there; `from`: the end of the
/// tag before it.
fn whole(document: &str, from: usize, span: Range<usize>) -> Option<Range<usize>> {
    let bytes = document.as_bytes();
    let end = span.end.min(bytes.len());
    let first = (from..=span.start.min(bytes.len())).rev().find(|&at| bytes.get(at) == Some(&b'<'))?;
    let end = match bytes.get(end.checked_sub(1)?) {
        Some(b'>') => end,
        _ => (end..bytes.len()).find(|&at| bytes[at] == b'>').map_or(bytes.len(), |at| at + 1),
    };
    (first < end && document.is_char_boundary(end)).then_some(first..end)
}

/// The number of the tag that closes the element of tag `open`.
fn closing(tags: &[Tag], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (number, tag) in tags.iter().enumerate().skip(open).filter(|(_, tag)| tag.name == tags[open].name) {
        match tag.kind {
            TagKind::Opens => depth += 1,
            TagKind::Closes => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(number);
        }
    }
    None
}

/// An element whose content is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Protected {
    /// The number of the tag after its end.
    next: usize,
    /// Bytes of the document; of an element that is never closed, all.
    end: usize,
}

/// The element that tag `number` opens, if its content is left alone.
fn protected(document: &str, tags: &[Tag], number: usize) -> Option<Protected> {
    let tag = &tags[number];
    let is_one = tag.kind == TagKind::Opens
        && (is_protected(&tag.name) || is_not_translated(&document[tag.range.clone()]));
    match is_one.then(|| closing(tags, number))? {
        Some(last) => Some(Protected { next: last + 1, end: tags[last].range.end }),
        None if is_inline(&tag.name) => None,
        None => Some(Protected { next: tags.len(), end: document.len() }),
    }
}

/// The zones of a part of a document: tags, elements that are left alone, and references to characters. The
/// second says which zones are elements.
pub(crate) fn verbatim(text: &str) -> Vec<(Range<usize>, bool)> {
    let tags = tags(text);
    let (mut found, mut number) = (Vec::new(), 0);
    while number < tags.len() {
        let range = tags[number].range.clone();
        let element = protected(text, &tags, number);
        found.push((range.start..element.map_or(range.end, |element| element.end), element.is_some()));
        number = element.map_or(number + 1, |element| element.next);
    }
    found
}

/// References to characters in a part of a document without tags, as zones.
pub(crate) fn reference_zones(document: &str, range: Range<usize>) -> impl Iterator<Item = Zone> {
    let places = document[range.clone()].match_indices('&').map(move |(place, _)| range.start + place);
    places.filter_map(|start| {
        let (len, c) = reference(&document[start..])?;
        Some(Zone { range: start..start + len, sign: sign(c) })
    })
}

/// A sign of ASCII with the same role in a sentence.
fn sign(c: char) -> char {
    match c {
        c if c.is_whitespace() => ' ',
        c if c.is_uppercase() => 'X',
        c if c.is_alphabetic() => 'x',
        '"' | '\'' | '”' | '’' | '»' | ')' | ']' => ')',
        '“' | '‘' | '«' | '„' | '(' | '[' => '(',
        _ => '_',
    }
}

/// The parts of a document that are translated.
pub(crate) fn runs(document: &str) -> Vec<Run> {
    let tags = tags(document);
    let mut found = Runs { document, runs: Vec::new(), current: None };
    let (mut number, mut at) = (0, 0);
    while number < tags.len() {
        let tag = &tags[number];
        found.add_text(at..tag.range.start);
        let attributes = || {
            let texts = texts(&document[tag.range.clone()], &tag.name).into_iter();
            let whole = |value: Range<usize>| tag.range.start + value.start..tag.range.start + value.end;
            texts.map(|value| Attribute { tag: tag.range.clone(), value: whole(value) }).collect::<Vec<_>>()
        };
        let element = protected(document, &tags, number);
        let end = element.map_or(tag.range.end, |element| element.end);
        match (element, tag.kind) {
            (Some(_), _) if is_inline(&tag.name) => {
                found.add_zone(Zone { range: tag.range.start..end, sign: 'X' });
            }
            (Some(_), _) | (None, TagKind::Declaration) => found.end(),
            (None, TagKind::Comment) => found.add_inside(Zone { range: tag.range.clone(), sign: '(' }),
            (None, TagKind::Closes) if is_inline(&tag.name) => {
                found.add_zone(Zone { range: tag.range.clone(), sign: ')' });
            }
            (None, TagKind::Opens | TagKind::Alone) if is_inline(&tag.name) => {
                found.add_zone(Zone { range: tag.range.clone(), sign: '(' });
                found.add_attributes(&attributes());
            }
            (None, _) => {
                found.end();
                found.add_attributes(&attributes());
                found.end();
            }
        }
        at = end;
        number = element.map_or(number + 1, |element| element.next);
    }
    found.add_text(at..document.len());
    found.end();
    found.runs
}

/// Runs under construction.
struct Runs<'d> {
    document: &'d str,
    runs: Vec<Run>,
    current: Option<Run>,
}

impl Runs<'_> {
    fn add_text(&mut self, range: Range<usize>) {
        let text = &self.document[range.clone()];
        if self.current.is_none() && text.trim().is_empty() {
            return;
        }
        let start = range.start + text.len() - text.trim_start().len();
        let current = self.current.get_or_insert_with(|| Run::plain(start..start));
        current.range.end = range.end;
        current.zones.extend(reference_zones(self.document, range));
    }

    fn add_zone(&mut self, zone: Zone) {
        let current = self.current.get_or_insert_with(|| Run::plain(zone.range.clone()));
        current.range.end = zone.range.end;
        current.zones.push(zone);
    }

    /// A zone that begins no run.
    fn add_inside(&mut self, zone: Zone) {
        if self.current.is_some() {
            self.add_zone(zone);
        }
    }

    fn add_attributes(&mut self, attributes: &[Attribute]) {
        if let (None, Some(first)) = (&self.current, attributes.first()) {
            self.current = Some(Run::plain(first.value.start..first.value.start));
        }
        self.current.iter_mut().for_each(|run| run.attributes.extend_from_slice(attributes));
    }

    /// Ends the run. Without a letter of its own, only its attributes are read.
    fn end(&mut self) {
        let Some(mut run) = self.current.take() else { return };
        run.zones = outermost(run.zones);
        let text = &self.document[run.range.clone()];
        run.range.end -= text.len() - text.trim_end().len();
        run.zones.retain(|zone| zone.range.end <= run.range.end);
        let shown = run.shown(self.document);
        let in_zone = |place: usize| {
            let is_it = |zone: &Zone| {
                zone.range.contains(&(run.range.start + place)) && !is_reference(self.document, zone)
            };
            run.zones.iter().any(is_it)
        };
        let has_letter = shown.char_indices().any(|(place, c)| c.is_alphabetic() && !in_zone(place));
        if has_letter {
            self.runs.push(run);
            return;
        }
        for Attribute { value, .. } in run.attributes {
            let zones = reference_zones(self.document, value.clone()).collect();
            self.runs.push(Run { range: value, zones, attributes: Vec::new() });
        }
    }
}

fn is_reference(document: &str, zone: &Zone) -> bool {
    document[zone.range.start..].starts_with('&')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts_of(document: &str) -> Vec<&str> {
        runs(document).into_iter().map(|run| &document[run.range]).collect()
    }

    #[test]
    fn tags_are_found_whole() {
        let document = "<!DOCTYPE html><!-- a > b --><p class='x>y'>1 < 2<br/></P ><?php x ?><!-- end";
        let found: Vec<(&str, TagKind)> =
            tags(document).into_iter().map(|tag| (&document[tag.range], tag.kind)).collect();
        assert_eq!(
            found,
            [
                ("<!DOCTYPE html>", TagKind::Declaration),
                ("<!-- a > b -->", TagKind::Comment),
                ("<p class='x>y'>", TagKind::Opens),
                ("<br/>", TagKind::Alone),
                ("</P >", TagKind::Closes),
                ("<?php x ?>", TagKind::Comment),
                ("<!-- end", TagKind::Comment),
            ]
        );
    }

    #[test]
    fn a_document_is_read_block_by_block() {
        let document = "<!DOCTYPE html>\n<html><head><title>A page</title><style>p { color: red }</style>
            <meta name=\"description\" content=\"About cats\">
            <script>if (a < b) { go(\"now\") }</script></head>
            <body><h1>Title</h1><p>Some <b>bold</b> text,\n  and <code>more code</code>.</p>
            <!-- nothing --><ul><li>One</li><li>Two<br>lines</li></ul><pre>as it <b>is</b></pre>
            <div translate=\"no\">ACME <div>inner</div> Corp</div>
            <p><span class=\"notranslate\">Not</span> this</p>
            <p>12 &amp; 3</p>&eacute;</body></html>";
        assert_eq!(
            texts_of(document),
            [
                "A page",
                "About cats",
                "Title",
                "Some <b>bold</b> text,\n  and <code>more code</code>.",
                "One",
                "Two",
                "lines",
                "<span class=\"notranslate\">Not</span> this",
                "&eacute;",
            ]
        );
    }

    #[test]
    fn texts_in_attributes_are_read_where_they_stand() {
        let document =
            "<p title=\"A tip\"><img alt=\"A cat\"></p><p>See <a title=\"More\" href=\"x\">this</a></p>";
        let found: Vec<(&str, Vec<&str>)> = runs(document)
            .into_iter()
            .map(|run| {
                (&document[run.range], run.attributes.into_iter().map(|it| &document[it.value]).collect())
            })
            .collect();
        assert_eq!(
            found,
            [
                ("A tip", vec![]),
                ("A cat", vec![]),
                ("See <a title=\"More\" href=\"x\">this</a>", vec!["More"]),
            ]
        );
    }

    #[test]
    fn zones_are_signs_with_the_same_role() {
        let document = "It&nbsp;ends.</b> A <code>x. Y</code> &eacute;&Eacute;\nb";
        let run = &runs(document)[0];
        assert_eq!(run.shown(document), "It      ends.)))) A XXXXXXXXXXXXXXXXX xxxxxxxxXXXXXXXX b");
    }

    #[test]
    fn what_is_never_closed_is_read_as_browsers_do() {
        assert_eq!(texts_of("<p>a <code>b"), ["a <code>b"]);
        assert_eq!(texts_of("<p>a<script>b</p>c"), ["a"]);
        assert_eq!(texts_of("<p>a<pre>b"), ["a"]);
        assert_eq!(texts_of("a < b and <"), ["a < b and <"]);
    }
}
