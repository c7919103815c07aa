//! A segment on its way from the reader to the writer, and how written segments are joined.

use crate::{Piece, Place};

/// A part of a record's text that is read and written by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Position of its record among the shard's entries, from 0.
    pub record: u32,
    /// Its number among the segments of its record, from 0.
    pub number: u32,
    /// The text to read.
    pub text: String,
    /// The text of the record's output before this segment's output.
    pub before: String,
    /// The text after it.
    pub after: String,
    /// Whether it is a text of a tag that the segment before it has. Then `before` and `after` are parts of
    /// that tag.
    pub is_in_tag: bool,
}

impl Segment {
    /// Segment `number` of `record`.
    #[must_use]
    pub fn of_piece(record: u32, number: u32, piece: Piece<'_>) -> Self {
        let Piece { before, text, after, place } = piece;
        Self {
            record,
            number,
            text: text.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
            is_in_tag: place != Place::InText,
        }
    }

    /// Its piece.
    #[must_use]
    pub fn piece(&self) -> Piece<'_> {
        self.written(&self.text)
    }

    /// Its piece, with `output` in place of its text.
    #[must_use]
    pub fn written<'a>(&'a self, output: &'a str) -> Piece<'a> {
        let place = if self.is_in_tag { Place::InTag { source: &self.text } } else { Place::InText };
        Piece { before: &self.before, text: output, after: &self.after, place }
    }

    /// Bytes of its text and of the text around it.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        self.text.len() + self.before.len() + self.after.len()
    }
}

/// The text of all pieces together, in order. With outputs in place of each piece's text, it is the record's
/// output. A tag whose texts are pieces is found in the output of the piece that has it, since tags come back
/// unchanged.
#[must_use]
pub fn join<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> String {
    let mut joined = String::new();
    let mut last = 0; // where the output begins that may have the next tag
    let (mut tag, mut written) = (String::new(), String::new());
    for Piece { before, text, after, place } in pieces {
        let Place::InTag { source } = place else {
            joined.push_str(before);
            last = joined.len();
            joined.extend([text, after]);
            continue;
        };
        tag.extend([before, source, after]);
        written.extend([before, text, after]);
        if !after.is_empty() {
            if let Some(found) = joined[last..].find(&tag) {
                let start = last + found;
                joined.replace_range(start..start + tag.len(), &written);
                last = start + written.len();
            }
            tag.clear();
            written.clear();
        }
    }
    joined
}
