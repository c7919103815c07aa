//! The queue in front of the thread that runs the LLM. Shards take turns: each hands in one batch, waits for it, and hands in the next.

use baton_model::{ModelError, PromptEncoder, PromptStates};
use baton_worker::{ModelThread, ModelThreadError};
use tokio::sync::{mpsc, oneshot};

/// Batches that wait while one is computed. Enough that the thread never waits for a sender to wake up; each costs its tokens only.
const QUEUE_BATCHES: usize = 4;

struct Batch {
    prompts: Vec<Vec<u32>>,
    reply: oneshot::Sender<Vec<PromptStates>>,
}

/// The queue's end that shards hold. The thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ModelQueue {
    batches: mpsc::Sender<Batch>,
}

impl ModelQueue {
    /// Starts the thread and loads the model on it.
    pub(crate) async fn start(
        load: impl FnOnce() -> Result<PromptEncoder, ModelError> + Send + 'static,
    ) -> Result<(ModelQueue, ModelThread), ModelThreadError> {
        let (batches, mut queue) = mpsc::channel::<Batch>(QUEUE_BATCHES);
        let run = move |encoder: PromptEncoder| {
            while let Some(batch) = queue.blocking_recv() {
                if batch.reply.is_closed() {
                    continue; // its shard was cancelled
                }
                let prompts: Vec<&[u32]> = batch.prompts.iter().map(Vec::as_slice).collect();
                // A failed send is a shard cancelled meanwhile.
                drop(batch.reply.send(encoder.encode(&prompts)));
            }
        };
        let thread = ModelThread::start("encoder-model", load, run).await?;
        Ok((ModelQueue { batches }, thread))
    }

    /// Encodes one batch; states come in the prompts' order. `None`: the thread has died. Dropping the future takes the batch back if
    /// it has not begun.
    pub(crate) async fn encode(&self, prompts: Vec<Vec<u32>>) -> Option<Vec<PromptStates>> {
        let (reply, states) = oneshot::channel();
        self.batches.send(Batch { prompts, reply }).await.ok()?;
        states.await.ok()
    }
}
