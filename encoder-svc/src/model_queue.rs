//! The queue in front of the threads that run the LLM. Shards take turns: each hands in one batch, waits for it, and hands in the next.

use std::sync::Arc;

use baton_model::{ModelError, PromptEncoder, PromptStates};
use baton_worker::{ModelThreadError, ModelThreads, Pulse};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Batches that wait while others are computed. Enough that no thread waits for a sender to wake up; each costs its tokens only.
const QUEUE_BATCHES: usize = 4;

struct Batch {
    prompts: Vec<Vec<u32>>,
    reply: oneshot::Sender<Vec<PromptStates>>,
}

/// The queue's end that shards hold. The threads end when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ModelQueue {
    batches: mpsc::Sender<Batch>,
}

impl ModelQueue {
    /// Starts `engines` threads, at least one, and loads a model on each. Whichever is free takes the next batch.
    pub(crate) async fn start(
        engines: usize,
        load: impl Fn() -> Result<PromptEncoder, ModelError> + Clone + Send + 'static,
    ) -> Result<(ModelQueue, ModelThreads), ModelThreadError> {
        let (batches, queue) = mpsc::channel::<Batch>(QUEUE_BATCHES);
        let queue = Arc::new(Mutex::new(queue));
        let run = move |_engine: usize, encoder: PromptEncoder, pulse: &Pulse| {
            // Whoever waits for a batch holds the lock; the others wait for the lock.
            while let Some(batch) = { queue.blocking_lock().blocking_recv() } {
                if batch.reply.is_closed() {
                    continue; // its shard was cancelled
                }
                let prompts: Vec<&[u32]> = batch.prompts.iter().map(Vec::as_slice).collect();
                // A failed send is a shard cancelled meanwhile.
                drop(batch.reply.send(pulse.pass(|| encoder.encode(&prompts))));
            }
        };
        let threads = ModelThreads::start("encoder-model", engines, load, run).await?;
        Ok((ModelQueue { batches }, threads))
    }

    /// Encodes one batch; states come in the prompts' order. `None`: the threads have died. Dropping the future takes the batch back if
    /// it has not begun.
    pub(crate) async fn encode(&self, prompts: Vec<Vec<u32>>) -> Option<Vec<PromptStates>> {
        let (reply, states) = oneshot::channel();
        self.batches.send(Batch { prompts, reply }).await.ok()?;
        states.await.ok()
    }
}
