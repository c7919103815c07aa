//! A segment on its way from the reader to the writer, and how written segments are joined.

use crate::Piece;

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
}

impl Segment {
    /// Segment `number` of `record`.
    #[must_use]
    pub fn of_piece(record: u32, number: u32, piece: Piece<'_>) -> Self {
        let Piece { before, text, after } = piece;
        Self { record, number, text: text.to_owned(), before: before.to_owned(), after: after.to_owned() }
    }

    /// Bytes of its text and of the text around it.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        self.text.len() + self.before.len() + self.after.len()
    }
}

/// The text of all pieces together, in order. With outputs in place of each piece's text, it is the record's
/// output.
#[must_use]
pub fn join<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> String {
    let mut joined = String::new();
    for Piece { before, text, after } in pieces {
        joined.extend([before, text, after]);
    }
    joined
}
