//! The parts that encoder and decoder services share: the process and its flags, model threads, limits,
//! serving and draining, and the handling of a shard's header, span and task.
//!
//! This crate knows neither service's contract nor its work.

mod admission;
mod compute_args;
mod device_memory;
mod environment;
mod limits;
mod listen;
mod machine_memory;
mod memory_budget;
mod memory_check;
mod model_thread;
mod process;
mod serve;
mod shard_desk;

pub use admission::{Admission, ShardPermit, refuse_draining};
pub use compute_args::{ComputeArgs, DeviceFlag, WeightsFlag};
pub use device_memory::free_gpu_memory;
pub use environment::settle_libraries;
pub use limits::WorkerLimits;
pub use listen::{InvalidListenAddress, ListenAddress, ListenError};
pub use machine_memory::available_memory;
pub use memory_budget::{MemoryBudget, MemoryShare};
pub use memory_check::{
    CPU_CACHE_TOKENS, CPU_PASS_TOKENS, ModelService, NotEnoughMemory, PlannedModels, pair_num_bytes,
};
pub use model_thread::{ModelThreadError, ModelThreads, Pulse};
pub use process::{EXIT_CODES, Host, WorkerArgs, run};
pub use serve::{ServeError, ServeOptions, Served, ServedService, serve, serve_locally};
pub use shard_desk::{
    EventSender, OpenShard, ShardDesk, ShardEvents, ShardHandler, ShardService, UnsuitedWorker, answer,
};
