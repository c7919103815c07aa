//! One attempt at one shard, from its first prompt to its receipt.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_decoding::{Copying, DraftCounts, FinishedRow, FinishedSequence, Generation, Method};
use baton_job::{Alternative, FinishReason, Mode};
use baton_proto::wire::{
    DecodeShardRequest, Drafts, Prompt, ShardEvent, ShardProgress, ShardReceipt, decode_shard_request,
    shard_event,
};
use baton_proto::{PromptHead, ShardAttempt, WireError, receive_error};
use baton_store::{Location, Store};
use baton_worker::{EventSender, MemoryShare};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Streaming;

use crate::DecoderError;
use crate::collector::{Generated, Outcome, ShardCollector};
use crate::commit::{Commit, commit};
use crate::engine::{RowResults, RowSubmitter};
use crate::generation::cut_at_stop_string;
use crate::prompt_assembler::PromptAssembler;
use crate::service::Shared;
use crate::writer::RowPrompt;

/// How often a stream reports progress: often for a progress bar, and far more often than leases expire.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// What a token of output takes until it is committed: its id, and its text, generously.
const NUM_BYTES_PER_OUTPUT_TOKEN: usize = 12;

const NO_PANIC: &str = "no holder of this lock panics";

/// An attempt that was accepted.
pub(crate) struct ShardWork {
    pub(crate) shared: Arc<Shared>,
    pub(crate) attempt: ShardAttempt,
    pub(crate) generation: Arc<Generation>,
}

/// Reads the first message of a stream.
pub(crate) async fn receive_header(
    requests: &mut Streaming<DecodeShardRequest>,
) -> Result<ShardAttempt, DecoderError> {
    use decode_shard_request::Message;
    match requests.message().await.map_err(DecoderError::Stream)?.and_then(|request| request.message) {
        Some(Message::Header(header)) => Ok(header.try_into()?),
        _ => Err(WireError::UnexpectedMessage { expected: "a header" }.into()),
    }
}

impl ShardWork {
    /// Runs the attempt; its receipt is the last event sent. Dropping the future cancels its rows.
    pub(crate) async fn process(
        self,
        requests: Streaming<DecodeShardRequest>,
        events: EventSender,
    ) -> Result<(), DecoderError> {
        let events = &events;
        let store = self.open_output().await?;
        let (rows, results) = self.shared.engine.open_group();
        let collector = Mutex::new(ShardCollector::new(self.attempt.num_entries));
        let mut memory = self.shared.records.share(); // held until the shard is committed
        let receive = self.receive(requests, rows, &collector, &mut memory);
        let collect = self.collect(results, &collector, events);
        let ((), drafts) = tokio::try_join!(receive, collect)?;

        let outcomes = collector.into_inner().expect(NO_PANIC).into_outcomes();
        let receipt = match self.attempt.is_probe {
            true => probe_receipt(&outcomes),
            false => self.commit(&store, &outcomes).await?,
        };
        let drafts = (self.attempt.mode == Mode::Verified).then_some(Drafts {
            drafted_tokens: drafts.drafted,
            accepted_tokens: drafts.accepted,
            llm_passes: drafts.passes,
        });
        let receipt = ShardReceipt { drafts, ..receipt };
        let event = shard_event::Event::Receipt(receipt);
        let _ = events.send(Ok(ShardEvent { event: Some(event) })).await; // the commit stands, heard or not
        Ok(())
    }

    async fn commit(&self, store: &Store, outcomes: &[Outcome]) -> Result<ShardReceipt, DecoderError> {
        let (metrics, started) = (&self.shared.metrics, Instant::now());
        let receipt = receipt(&commit(store, self.attempt.lease.shard, outcomes).await?);
        let elapsed = started.elapsed();
        metrics.commit_seconds.observe(elapsed.as_secs_f64());
        let ShardReceipt {
            records, failed_records, output_tokens, part_num_bytes, already_committed, ..
        } = receipt;
        if !already_committed {
            metrics.committed_bytes.inc_by(part_num_bytes);
        }
        tracing::info!(
            records,
            failed_records,
            output_tokens,
            part_num_bytes,
            already_committed,
            commit_time = ?elapsed,
            "shard is committed"
        );
        Ok(receipt)
    }

    async fn open_output(&self) -> Result<Store, DecoderError> {
        let location = &self.attempt.output_location;
        let opening = |source| DecoderError::Output { location: location.clone(), source };
        Store::open(Location::parse(location).map_err(opening)?).await.map_err(opening)
    }

