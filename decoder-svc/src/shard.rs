//! One attempt at one shard, from its first prompt to its receipt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_decoding::{FinishedRow, GenerationLimits};
use baton_job::FinishReason;
use baton_proto::wire::{
    DecodeShardRequest, ShardEvent, ShardProgress, ShardReceipt, decode_shard_request, shard_event,
};
use baton_proto::{ShardAttempt, WireError};
use baton_store::{Location, Store};
use baton_worker::EventSender;
use tokio::time::{MissedTickBehavior, interval};
use tonic::Streaming;

use crate::DecoderError;
use crate::collector::{Generated, ShardCollector};
use crate::commit::{Commit, commit};
use crate::engine::{RowResults, RowSubmitter};
use crate::prompt_assembler::PromptAssembler;
use crate::service::Shared;

/// How often a stream reports progress: often for a progress bar, and far more often than leases expire.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

const NO_PANIC: &str = "no holder of this lock panics";

/// An attempt that was accepted.
pub(crate) struct ShardWork {
    pub(crate) shared: Arc<Shared>,
    pub(crate) attempt: ShardAttempt,
    pub(crate) limits: GenerationLimits,
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
        let (rows, results) = self.shared.engine.open_group(self.attempt.num_entries);
        let collector = Mutex::new(ShardCollector::new(self.attempt.num_entries));
        let receive = self.receive(requests, rows, &collector);
        let collect = self.collect(results, &collector, events);
        tokio::try_join!(receive, collect)?;

        let outcomes = collector.into_inner().expect(NO_PANIC).into_outcomes();
        let commit = commit(&store, self.attempt.lease.shard, &outcomes).await?;
        let event = shard_event::Event::Receipt(receipt(&commit));
        let _ = events.send(Ok(ShardEvent { event: Some(event) })).await; // the commit stands, heard or not
        Ok(())
    }

    async fn open_output(&self) -> Result<Store, DecoderError> {
        let location = &self.attempt.output_location;
        let opening = |source| DecoderError::Output { location: location.clone(), source };
        Store::open(Location::parse(location).map_err(opening)?).await.map_err(opening)
    }

    /// Reads the stream to its end and queues its prompts, waiting where the engine's queue is full.
    async fn receive(
        &self,
        mut requests: Streaming<DecodeShardRequest>,
        rows: RowSubmitter,
        collector: &Mutex<ShardCollector>,
    ) -> Result<(), DecoderError> {
        use decode_shard_request::Message;
        let lock = || collector.lock().expect(NO_PANIC);
        let mut assembler = PromptAssembler::new(self.shared.d_slm, self.shared.max_prompt_tokens);
        while let Some(request) = requests.message().await.map_err(DecoderError::Stream)? {
            let complete = match request.message {
                Some(Message::Prompt(prompt)) => {
                    let (head, states) = prompt.try_into()?;
                    assembler.begin(head, states)?
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
            if let Some((head, states)) = complete {
                let index = head.index;
                lock().begin(head)?;
                rows.submit(index, states, self.limits).await?;
            }
        }
        assembler.check_complete()?;
        lock().check_all_received()?;
        Ok(())
    }

    /// Takes in finished rows until none is left. Reports now and then, and also while this shard's rows wait for others', as long as
    /// the engine works: waiting is not being lost.
    async fn collect(
        &self,
        mut results: RowResults,
        collector: &Mutex<ShardCollector>,
        events: &EventSender,
    ) -> Result<(), DecoderError> {
        let mut progress = ShardProgress::default();
        let mut reports = interval(REPORT_INTERVAL);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut num_steps_reported = self.shared.engine.num_steps();
        loop {
            tokio::select! {
                result = results.next() => match result {
                    Some(Ok(row)) => {
                        progress.decoded_records += 1;
                        progress.decoded_output_tokens += u64::from(num_output_tokens(&row));
                        let generated = self.detokenize(&row);
                        collector.lock().expect(NO_PANIC).finish(row.row.index, generated);
                    }
                    Some(Err((index, source))) => return Err(DecoderError::Refused { index, source }),
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
            true => Ok(()),
            false => Err(DecoderError::RowsLost),
        }
    }

    fn detokenize(&self, row: &FinishedRow) -> Result<Generated, &'static str> {
        let text = self.shared.tokenizer.decode(&row.tokens);
        Ok(Generated {
            text: text.map_err(|_| "the SLM's tokenizer refuses the generated tokens")?,
            score: f64::from(row.score),
            output_tokens: num_output_tokens(row),
            finish_reason: match row.finish_reason {
                baton_decoding::FinishReason::Stop => FinishReason::Stop,
                baton_decoding::FinishReason::Length => FinishReason::Length,
            },
        })
    }
}

/// Tokens written, the end token included.
fn num_output_tokens(row: &FinishedRow) -> u32 {
    let stop_tokens = usize::from(row.finish_reason == baton_decoding::FinishReason::Stop);
    u32::try_from(row.tokens.len() + stop_tokens).expect("a row writes at most max_new_tokens, a u32")
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
    }
}
