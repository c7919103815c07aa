//! Markdown: the texts of paragraphs, headings, items and cells.

use std::ops::Range;

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd};

use crate::breaks::soft_break;
use crate::html;
use crate::run::{Attribute, Run, Zone, outermost};

fn options() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_GFM
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS
}

/// The parts of a document that are translated.
pub(crate) fn runs(document: &str) -> Vec<Run> {
    let mut found = Runs { document, runs: Vec::new(), current: None, open: Vec::new() };
    let mut skipped = 0_usize; // depth of blocks without text
    for (event, range) in Parser::new_ext(document, options()).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(_) | Tag::MetadataBlock(_)) => {
                found.end();
                skipped += 1;
            }
            Event::End(TagEnd::CodeBlock | TagEnd::MetadataBlock(_) | TagEnd::HtmlBlock) => skipped -= 1,
            _ if skipped > 0 => {}
            Event::Start(Tag::HtmlBlock) => {
                found.end();
                found.add_html(range);
                skipped += 1;
            }
            Event::Start(Tag::Link { link_type, .. } | Tag::Image { link_type, .. }) => {
                found.begin_link(link_type, range);
            }
            Event::End(TagEnd::Link | TagEnd::Image) => found.end_link(range),
            Event::Start(Tag::Emphasis | Tag::Strong | Tag::Strikethrough)
            | Event::End(TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough) => found.add(range, None),
            Event::Text(_) => found.add_text(range),
            Event::Code(_) => found.add(range, Some('X')),
            Event::FootnoteReference(_) => found.add(range, Some(')')),
            Event::InlineHtml(_) => found.add_tag(range),
            Event::SoftBreak => found.add_break(range),
            _ => found.end(), // blocks, hard breaks, rules, task list markers
        }
    }
    found.end();
    found.runs
}

/// Runs under construction.
struct Runs<'d> {
    document: &'d str,
    runs: Vec<Run>,
    current: Option<Run>,
    /// For each link that is open: whether it is left alone, and the end of its text so far.
    open: Vec<(bool, usize)>,
}

