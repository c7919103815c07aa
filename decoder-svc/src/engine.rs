//! The one thread that runs the SLM: the continuous batch over the rows of all shards, and the queue in front of it.
//!
//! The queue is bounded in what it costs: each waiting row holds a permit for as many tokens as its prompt states have, and gives it
//! back when it is prefilled. A shard that cannot get a permit stops reading its stream, which stops its encoder.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_decoding::{
    FinishedRow, GenerationLimits, GroupId, RowId, RowRequest, Scheduler, SlotAssignment, SubmitError,
};
use baton_model::{ModelError, PrefillRow, PromptStates, SlmDecoder};
use baton_worker::{ModelThread, ModelThreadError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::DecoderError;

/// What becomes of a row: what it wrote, or its index and why it can never run.
pub(crate) type RowResult = Result<FinishedRow, (u32, SubmitError)>;

/// A row on its way into the batch.
struct QueuedRow {
    request: RowRequest,
    states: PromptStates,
    /// Tokens of the queue's budget, given back when the row is prefilled.
    _budget: OwnedSemaphorePermit,
    done: mpsc::Sender<RowResult>,
}

enum Command {
    Submit(QueuedRow),
    Cancel(GroupId),
}

/// The queue's end that shards hold. The thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct EngineQueue {
    /// Unbounded as a channel, bounded by `budget`: a row is sent with its permit, and a group is cancelled once.
    commands: mpsc::UnboundedSender<Command>,
    budget: Arc<Semaphore>,
    max_waiting_tokens: u32,
    next_group: Arc<AtomicU64>,
    num_steps: Arc<AtomicU64>,
}

/// Submits the rows of one group: one attempt at a shard.
#[derive(Debug)]
pub(crate) struct RowSubmitter {
    queue: EngineQueue,
    group: GroupId,
    done: mpsc::Sender<RowResult>,
}

/// Receives the results of a group. Dropping it cancels the rows that are not done.
#[derive(Debug)]
pub(crate) struct RowResults {
    queue: EngineQueue,
    group: GroupId,
    done: mpsc::Receiver<RowResult>,
}

impl EngineQueue {
    /// Starts the thread and loads the model on it. `max_waiting_tokens`: prompt tokens whose states may wait, all shards together.
    pub(crate) async fn start(
        max_waiting_tokens: u32,
        load: impl FnOnce() -> Result<(SlmDecoder, Scheduler), ModelError> + Send + 'static,
    ) -> Result<(EngineQueue, ModelThread), ModelThreadError> {
        let (commands, queued) = mpsc::unbounded_channel();
        let num_steps = Arc::new(AtomicU64::new(0));
        let steps_taken = Arc::clone(&num_steps);
        let run = move |(decoder, scheduler)| {
            let (waiting, live) = (HashMap::new(), HashMap::new());
            Engine { decoder, scheduler, waiting, live, steps_taken }.run(queued);
        };
        let thread = ModelThread::start("decoder-engine", load, run).await?;
        let budget = Arc::new(Semaphore::new(max_waiting_tokens as usize));
        let next_group = Arc::default();
        Ok((EngineQueue { commands, budget, max_waiting_tokens, next_group, num_steps }, thread))
    }

    /// Opens a group of at most `max_rows` rows.
    pub(crate) fn open_group(&self, max_rows: u32) -> (RowSubmitter, RowResults) {
        // One place per row, so that the engine never waits for a shard.
        let (sender, receiver) = mpsc::channel((max_rows as usize).max(1));
        let group = GroupId(self.next_group.fetch_add(1, Ordering::Relaxed));
        let submitter = RowSubmitter { queue: self.clone(), group, done: sender };
        (submitter, RowResults { queue: self.clone(), group, done: receiver })
    }

    /// Steps the engine has taken, for all shards. As long as it grows, rows that wait will have their turn.
    pub(crate) fn num_steps(&self) -> u64 {
        self.num_steps.load(Ordering::Relaxed)
    }
}

impl RowSubmitter {
    /// Queues a row, waiting until the budget has room for its states. Dropping the future queues nothing.
    pub(crate) async fn submit(
        &self,
        index: u32,
        states: PromptStates,
        limits: GenerationLimits,
    ) -> Result<(), DecoderError> {
        let prompt_len = states.prompt_len;
        // A prompt above the whole budget passes when it has the budget for itself.
        let tokens = u32::try_from(prompt_len).unwrap_or(u32::MAX).min(self.queue.max_waiting_tokens);
        let budget = Arc::clone(&self.queue.budget).acquire_many_owned(tokens).await;
        let _budget = budget.expect("the semaphore is never closed");
        let request = RowRequest { row: RowId { group: self.group, index }, prompt_len, limits };
        let row = QueuedRow { request, states, _budget, done: self.done.clone() };
        self.queue.commands.send(Command::Submit(row)).map_err(|_| DecoderError::RowsLost)
    }
}

impl RowResults {
    /// The next result; `None` when the submitter is dropped and no submitted row is left, be it that all are done or that the
    /// engine has died.
    pub(crate) async fn next(&mut self) -> Option<RowResult> {
        self.done.recv().await
    }
}

impl Drop for RowResults {
    fn drop(&mut self) {
        // If the engine is gone, so are the rows.
        let _ = self.queue.commands.send(Command::Cancel(self.group));
    }
}

/// What the thread owns.
struct Engine {
    decoder: SlmDecoder,
    scheduler: Scheduler,
    waiting: HashMap<RowId, QueuedRow>,
    live: HashMap<RowId, mpsc::Sender<RowResult>>,
    steps_taken: Arc<AtomicU64>,
}

impl Engine {
    /// Runs until all queues are dropped.
    fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let plan = self.scheduler.schedule();
            if plan.is_empty() {
                let Some(command) = commands.blocking_recv() else { return };
                self.obey(command);
            } else {
                self.prefill(&plan.prefill);
                let choices = self.decoder.step(&plan.step);
                self.steps_taken.fetch_add(1, Ordering::Relaxed);
                for finished in self.scheduler.absorb(&choices) {
                    self.decoder.release(finished.slot);
                    if let Some(done) = self.live.remove(&finished.row) {
                        // A full or closed channel is a shard that was cancelled.
                        let _ = done.try_send(Ok(finished));
                    }
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.obey(command);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(row) => match self.scheduler.submit(row.request) {
                Ok(()) => drop(self.waiting.insert(row.request.row, row)),
                Err(error) => drop(row.done.try_send(Err((row.request.row.index, error)))),
            },
            Command::Cancel(group) => {
                for cancelled in self.scheduler.cancel(group) {
                    match cancelled.slot {
                        None => drop(self.waiting.remove(&cancelled.row)),
                        Some(slot) => {
                            self.decoder.release(slot);
                            self.live.remove(&cancelled.row);
                        }
                    }
                }
            }
        }
    }

    fn prefill(&mut self, assignments: &[SlotAssignment]) {
        if assignments.is_empty() {
            return;
        }
        let entering: Vec<(&SlotAssignment, QueuedRow)> = assignments
            .iter()
            .map(|entry| {
                (
                    entry,
                    self.waiting.remove(&entry.row).expect("a row is scheduled once, after it was queued"),
                )
            })
            .collect();
        let rows: Vec<PrefillRow<'_>> = entering
            .iter()
            .map(|(entry, row)| PrefillRow {
                slot: entry.slot,
                states: &row.states,
                capacity_tokens: entry.capacity_tokens,
            })
            .collect();
        self.decoder.prefill(&rows);
        self.live.extend(entering.into_iter().map(|(entry, row)| (entry.row, row.done)));
    }
}
