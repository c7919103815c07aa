//! The networks, one file each: the parts of a block and their order. Parameter names are the checkpoints'.
//! Families that share a network differ by data of their configs.
//!
//! Their parts are in `layers.rs`, `linear.rs`, `self_attention.rs` and `feed_forward.rs`. The crate sees
//! them as a [`Stack`](crate::stack::Stack) or as an
//! [`EncoderDecoder`](crate::encoder_decoder::EncoderDecoder).

pub(crate) mod bart;
pub(crate) mod bergamot;
pub(crate) mod decoder;
pub(crate) mod gpt2;
pub(crate) mod t5;
