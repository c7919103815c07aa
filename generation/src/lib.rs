//! The generation options, defined once.
//!
//! `schema.rs` has one entry for each option: name, type, default, allowed values, the methods that use it,
//! and its meaning. Everything else follows from the entries: the resolved [`GenerationOptions`], which the
//! wire and `_baton/job.json` carry and `baton-decoding` obeys; the partial [`GenerationLayer`], which a
//! bundle, a job file and flags each give; the flags themselves, and the table in the documentation
//! ([`OPTIONS`]).
//!
//! A new option is one entry in `schema.rs`, its behaviour where [`GenerationOptions`] is read, and its row
//! in `docs/reference/generation.md`, which `tests/documentation.rs` writes.
//!
//! This crate does not know an option's effect on tokens. It knows no clap, no protobuf and no models.

#[macro_use]
mod definition;

mod allowed;
mod error;
mod given;
mod kinds;
mod languages;
mod layer;
mod limits;
mod option;
mod options;
mod schema;
mod serialization;
mod setting;
mod table;
mod text;

pub use allowed::Allowed;
pub use baton_text::{Markup, OtherLanguage};
pub use error::OptionError;
pub use given::Given;
pub use kinds::{EarlyStopping, FinishReason, Method, QualityColumns, ReaderContext};
pub use languages::LanguageChoice;
pub use option::OptionInfo;
pub use schema::{GenerationLayer, GenerationOptions, OPTIONS};
pub use setting::Setting;
pub use table::options_table;
pub use text::TextTask;
