//! Segments: the parts of a record's text that are read and written one by one.
//!
//! Owns where a text is cut ([`cut`]) and how the outputs of its parts become one text again ([`join`]). Both
//! are pure. The cut depends on the text, the unit and the model's limit; joining the unchanged parts of a
//! text gives the text back. This crate knows neither tokens nor models: it asks the caller whether a part is
//! read or copied, and whether it is short enough.

mod abbreviations;
mod clauses;
mod cut;
mod segment;
mod sentences;

pub use cut::{Part, Piece, Unit, cut};
pub use segment::{Segment, join};
