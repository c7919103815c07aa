//! Segments: the parts of a record's text that are read and written one by one.
//!
//! Owns where a text is cut ([`cut`]) and how the outputs of its parts become one text again ([`join`]). Both
//! are pure. The cut depends on the text, its markup, the unit and the model's limit. Joining unchanged
//! parts of a text gives it back. This crate knows neither tokens nor models: it asks the caller whether
//! a part is read or copied, and whether it is short enough.

mod abbreviations;
mod clauses;
mod cut;
mod segment;
mod sentences;
mod wrapped;

pub use baton_markup::Markup;
pub use cut::{Part, Piece, Place, Unit, cut};
pub use segment::{Segment, join};
pub use wrapped::rewrapped;
