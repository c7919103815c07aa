//! Outputs that need not be written again: everything that decides them, and how they are kept.
//!
//! A segment's outputs are a function of its [`View`](baton_text::View), its record's limit and context, the
//! job's options, the bundle and the arithmetic. [`SegmentKeys`] and [`Scope`] turn all of that into names of
//! 16 bytes, here and nowhere else. A decoder remembers recent outputs by these names ([`Recent`]), and can
//! keep those of a shard in one object of a store, a [`Pack`].
//!
//! A pack is found by *hooks*: the few smallest keys of a shard, each of which has an object that names the
//! pack. Shards that share most of their segments share most of their hooks. One lookup therefore takes few
//! calls and little memory, however large the cache is: sparse indexing, as in stores that remove duplicates
//! (Lillibridge et al., FAST 2009). The smallest keys are a sample of a set that does not depend on its order
//! (Broder, "On the resemblance and containment of documents", 1997).
//!
//! This crate is pure: no store, no clock, no models.

mod digest;
mod hooks;
mod identity;
mod pack;
mod recent;

pub use hooks::{MAX_PACKS, NUM_HOOKS, hook_object, hooks, pack_object, packs_named};
pub use identity::{KEY_NUM_BYTES, RecordKey, Scope, ScopeParts, SegmentKey, SegmentKeys};
pub use pack::{KeptOutput, Pack, PackError, PackName};
pub use recent::Recent;
