//! HTML and Markdown documents as the text of a record: which parts are translated, and how their characters
//! are written.
//!
//! [`runs`] finds the parts that are read: the text of blocks with the tags inside it, and texts in
//! attributes. All other bytes of the document stay as they are. [`Written`] turns one such part into plain
//! text with tags, and the text that takes its place into markup again. Both are pure, and neither knows
//! sentences, units or models.
//!
//! Tags of HTML are those of `html5gum`, a tokenizer after the WHATWG's specification. Blocks of Markdown are
//! those of `pulldown-cmark`, a parser of CommonMark with GitHub's tables, footnotes and task lists.

mod attributes;
mod breaks;
mod elements;
mod entities;
mod html;
mod markdown;
mod run;
mod written;

pub use run::{Attribute, Run, Zone, runs};
pub use written::{Verbatim, Written};

/// The markup of a job's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Markup {
    /// Texts are plain, though they may have tags and the like.
    #[default]
    None,
    /// Texts are HTML documents, or parts of one.
    Html,
    /// Texts are Markdown documents.
    Markdown,
}

impl Markup {
    /// Every kind.
    pub const ALL: [Markup; 3] = [Markup::None, Markup::Html, Markup::Markdown];

    /// Their names, in the same order.
    pub const NAMES: &'static [&'static str] = &["none", "html", "markdown"];

    /// The name in job files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The markup of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|markup| markup.as_str() == name)
    }
}
