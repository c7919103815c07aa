//! Segments: the parts of a record's text that are read and written one by one.
//!
//! Owns where a text is cut ([`cut`]) and how what is written for its parts becomes one text again
//! ([`join`]). Both are pure: the cut follows from the text, the unit and what the reader can take, and
//! joining the parts of a text as they are gives the text back. This crate knows neither tokens nor models;
//! whether a part is short enough for the reader is a question to the caller.

mod abbreviations;
mod clauses;
mod cut;
mod segment;
mod sentences;

pub use cut::{Piece, Unit, cut, without_copied};
pub use segment::{Segment, join};
