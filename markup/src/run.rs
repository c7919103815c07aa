//! A part of a document that is read, and its bytes as a reader of sentences should see them.

use std::ops::Range;

use crate::{Markup, html, markdown};

/// A part of a document that is translated. Its bytes are text with tags or marks inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the document.
    pub range: Range<usize>,
    /// Bytes of the document inside it that are no words, in order.
    pub zones: Vec<Zone>,
    /// Texts inside its tags, in order.
    pub attributes: Vec<Attribute>,
}

/// A text in an attribute of a tag, bytes of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The tag.
    pub tag: Range<usize>,
    /// The attribute's value without its quotes.
    pub value: Range<usize>,
}

/// Bytes that are no words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Bytes of the document.
    pub range: Range<usize>,
    /// A sign of ASCII with the same role in a sentence: `(` for a tag that opens, `)` for one that closes,
    /// `X` for code, a space for a line's end, or a letter.
    pub sign: char,
}

impl Run {
    /// Its text, byte by byte: zones as their signs, line ends as spaces. A run is one paragraph.
    #[must_use]
    pub fn shown(&self, document: &str) -> String {
        let mut shown = String::with_capacity(self.range.len());
        let mut at = self.range.start;
        let plain = |range: Range<usize>| document[range].replace(['\n', '\r'], " ");
        for zone in &self.zones {
            shown.push_str(&plain(at..zone.range.start));
            shown.extend(std::iter::repeat_n(zone.sign, zone.range.len()));
            at = zone.range.end;
        }
        shown.push_str(&plain(at..self.range.end));
        shown
    }

    /// A text that is nothing but text.
    pub(crate) fn plain(range: Range<usize>) -> Self {
        Run { range, zones: Vec::new(), attributes: Vec::new() }
    }
}

/// The parts of a document that are translated, in order; none overlap.
#[must_use]
pub fn runs(document: &str, markup: Markup) -> Vec<Run> {
    match markup {
        Markup::None => vec![Run::plain(0..document.len())],
        Markup::Html => html::runs(document),
        Markup::Markdown => markdown::runs(document),
    }
}

/// Zones in order, none inside another.
pub(crate) fn outermost(mut zones: Vec<Zone>) -> Vec<Zone> {
    zones.retain(|zone| !zone.range.is_empty());
    zones.sort_by_key(|zone| (zone.range.start, std::cmp::Reverse(zone.range.end)));
    let mut kept: Vec<Zone> = Vec::with_capacity(zones.len());
    for zone in zones {
        if kept.last().is_none_or(|last| last.range.end <= zone.range.start) {
            kept.push(zone);
        }
    }
    kept
}
