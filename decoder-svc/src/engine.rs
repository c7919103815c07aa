//! The threads that run the writing model, each with a continuous batch over rows of all shards, and the
//! queue in front of them.
//!
//! A row goes to the engine with the least outstanding work and stays there. Tokens bound the queue: each
//! waiting row holds a permit for as many tokens as its prompt has, and returns it when it is prefilled. A
//! shard that cannot get a permit stops reading its stream, which stops its encoder.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use baton_decoding::{FinishedRow, Generation, GroupId, Plan, RowId, RowRequest, Scheduler, SubmitError};
use baton_model::ModelError;
use baton_worker::{ModelThreadError, ModelThreads, Pulse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::DecoderError;
use crate::engine_models::EngineModels;
use crate::retry::Retry;
use crate::writer::RowPrompt;

/// The end of a row: its outputs, or its index and the reason why it can never run.
pub(crate) type RowResult = Result<WrittenRow, (u32, SubmitError)>;

/// The outputs of a row.
#[derive(Debug)]
pub(crate) struct WrittenRow {
    pub(crate) row: FinishedRow,
    /// Of the worse one of two tries.
    pub(crate) other: Option<FinishedRow>,
}

/// A row on its way to the engines.
#[derive(Debug)]
pub(crate) struct NewRow {
    pub(crate) index: u32,
    pub(crate) prompt: RowPrompt,
    pub(crate) generation: Arc<Generation>,
    pub(crate) random_stream: u64,
    pub(crate) retry: Option<Retry>,
}

/// A row on its way into the batch.
struct QueuedRow {
    request: RowRequest,
    prompt: RowPrompt,
    /// Tokens of the queue's budget, given back when the row is prefilled; a second try has none.
    _budget: Option<OwnedSemaphorePermit>,
    reply: RowReply,
    /// The way of a second try, or of this one if it is the second.
    retry: Option<Retry>,
    /// The first try, if this is the second.
    first: Option<FinishedRow>,
}

/// A row in the batch.
struct LiveRow {
    reply: RowReply,
    /// The prompt and the way of a second try, if there may be one.
    retry: Option<(RowPrompt, RowRequest, Retry)>,
    first: Option<FinishedRow>,
}

/// Where a row's result goes. As long as it lives, the row counts as its engine's work.
struct RowReply {
    done: mpsc::UnboundedSender<RowResult>,
    outstanding: Arc<AtomicUsize>,
    num_tokens: usize,
}

impl RowReply {
    fn new(
        done: mpsc::UnboundedSender<RowResult>,
        outstanding: &Arc<AtomicUsize>,
        num_tokens: usize,
    ) -> Self {
        outstanding.fetch_add(num_tokens, Ordering::Relaxed);
        Self { done, outstanding: Arc::clone(outstanding), num_tokens }
    }

    /// A closed channel is a shard that was cancelled.
    fn send(self, result: RowResult) {
        let _ = self.done.send(result);
    }
}

impl Drop for RowReply {
    fn drop(&mut self) {
        self.outstanding.fetch_sub(self.num_tokens, Ordering::Relaxed);
    }
}

enum Command {
    Submit(Box<QueuedRow>),
    Cancel(GroupId),
}

/// The queue's end that shards hold. The threads end when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct EngineQueue {
    engines: Arc<[EngineHandle]>,
    budget: Arc<Semaphore>,
    max_waiting_tokens: u32,
    next_group: Arc<AtomicU64>,
    num_steps: Arc<AtomicU64>,
    slots_in_use: Arc<AtomicU64>,
}

/// One engine, as the queue sees it.
#[derive(Debug)]
struct EngineHandle {
    /// Unbounded as a channel, bounded by the queue's budget: a row is sent with its permit, and a group is
    /// cancelled once.
    commands: mpsc::UnboundedSender<Command>,
    /// Tokens to be read and written at most by the rows that wait or live there.
    outstanding: Arc<AtomicUsize>,
}

/// How busy the engines are, now. Keeps no thread alive.
#[derive(Debug, Clone)]
pub(crate) struct EngineLoad {
    slots_in_use: Arc<AtomicU64>,
    budget: Arc<Semaphore>,
    max_waiting_tokens: u32,
}

/// Submits the rows of one group: one attempt at a shard.
#[derive(Debug)]
pub(crate) struct RowSubmitter {
    queue: EngineQueue,
    group: GroupId,
    done: mpsc::UnboundedSender<RowResult>,
}