    /// What a prompt's record takes of the memory budget until the shard is committed: what it came with, and what may be written.
    fn record_num_bytes(&self, prompt: &Prompt) -> usize {
        let received = prompt.id.len() + prompt.extra_fields_json.len() + prompt.text.len();
        let num_written = self.generation.limits.max_new_tokens * self.generation.num_sequences();
        received + size_of::<PromptHead>() + num_written * NUM_BYTES_PER_OUTPUT_TOKEN
    }

    /// Reads the stream to its end and queues its prompts, waiting where the engine's queue is full.
    async fn receive(
        &self,
        mut requests: Streaming<DecodeShardRequest>,
        rows: RowSubmitter,
        collector: &Mutex<ShardCollector>,
        memory: &mut MemoryShare,
    ) -> Result<(), DecoderError> {
        use decode_shard_request::Message;
        let lock = || collector.lock().expect(NO_PANIC);
        let Shared { writer, max_prompt_tokens, .. } = &*self.shared;
        let mut assembler = PromptAssembler::new(&writer.reads, *max_prompt_tokens);
        let mut seen = SeenPrompts::new(&self.generation);
        let mut num_prompts = 0;
        loop {
            let request = requests.message().await.map_err(|status| {
                DecoderError::Stream(receive_error(status, || {
                    format!("a message after {num_prompts} prompts")
                }))
            })?;
            let Some(request) = request else { break };
            let complete = match request.message {
                Some(Message::Prompt(prompt)) => {
                    num_prompts += 1;
                    memory.grow(self.record_num_bytes(&prompt)).map_err(DecoderError::Stream)?;
                    let (head, payload) = prompt.try_into()?;
                    assembler.begin(head, payload)?
                }
                Some(Message::MoreStates(chunk)) => assembler.go_on(chunk.index, &chunk.states)?,
                Some(Message::Failure(failure)) => {
                    let (index, failure) = failure.try_into()?;
                    lock().fail(index, failure)?;
                    None
                }
                Some(Message::Header(_)) | None => {
                    return Err(WireError::UnexpectedMessage { expected: "a prompt or a failure" }.into());
                }
            };
            if let Some((head, prompt)) = complete {
                let next_row = lock().next_row();
                if let Some(twin) = seen.find_or_note(&prompt, next_row) {
                    lock().join(head, twin)?;
                    continue;
                }
                let random_stream = self.random_stream(&head);
                let row = lock().begin(head)?;
                let generation = self.generation_of(&prompt);
                rows.submit(row, prompt, &generation, random_stream).await?;
            }
        }
        assembler.check_complete()?;
        lock().check_all_received()?;
        Ok(())
    }

    /// What is drawn for a prompt depends on its place in the job alone. Entries number the lower bits, sentences the upper ones.
    fn random_stream(&self, head: &PromptHead) -> u64 {
        let entry = self.attempt.first_entry + u64::from(head.index);
        entry ^ (u64::from(head.sentence.number) << u32::BITS)
    }

    /// How a row is generated: as all of the job, but for the words that it may copy.
    fn generation_of(&self, prompt: &RowPrompt) -> Arc<Generation> {
        let options = &self.attempt.generation;
        if prompt.text.is_empty() || !options.copies_words() {
            return Arc::clone(&self.generation);
        }
        let vocabulary = Arc::clone(&self.shared.writer.vocabulary);
        let copying = Copying::of_text(&prompt.text, options.copy_bias, options.name_bias, vocabulary);
        Arc::new(Generation { copying: Some(copying), ..Generation::clone(&self.generation) })
    }

