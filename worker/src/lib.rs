//! What encoder and decoder services share: the life of the thread that runs the model, serving until shutdown, one task per shard.
//!
//! Neither service's contract nor its work is known here.

mod model_thread;
mod serve;

pub use model_thread::{ModelThread, ModelThreadError};
pub use serve::{EventSender, ServeError, serve, spawn_shard, worker_info};