/// Receives the results of a group. Dropping it cancels the rows that are not done.
#[derive(Debug)]
pub(crate) struct RowResults {
    queue: EngineQueue,
    group: GroupId,
    done: mpsc::UnboundedReceiver<RowResult>,
}

impl EngineQueue {
    /// Starts `engines` threads and loads a model on each. `max_waiting_tokens`: prompt tokens whose states
    /// may wait, all shards and engines together.
    pub(crate) async fn start(
        engines: usize,
        max_waiting_tokens: u32,
        load: impl Fn() -> Result<(EngineModels, Scheduler), ModelError> + Clone + Send + 'static,
    ) -> Result<(EngineQueue, ModelThreads), ModelThreadError> {
        let (handles, queues): (Vec<EngineHandle>, Vec<_>) = (0..engines.max(1))
            .map(|_| {
                let (commands, queued) = mpsc::unbounded_channel();
                (EngineHandle { commands, outstanding: Arc::default() }, Some(queued))
            })
            .unzip();
        let queues = Arc::new(Mutex::new(queues));
        let num_steps = Arc::new(AtomicU64::new(0));
        let steps_taken = Arc::clone(&num_steps);
        let slots_in_use = Arc::new(AtomicU64::new(0));
        let slots_taken = Arc::clone(&slots_in_use);
        let run = move |engine: usize, (models, scheduler), pulse: &Pulse| {
            let queued = queues.lock().expect("nothing panics under this lock")[engine].take();
            let engine = Engine {
                models,
                scheduler,
                plan: Plan::default(),
                waiting: HashMap::new(),
                live: HashMap::new(),
                steps_taken: Arc::clone(&steps_taken),
                slots_taken: Arc::clone(&slots_taken),
                num_slots_reported: 0,
            };
            engine.run(queued.expect("each engine starts once"), pulse);
        };
        let threads = ModelThreads::start("decoder-engine", handles.len(), load, run).await?;
        let budget = Arc::new(Semaphore::new(max_waiting_tokens as usize));
        let next_group = Arc::default();
        let engines = handles.into();
        let queue = EngineQueue { engines, budget, max_waiting_tokens, next_group, num_steps, slots_in_use };
        Ok((queue, threads))
    }

    /// Opens a group of rows.
    pub(crate) fn open_group(&self) -> (RowSubmitter, RowResults) {
        // Never more results than rows that were submitted, and the engine never waits for a shard.
        let (sender, receiver) = mpsc::unbounded_channel();
        let group = GroupId(self.next_group.fetch_add(1, Ordering::Relaxed));
        let submitter = RowSubmitter { queue: self.clone(), group, done: sender };
        (submitter, RowResults { queue: self.clone(), group, done: receiver })
    }

    /// Steps the engines have taken, for all shards. As long as it grows, rows that wait will have their
    /// turn.
    pub(crate) fn num_steps(&self) -> u64 {
        self.num_steps.load(Ordering::Relaxed)
    }

    /// How busy the engines are.
    pub(crate) fn load(&self) -> EngineLoad {
        let (slots_in_use, budget) = (Arc::clone(&self.slots_in_use), Arc::clone(&self.budget));
        EngineLoad { slots_in_use, budget, max_waiting_tokens: self.max_waiting_tokens }
    }
}

impl EngineLoad {
    /// Rows being decoded.
    pub(crate) fn slots_in_use(&self) -> u64 {
        self.slots_in_use.load(Ordering::Relaxed)
    }

    /// Prompt tokens that wait for a slot.
    pub(crate) fn waiting_tokens(&self) -> u64 {
        (self.max_waiting_tokens as usize).saturating_sub(self.budget.available_permits()) as u64
    }
}

impl RowSubmitter {
    /// Queues a row, waiting until the budget has room for its states. Dropping the future queues nothing.
    pub(crate) async fn submit(&self, row: NewRow) -> Result<(), DecoderError> {
        let NewRow { index, prompt, generation, random_stream, retry } = row;
        let prompt_len = prompt.len();
        // A prompt above the whole budget passes when it has the budget for itself.
        let tokens = u32::try_from(prompt_len).unwrap_or(u32::MAX).min(self.queue.max_waiting_tokens);
        let budget = Arc::clone(&self.queue.budget).acquire_many_owned(tokens).await;
        let _budget = Some(budget.expect("the semaphore is never closed"));
        let row = RowId { group: self.group, index };
        let num_tokens = prompt_len + generation.max_new_tokens_for(prompt_len);
        let request = RowRequest { row, prompt_len, generation, random_stream };
        let engines = self.queue.engines.iter();
        let engine = engines.min_by_key(|engine| engine.outstanding.load(Ordering::Relaxed));
        let engine = engine.expect("there is at least one engine");
        let reply = RowReply::new(self.done.clone(), &engine.outstanding, num_tokens);
        let row = QueuedRow { request, prompt, _budget, reply, retry, first: None };
        engine.commands.send(Command::Submit(Box::new(row))).map_err(|_| DecoderError::RowsLost)
    }
}