    /// Takes in finished rows until none is left. Reports now and then, and also while this shard's rows wait for others', as long as
    /// the engine works: waiting is not being lost.
    async fn collect(
        &self,
        mut results: RowResults,
        collector: &Mutex<ShardCollector>,
        events: &EventSender,
    ) -> Result<DraftCounts, DecoderError> {
        let mut progress = ShardProgress::default();
        let mut drafts = DraftCounts::default();
        let mut reports = interval(REPORT_INTERVAL);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut num_steps_reported = self.shared.engine.num_steps();
        loop {
            tokio::select! {
                result = results.next() => match result {
                    Some(Ok(row)) => {
                        let num_tokens: usize = row.outputs.iter().map(|output| output.num_tokens).sum();
                        self.count(num_tokens as u64, row.drafts);
                        drafts.add(row.drafts);
                        let generated = self.detokenize(&row);
                        let num_entries = collector.lock().expect(NO_PANIC).finish(row.row.index, generated);
                        progress.decoded_records += num_entries;
                        progress.decoded_output_tokens += num_tokens as u64;
                    }
                    Some(Err((row, source))) => {
                        let index = collector.lock().expect(NO_PANIC).entry_of(row);
                        return Err(DecoderError::Refused { index, source });
                    }
                    None => break,
                },
                _ = reports.tick() => {
                    let num_steps = self.shared.engine.num_steps();
                    if num_steps > num_steps_reported {
                        num_steps_reported = num_steps;
                        let event = shard_event::Event::Progress(progress);
                        // A stream that nobody reads cancels us elsewhere.
                        let _ = events.send(Ok(ShardEvent { event: Some(event) })).await;
                    }
                }
            }
        }
        match collector.lock().expect(NO_PANIC).is_complete() {
            true => Ok(drafts),
            false => Err(DecoderError::RowsLost),
        }
    }

    fn count(&self, num_tokens: u64, drafts: DraftCounts) {
        let metrics = &self.shared.metrics;
        metrics.output_tokens.inc_by(num_tokens);
        metrics.drafted_tokens.inc_by(drafts.drafted);
        metrics.accepted_tokens.inc_by(drafts.accepted);
        metrics.llm_passes.inc_by(drafts.passes);
    }

    fn detokenize(&self, row: &FinishedRow) -> Generated {
        row.outputs.iter().map(|sequence| self.detokenize_sequence(sequence)).collect()
    }

    fn detokenize_sequence(&self, sequence: &FinishedSequence) -> Result<Alternative, &'static str> {
        if sequence.score.is_nan() {
            return Err("the model's logits for this prompt are not numbers");
        }
        let text = self.shared.writer.tokenizer.decode(&sequence.tokens);
        let text = text.map_err(|_| "the output tokenizer refuses the generated tokens")?;
        Ok(Alternative {
            output: cut_at_stop_string(text, &self.attempt.generation.stop_strings),
            score: f64::from(sequence.score),
            output_tokens: u32::try_from(sequence.num_tokens)
                .expect("a sequence has at most max_new_tokens, a u32"),
            finish_reason: match sequence.finish_reason {
                baton_decoding::FinishReason::Stop => FinishReason::Stop,
                baton_decoding::FinishReason::Length => FinishReason::Length,
            },
        })
    }
}

/// The prompts of a shard by the digest of what is read of them, so that each is decoded once. Samples of equal prompts differ.
struct SeenPrompts {
    row_by_digest: Option<HashMap<[u8; 32], u32>>,
}

impl SeenPrompts {
    fn new(generation: &Generation) -> Self {
        let decodes_alike = !matches!(generation.method, Method::Sample(_));
        Self { row_by_digest: decodes_alike.then(HashMap::new) }
    }

    /// The row that this prompt has had before; otherwise notes that it has `row`.
    fn find_or_note(&mut self, prompt: &RowPrompt, row: u32) -> Option<u32> {
        let mut digest = Sha256::new();
        digest.update(prompt.states.as_ref().map_or(&[][..], |states| &states.data));
        for token in prompt.tokens.iter().flatten() {
            digest.update(token.to_le_bytes());
        }
        match self.row_by_digest.as_mut()?.entry(digest.finalize().into()) {
            Occupied(seen) => Some(*seen.get()),
            Vacant(unseen) => {
                unseen.insert(row);
                None
            }
        }
    }
}

fn receipt(commit: &Commit) -> ShardReceipt {
    let outputs = &commit.verdict.outputs;
    ShardReceipt {
        records: commit.verdict.records as u32,
        failed_records: commit.verdict.failed.len() as u32,
        prompt_tokens: outputs.prompt_tokens,
        output_tokens: outputs.output_tokens,
        part_num_bytes: outputs.bytes,
        part_sha256: outputs.sha256.clone(),
        already_committed: commit.already_committed,
        drafts: None,
    }
}

fn probe_receipt(outcomes: &[Outcome]) -> ShardReceipt {
    let num_failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
    ShardReceipt {
        records: outcomes.len() as u32,
        failed_records: num_failed as u32,
        ..ShardReceipt::default()
    }
}