impl Runs<'_> {
    /// Takes in bytes of the run, as a zone if they have a sign.
    fn add(&mut self, range: Range<usize>, sign: Option<char>) {
        if self.open.iter().any(|(is_left, _)| *is_left) {
            return;
        }
        self.open.iter_mut().for_each(|(_, end)| *end = (*end).max(range.end));
        let current = self.current.get_or_insert_with(|| Run::plain(range.clone()));
        current.range.end = current.range.end.max(range.end);
        current.zones.extend(sign.map(|sign| Zone { range, sign }));
    }

    fn add_text(&mut self, range: Range<usize>) {
        self.add(range.clone(), None);
        let zones: Vec<Zone> = html::reference_zones(self.document, range).collect();
        self.current.iter_mut().for_each(|run| run.zones.extend_from_slice(&zones));
    }

    /// A break, with the marks of quotes and the indentation of the next line.
    fn add_break(&mut self, range: Range<usize>) {
        let blank = |c: char| c == ' ' || c == '\t';
        let start = self.document[..range.start].trim_end_matches(blank).len();
        let end = soft_break(&self.document[start..]).map_or(range.end, |len| start + len);
        self.add(start..end.max(range.end), Some(' '));
    }

    fn add_tag(&mut self, range: Range<usize>) {
        let tag = &self.document[range.clone()];
        self.add(range.clone(), Some(if tag.starts_with("</") { ')' } else { '(' }));
        let html = html::runs(tag).into_iter().map(|run| run.range); // the attributes alone
        let whole = |value: Range<usize>| range.start + value.start..range.start + value.end;
        let attributes = html.map(|value| Attribute { tag: range.clone(), value: whole(value) });
        let attributes: Vec<Attribute> = attributes.collect();
        self.current.iter_mut().for_each(|run| run.attributes.extend_from_slice(&attributes));
    }

    /// The text of a link is read, unless it is also its name in a definition.
    fn begin_link(&mut self, link_type: LinkType, range: Range<usize>) {
        let is_read = matches!(link_type, LinkType::Inline | LinkType::Reference);
        if !is_read && !self.open.iter().any(|(is_left, _)| *is_left) {
            match link_type {
                LinkType::Autolink | LinkType::Email => self.add(range.clone(), Some('X')),
                _ => self.end(), // "[name]" is no part of a sentence
            }
        } else if is_read {
            self.add(range.start..range.start, None);
        }
        self.open.push((!is_read, range.start));
    }

    fn end_link(&mut self, range: Range<usize>) {
        let Some((is_left, end)) = self.open.pop() else { return };
        if !is_left {
            self.add(end..range.end, Some(')')); // the target
        }
    }

    fn add_html(&mut self, block: Range<usize>) {
        let shift = |range: Range<usize>| block.start + range.start..block.start + range.end;
        for Run { range, zones, attributes } in html::runs(&self.document[block.clone()]) {
            self.runs.push(Run {
                range: shift(range),
                zones: zones.into_iter().map(|zone| Zone { range: shift(zone.range), ..zone }).collect(),
                attributes: attributes
                    .into_iter()
                    .map(|it| Attribute { tag: shift(it.tag), value: shift(it.value) })
                    .collect(),
            });
        }
    }

    fn end(&mut self) {
        let Some(mut run) = self.current.take() else { return };
        run.zones = outermost(run.zones);
        let text = &self.document[run.range.clone()];
        run.range.end -= text.len() - text.trim_end().len();
        run.range.start += text.len() - text.trim_start().len();
        run.zones.retain(|zone| zone.range.start < run.range.end);
        run.zones.iter_mut().for_each(|zone| zone.range.end = zone.range.end.min(run.range.end));
        if self.document[run.range.clone()].contains(char::is_alphabetic) {
            self.runs.push(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts_of(document: &str) -> Vec<&str> {
        runs(document).into_iter().map(|run| &document[run.range]).collect()
    }

    #[test]
    fn a_document_is_read_block_by_block() {
        let document = "---\ntitle: A page\n---\n\n# A title #\n
Some **bold** text\nof `two lines` here.  \nThird.\n
Setext\n======\n\n- One\n- [ ] Two\n  goes on\n1. Three\n
> A quote\n> goes on\n\n```sh\nls -l\n```\n\n    indented\n
| A | B |\n|---|---|\n| c `d` | 1 |\n\n[x]: https://example.org \"T\"\n
<p align=\"center\">Centered <b>text</b></p>\n
Note.[^1]\n\n[^1]: A footnote.\n\n***\n";
        assert_eq!(
            texts_of(document),
            [
                "A title",
                "Some **bold** text\nof `two lines` here.",
                "Third.",
                "Setext",
                "One",
                "Two\n  goes on",
                "Three",
                "A quote\n> goes on",
                "A",
                "B",
                "c `d`",
                "Centered <b>text</b>",
                "Note.[^1]",
                "A footnote.",
            ]
        );
    }

    #[test]
    fn links_are_read_unless_their_text_is_their_name() {
        let document = "See [the guide](a.md \"T\"), ![a cat](a.png) and [both][x]. Not [x] nor [x][] here. \
            Nor <https://example.org>.\n\n[x]: b.md\n";
        assert_eq!(
            texts_of(document),
            [
                "See [the guide](a.md \"T\"), ![a cat](a.png) and [both][x]. Not",
                "nor",
                "here. Nor <https://example.org>.",
            ]
        );
    }

    #[test]
    fn zones_are_signs_with_the_same_role() {
        let document = "> Run `a. B`. See\n> [this](x \"a. B\")<br>&amp; <b title=\"A tip\">it</b>.";
        let run = &runs(document)[0];
        assert_eq!(
            run.shown(document),
            "Run XXXXXX. See   [this)))))))))))((((_____ (((((((((((((((((it))))."
        );
        let attributes: Vec<&str> = run.attributes.iter().map(|it| &document[it.value.clone()]).collect();
        assert_eq!(attributes, ["A tip"]);
    }
}