impl RowResults {
    /// The next result; `None` when the submitter is dropped and no submitted row is left, be it that all are
    /// done or that the engine has died.
    pub(crate) async fn next(&mut self) -> Option<RowResult> {
        self.done.recv().await
    }
}

impl Drop for RowResults {
    fn drop(&mut self) {
        for engine in self.queue.engines.iter() {
            // If the engine is gone, so are its rows.
            let _ = engine.commands.send(Command::Cancel(self.group));
        }
    }
}

/// The state of one thread.
struct Engine {
    models: EngineModels,
    scheduler: Scheduler,
    /// Overwritten before each step.
    plan: Plan,
    waiting: HashMap<RowId, QueuedRow>,
    live: HashMap<RowId, LiveRow>,
    /// Of all engines.
    steps_taken: Arc<AtomicU64>,
    /// Of all engines.
    slots_taken: Arc<AtomicU64>,
    num_slots_reported: u64,
}

impl Engine {
    /// Runs until all queues are dropped.
    fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, pulse: &Pulse) {
        loop {
            self.report_slots();
            self.scheduler.schedule(&mut self.plan);
            if self.plan.is_empty() {
                let Some(command) = commands.blocking_recv() else { return };
                self.obey(command);
            } else {
                pulse.pass(|| self.carry_out());
            }
            while let Ok(command) = commands.try_recv() {
                self.obey(command);
            }
        }
    }

    fn report_slots(&mut self) {
        let num_slots = self.live.len() as u64;
        self.slots_taken.fetch_add(num_slots.wrapping_sub(self.num_slots_reported), Ordering::Relaxed); // wraps to subtract
        self.num_slots_reported = num_slots;
    }

    /// Lets the model execute the plan, and hands out the rows that are then done.
    fn carry_out(&mut self) {
        let mut plan = std::mem::take(&mut self.plan);
        let prompt_of = |row| &self.waiting[&row].prompt;
        let finished = self.models.carry_out(&mut self.scheduler, &mut plan, prompt_of);
        for entry in &plan.prefill {
            let row = self.waiting.remove(&entry.row).expect("a row is scheduled once, after it was queued");
            let QueuedRow { request, prompt, reply, retry, first, .. } = row; // gives its budget back
            let retry = retry.map(|retry| (prompt, request, retry));
            self.live.insert(entry.row, LiveRow { reply, retry, first });
        }
        self.plan = plan; // for its memory
        self.steps_taken.fetch_add(1, Ordering::Relaxed);
        for row in finished {
            if let Some(live) = self.live.remove(&row.row) {
                self.finish(row, live);
            }
        }
    }

    /// Hands out a row that is done, or queues it once more.
    fn finish(&mut self, row: FinishedRow, live: LiveRow) {
        let LiveRow { reply, retry, first } = live;
        if let Some(first) = first {
            let is_better = retry.is_some_and(|(_, _, retry)| retry.is_better(&row, &first));
            let (row, other) = if is_better { (row, first) } else { (first, row) };
            return reply.send(Ok(WrittenRow { row, other: Some(other) }));
        }
        match retry.filter(|(_, _, retry)| retry.flaws(&row) > 0) {
            None => reply.send(Ok(WrittenRow { row, other: None })),
            Some((prompt, request, retry)) => {
                let request = RowRequest { generation: Arc::clone(&retry.generation), ..request };
                match self.scheduler.submit_again(request.clone()) {
                    Err(error) => reply.send(Err((request.row.index, error))),
                    Ok(()) => {
                        let (name, first) = (request.row, Some(row));
                        let again =
                            QueuedRow { request, prompt, _budget: None, reply, retry: Some(retry), first };
                        self.waiting.insert(name, again);
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(row) => match self.scheduler.submit(row.request.clone()) {
                Ok(()) => drop(self.waiting.insert(row.request.row, *row)),
                Err(error) => row.reply.send(Err((row.request.row.index, error))),
            },
            Command::Cancel(group) => {
                for row in self.scheduler.cancel(group) {
                    self.waiting.remove(&row);
                    self.live.remove(&row);
                }
            }
        }
    }
}
