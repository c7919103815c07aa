//! The parts of the LLM after the first one: on other devices of this process, or in other processes. A batch
//! passes them one after the other, while other batches are in the parts before and behind.

use std::ops::Range;

use baton_bundle::Bundle;
use baton_model::{Compute, LayerStates, ReaderPart};
use baton_worker::{ModelThreadError, ModelThreads};

use crate::EncoderError;
use crate::chain::RemotePart;
use crate::model_queue::ModelQueue;

/// Parts in the order of their blocks.
#[derive(Debug)]
pub(crate) struct Parts(Vec<Part>);

#[derive(Debug)]
enum Part {
    Here(ModelQueue<ReaderPart>),
    There(RemotePart),
}

impl Parts {
    /// Loads these blocks, all at the same time, each on `engines` threads of its own.
    pub(crate) async fn start(
        bundle: &Bundle,
        parts: &[(Range<usize>, Compute)],
        engines: usize,
    ) -> Result<(Self, ModelThreads), ModelThreadError> {
        let start = |(blocks, compute): &(Range<usize>, Compute)| {
            let (bundle, blocks, compute) = (bundle.clone(), blocks.clone(), *compute);
            let load = move || ReaderPart::load(&bundle, blocks.clone(), compute);
            ModelQueue::start("encoder-blocks", engines, load)
        };
        let started = futures_util::future::try_join_all(parts.iter().map(start)).await?;
        let (mut queues, mut all_threads) = (Vec::new(), ModelThreads::default());
        for (queue, threads) in started {
            queues.push(Part::Here(queue));
            all_threads = all_threads.and(threads);
        }
        Ok((Self(queues), all_threads))
    }

    /// Appends the parts of other processes.
    pub(crate) fn extend(&mut self, chain: Vec<RemotePart>) {
        self.0.extend(chain.into_iter().map(Part::There));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets all parts continue the stream of a batch.
    pub(crate) async fn continue_all(&self, mut states: LayerStates) -> Result<LayerStates, EncoderError> {
        for part in &self.0 {
            let stream = states.take_stream();
            let next = match part {
                Part::Here(queue) => {
                    queue.run(move |part| part.read(&stream)).await.ok_or(EncoderError::BatchLost)?
                }
                Part::There(part) => part.read(stream).await?,
            };
            states.continue_with(next);
        }
        Ok(states)
    }
}
