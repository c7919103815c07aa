//! The queue in front of the threads that run a model. Shards take turns: each hands in one pass, waits for
//! it, and hands in the next.

use std::sync::Arc;

use baton_model::ModelError;
use baton_worker::{ModelThreadError, ModelThreads, Pulse};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Passes that wait while others are computed. Enough that no thread waits for a sender to wake up; each
/// costs its tokens or states only.
const QUEUE_PASSES: usize = 4;

type Pass<M> = Box<dyn FnOnce(&M) + Send>;

/// The queue's end that shards hold. The threads end when it is dropped.
#[derive(Debug)]
pub(crate) struct ModelQueue<M> {
    passes: mpsc::Sender<Pass<M>>,
}

impl<M: 'static> ModelQueue<M> {
    /// Starts `engines` threads, at least one, and loads a model on each. Whichever is free takes the next
    /// pass.
    pub(crate) async fn start(
        name: &'static str,
        engines: usize,
        load: impl Fn() -> Result<M, ModelError> + Clone + Send + 'static,
    ) -> Result<(Self, ModelThreads), ModelThreadError> {
        let (passes, queue) = mpsc::channel::<Pass<M>>(QUEUE_PASSES);
        let queue = Arc::new(Mutex::new(queue));
        let run = move |_engine: usize, model: M, pulse: &Pulse| {
            // The thread that waits for a pass holds the lock; the others wait for the lock.
            while let Some(pass) = { queue.blocking_lock().blocking_recv() } {
                pulse.pass(|| pass(&model));
            }
        };
        let threads = ModelThreads::start(name, engines, load, run).await?;
        Ok((Self { passes }, threads))
    }

    /// Runs one pass. `None`: the threads have died. Dropping the future removes the pass if it has not
    /// begun.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        pass: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, result) = oneshot::channel();
        let pass = move |model: &M| {
            if !reply.is_closed() {
                let _ = reply.send(pass(model)); // unheard, its shard was cancelled meanwhile
            }
        };
        self.passes.send(Box::new(pass)).await.ok()?;
        result.await.ok()
    }
}
