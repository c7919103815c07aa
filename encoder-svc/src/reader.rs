//! From the tokens of a batch to its prompt states, wherever the LLM's blocks are.

use std::sync::Arc;

use baton_bundle::{Bundle, Reading};
use baton_job::Mode;
use baton_model::{PromptEncoder, PromptStates};
use baton_worker::ModelThreads;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::chain::RemotePart;
use crate::model_queue::ModelQueue;
use crate::parts::Parts;
use crate::split::Split;
use crate::{EncoderConfig, EncoderError};

/// Batches in a split LLM for each of its parts and engines: one that is computed and one that waits. Each
/// costs its states in host memory.
const BATCHES_PER_PART: usize = 2;

/// The models that read prompts.
#[derive(Debug)]
pub(crate) struct Reader {
    first: ModelQueue<PromptEncoder>,
    rest: Parts,
    in_flight: Semaphore,
}

impl Reader {
    /// Loads all parts of this process, at the same time.
    pub(crate) async fn start(
        bundle: &Bundle,
        modes: Vec<Mode>,
        (split, config): (&Split, &EncoderConfig),
    ) -> Result<(Self, ModelThreads), EncoderError> {
        let (blocks, compute) = split.first();
        let of_first = bundle.clone();
        let load = move || PromptEncoder::load_first(&of_first, &modes, (blocks.end, compute));
        let ((first, threads), (rest, others)) = tokio::try_join!(
            ModelQueue::start("encoder-model", config.engines, load),
            Parts::start(bundle, split.others(), config.engines),
        )?;
        let num_parts = 1 + rest.len() + config.chain.len();
        let in_flight = Semaphore::new(BATCHES_PER_PART * num_parts * config.engines.max(1));
        Ok((Self { first, rest, in_flight }, threads.and(others)))
    }

    /// Appends the parts of other processes.
    pub(crate) fn extend(&mut self, chain: Vec<RemotePart>) {
        self.rest.extend(chain);
    }

    /// How many batches of one shard keep all parts at work.
    pub(crate) fn num_parts(&self) -> usize {
        1 + self.rest.len()
    }

    /// Encodes one batch. States come in the order of the texts, and of each text's prompts. Dropping the
    /// future removes the batch from all parts where it has not begun.
    pub(crate) async fn encode(
        self: &Arc<Self>,
        mode: Mode,
        readings: Vec<Reading>,
    ) -> Result<Vec<Vec<PromptStates>>, EncoderError> {
        if self.rest.is_empty() || !mode.reads_llm() {
            let encoded = self.first.run(move |encoder| encoder.encode(mode, &readings)).await;
            return encoded.ok_or(EncoderError::BatchLost);
        }
        // In a task of its own, a batch moves on while its shard waits for the decoder, and makes room for
        // batches of other shards.
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(self).pass_all(mode, readings));
        task.join_next().await.and_then(Result::ok).unwrap_or(Err(EncoderError::BatchLost))
    }

    /// Lets a batch pass all parts.
    async fn pass_all(
        self: Arc<Self>,
        mode: Mode,
        readings: Vec<Reading>,
    ) -> Result<Vec<Vec<PromptStates>>, EncoderError> {
        let _in_flight = self.in_flight.acquire().await.expect("it is never closed");
        let readings = Arc::new(readings);
        let begun = Arc::clone(&readings);
        let begun = self.first.run(move |encoder| encoder.begin(&begun)).await;
        let states = self.rest.continue_all(begun.ok_or(EncoderError::BatchLost)?).await?;
        let finished = self.first.run(move |encoder| encoder.finish(mode, &readings, &states)).await;
        finished.ok_or(EncoderError::BatchLost)
    }
}
