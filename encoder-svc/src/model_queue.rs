//! The queue in front of the threads that run the LLM. Shards take turns: each hands in one batch, waits for
//! it, and hands in the next.

use std::sync::Arc;

use baton_bundle::Reading;
use baton_job::Mode;
use baton_model::{ModelError, PromptEncoder, PromptStates};
use baton_worker::{ModelThreadError, ModelThreads, Pulse};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Batches that wait while others are computed. Enough that no thread waits for a sender to wake up; each
/// costs its tokens only.
const QUEUE_BATCHES: usize = 4;

struct Batch {
    mode: Mode,
    readings: Vec<Reading>,
    reply: oneshot::Sender<Vec<Vec<PromptStates>>>,
}

/// The queue's end that shards hold. The threads end when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ModelQueue {
    batches: mpsc::Sender<Batch>,
}

impl ModelQueue {
    /// Starts `engines` threads, at least one, and loads a model on each. Whichever is free takes the next
    /// batch.
    pub(crate) async fn start(
        engines: usize,
        load: impl Fn() -> Result<PromptEncoder, ModelError> + Clone + Send + 'static,
    ) -> Result<(ModelQueue, ModelThreads), ModelThreadError> {
        let (batches, queue) = mpsc::channel::<Batch>(QUEUE_BATCHES);
        let queue = Arc::new(Mutex::new(queue));
        let run = move |_engine: usize, encoder: PromptEncoder, pulse: &Pulse| {
            // The thread that waits for a batch holds the lock; the others wait for the lock.
            while let Some(batch) = { queue.blocking_lock().blocking_recv() } {
                if batch.reply.is_closed() {
                    continue; // its shard was cancelled
                }
                // A failed send is a shard cancelled meanwhile.
                drop(batch.reply.send(pulse.pass(|| encoder.encode(batch.mode, &batch.readings))));
            }
        };
        let threads = ModelThreads::start("encoder-model", engines, load, run).await?;
        Ok((ModelQueue { batches }, threads))
    }

    /// Encodes one batch. States come in the order of the texts, and of each text's prompts. `None`: the
    /// threads have died. Dropping the future removes the batch if it has not begun.
    pub(crate) async fn encode(&self, mode: Mode, readings: Vec<Reading>) -> Option<Vec<Vec<PromptStates>>> {
        let (reply, states) = oneshot::channel();
        self.batches.send(Batch { mode, readings, reply }).await.ok()?;
        states.await.ok()
    }
}
