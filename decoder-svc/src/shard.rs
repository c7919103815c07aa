//! One attempt at one shard, from its first record to its receipt.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use baton_decoding::{Copying, DraftCounts, FinishedRow, FinishedSequence, Generation};
use baton_job::{Alternative, GenerationOptions, Mode, TermCounts, TierSums};
use baton_proto::wire::{
    DecodeShardRequest, Drafts, Escalation, ShardEvent, ShardProgress, ShardReceipt, decode_shard_request,
    shard_event,
};
use baton_proto::{FoundPrompts, PromptHead, RecordHead, ShardAttempt, WireError, receive_error, wire};
use baton_quality::LogProbabilities;
use baton_reuse::SegmentKey;
use baton_segments::{Segment, Unit};
use baton_store::{Location, Store};
use baton_text::View;
use baton_worker::{EventSender, MemoryShare, OpenShard};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Streaming;
use tracing::Instrument;

use crate::DecoderError;
use crate::collector::{Outcome, ShardCollector};
use crate::commit::{Commit, commit};
use crate::engine::{NewRow, RowResults, RowSubmitter, WrittenRow};
use crate::generation::output_text;
use crate::joined::{Generated, SegmentOutput};
use crate::judge::Judge;
use crate::loaded::LoadedDecoder;
use crate::memory::{Announced, outputs_num_bytes, received_num_bytes};
use crate::prompt_assembler::PromptAssembler;
use crate::retry::Retry;
use crate::reuse::ShardReuse;
use crate::tier::{TierEnd, end_tier};
use crate::writer::RowPrompt;

/// How often a stream reports progress: often for a progress bar, and far more often than leases expire.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

const NO_PANIC: &str = "no holder of this lock panics";

/// The decoder's notes about a shard that it has taken on.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The generation options of its rows.
    pub(crate) generation: Arc<Generation>,
    pub(crate) announced: Announced,
}

/// An attempt under way.
struct ShardWork<'a> {
    decoder: &'a LoadedDecoder,
    attempt: ShardAttempt,
    generation: Arc<Generation>,
    announced: Announced,
    /// The options of second tries, if the job has them.
    second_try: Option<Arc<GenerationOptions>>,
    collector: Mutex<ShardCollector>,
    reuse: Mutex<ShardReuse>,
}

/// Runs an attempt; its receipt is the last event sent. Dropping the future cancels its rows.
pub(crate) async fn process(
    decoder: &LoadedDecoder,
    shard: OpenShard<LoadedDecoder>,
    events: &EventSender,
) -> Result<(), DecoderError> {
    let OpenShard { attempt, accepted, rules, mut requests, mut memory, .. } = shard;
    let Accepted { generation, announced } = accepted;
    let judge = Judge::of(&attempt.generation, attempt.mode, &decoder.quality);
    let judge = judge.of_tier(attempt.tier.is_some());
    let collector = ShardCollector::new(attempt.num_entries, announced.num_segments);
    let unit = Unit::new(attempt.generation.by_sentence, attempt.generation.cut_long_texts);
    let collector = Mutex::new(collector.cut_by(unit).obeying(rules).judged_by(judge));
    let mut reuse = ShardReuse::default();
    if announced.has_keys {
        let keys = receive_keys(&mut requests, announced.num_prompts).await?;
        reuse = decoder.known.look_up(&attempt, keys).await;
        tell_found(reuse.found(), events).await;
    }
    let reuse = Mutex::new(reuse);
    let second_try = attempt.generation.second_try().map(Arc::new);
    let work = ShardWork { decoder, attempt, generation, announced, second_try, collector, reuse };
    let store = work.open_output().await?;
    let (rows, results) = decoder.engine.open_group();
    let receive = work.receive(requests, rows);
    let ((), drafts) = tokio::try_join!(receive, work.collect(results, &mut memory, events))?;

    let (outcomes, reuse) = (work.take_outcomes(), std::mem::take(&mut *work.reuse()));
    let counts = reuse.counts();
    decoder.metrics.count(counts);
    let receipt = match work.attempt.is_probe {
        true => probe_receipt(&outcomes),
        // Side by side, as the cache is in no hurry, and nobody works on a shard after its receipt.
        false => tokio::join!(work.end(&store, outcomes, &mut memory), reuse.save()).0?,
    };
    let drafts = (work.attempt.mode == Mode::Verified).then_some(Drafts {
        drafted_tokens: drafts.drafted,
        accepted_tokens: drafts.accepted,
        llm_passes: drafts.passes,
    });
    let receipt = ShardReceipt { drafts, reuse: Some(counts.into()), ..receipt };
    let event = shard_event::Event::Receipt(receipt);
    let _ = events.send(Ok(ShardEvent { event: Some(event) })).await; // the commit stands, heard or not
    Ok(())
}

impl ShardWork<'_> {
    /// Commits the shard, or ends its tier of a cascade.
    async fn end(
        &self,
        store: &Store,
        outcomes: Vec<Outcome>,
        memory: &mut MemoryShare,
    ) -> Result<ShardReceipt, DecoderError> {
        let Some(tier) = &self.attempt.tier else { return self.commit(store, &outcomes, &[]).await };
        let (shard, num_entries) = (self.attempt.lease.shard, self.attempt.num_entries);
        match end_tier(store, shard, (tier, outcomes), memory).await? {
            TierEnd::Done(whole) => self.commit(store, &whole.outcomes, &whole.tiers).await,
            TierEnd::GoesOn(positions) => {
                let escalated = positions.len();
                tracing::info!(tier = tier.name, records = num_entries, escalated, "tier is done");
                let escalation = Some(Escalation { positions });
                Ok(ShardReceipt { records: num_entries, escalation, ..ShardReceipt::default() })
            }
        }
    }

    async fn commit(
        &self,
        store: &Store,
        outcomes: &[Outcome],
        tiers: &[TierSums],
    ) -> Result<ShardReceipt, DecoderError> {
        let (metrics, started) = (&self.decoder.metrics, Instant::now());
        let (shard, review) = (self.attempt.lease.shard, self.attempt.generation.review);
        let commit = commit(store, shard, (&self.attempt.parts, review), (outcomes, tiers))
            .instrument(tracing::info_span!("commit"))
            .await?;
        let receipt = receipt(&commit);
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

    /// Reads the stream to its end and queues its prompts, waiting where the engine's queue is full.
    async fn receive(
        &self,
        mut requests: Streaming<DecodeShardRequest>,
        rows: RowSubmitter,
    ) -> Result<(), DecoderError> {
        use decode_shard_request::Message;
        let LoadedDecoder { writer, max_prompt_tokens, .. } = self.decoder;
        let has_shortlist = self.attempt.generation.shortlist;
        let mut assembler =
            PromptAssembler::new(&writer.reads, *max_prompt_tokens).with_own_tokens(has_shortlist);
        let mut num_prompts = 0;
        let mut num_bytes_left = self.announced.num_bytes;
        let mut charge = |num_bytes: usize| {
            let expected = "no more bytes than the header announced";
            let left = num_bytes_left.checked_sub(num_bytes as u64);
            num_bytes_left = left.ok_or(WireError::UnexpectedMessage { expected })?;
            Ok::<_, WireError>(())
        };
        loop {
            let request = requests.message().await.map_err(|status| {
                DecoderError::Stream(receive_error(status, || {
                    format!("a message after {num_prompts} prompts")
                }))
            })?;
            let Some(request) = request else { break };
            let complete = match request.message {
                Some(Message::Record(head)) => {
                    let head = RecordHead::try_from(head)?;
                    charge(head.num_bytes())?;
                    self.collector().begin_record(head)?;
                    None
                }
                Some(Message::Failure(failure)) => {
                    let (index, failure) = failure.try_into()?;
                    self.collector().fail(index, failure)?;
                    None
                }
                Some(Message::Prompt(prompt)) => {
                    num_prompts += 1;
                    self.check_num_prompts(num_prompts)?;
                    let (head, payload): (PromptHead, _) = prompt.try_into()?;
                    charge(head.segment.num_bytes())?;
                    assembler.begin(head, payload)?
                }
                Some(Message::MoreStates(chunk)) => assembler.go_on(&chunk.states)?,
                Some(Message::Repeat(repeat)) => {
                    let (segment, row) = repeat.try_into()?;
                    charge(segment.num_bytes())?;
                    self.collector().join(segment, row)?;
                    self.reuse().repeat();
                    None
                }
                Some(Message::Reused(reused)) => {
                    num_prompts += 1;
                    self.check_num_prompts(num_prompts)?;
                    let PromptHead { segment, prompt_len, number } = reused.try_into()?;
                    charge(segment.num_bytes())?;
                    let outputs = self.reuse().reuse(number)?;
                    let mut collector = self.collector();
                    let row = collector.begin(segment, prompt_len)?;
                    collector.finish(row, Ok(outputs));
                    None
                }
                Some(Message::Header(_) | Message::Keys(_)) | None => {
                    let expected = "a record, a failure, or a prompt";
                    return Err(WireError::UnexpectedMessage { expected }.into());
                }
            };
            if let Some((PromptHead { segment, prompt_len, number }, prompt)) = complete {
                let random_stream = self.random_stream(&segment);
                let generation = self.generation_of(&segment, &prompt)?;
                let retry = self.retry_of(&segment, &generation);
                self.reuse().begin(number)?;
                let index = self.collector().begin(segment, prompt_len)?;
                rows.submit(NewRow { index, prompt, generation, random_stream, retry }).await?;
            }
        }
        assembler.check_complete()?;
        self.collector().check_all_received()?;
        Ok(())
    }

    fn check_num_prompts(&self, num_prompts: u64) -> Result<(), WireError> {
        match num_prompts <= self.announced.num_prompts {
            true => Ok(()),
            false => {
                Err(WireError::UnexpectedMessage { expected: "no more prompts than the header announced" })
            }
        }
    }

    /// A segment's random numbers depend only on its place in the job. Entries number the lower bits,
    /// segments the upper ones.
    fn random_stream(&self, segment: &Segment) -> u64 {
        let tier = self.attempt.tier.as_ref();
        let position = tier.map_or(segment.record, |tier| tier.position_of(segment.record));
        let entry = self.attempt.first_entry + u64::from(position);
        entry ^ (u64::from(segment.number) << u32::BITS)
    }

    /// The options of a row: those of the job, with the limit and language of its record, the words that it
    /// may copy, and the tokens that its prompt lists.
    fn generation_of(&self, segment: &Segment, prompt: &RowPrompt) -> Result<Arc<Generation>, DecoderError> {
        let (limit, languages) = self.collector().own_settings(segment.record);
        let listed = prompt.own_tokens.as_ref().and_then(|tokens| self.decoder.writer.listed(tokens));
        let copying = self.copying_of(segment);
        if limit.is_none() && languages.target.is_none() && listed.is_none() && copying.is_none() {
            return Ok(Arc::clone(&self.generation));
        }
        let limit = limit.map_or(usize::MAX, |limit| limit.max(1) as usize);
        let model_limit = self.generation.model_limit.min(limit);
        let first_token = match languages.target {
            Some(_) => self.decoder.writer.first_token(&self.attempt.generation, &languages)?,
            None => self.generation.first_token,
        };
        let generation = Generation::clone(&self.generation);
        Ok(Arc::new(Generation { model_limit, first_token, listed, copying, ..generation }))
    }

    /// The second try of a row, if the job has one: by the options of `generation`, without its biases and
    /// its shortlist. Terms stay.
    fn retry_of(&self, segment: &Segment, generation: &Generation) -> Option<Retry> {
        let options = self.second_try.clone()?;
        let rules = self.collector().rules_of(segment.record);
        let (text, terms) = {
            let prepared = rules.prepare(&segment.text);
            let View { text, terms } = prepared.view();
            (text.to_owned(), terms.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let copying = generation.copying.clone().filter(|_| !terms.is_empty());
        let generation = Generation { options, copying, listed: None, ..generation.clone() };
        let tokenizer = Arc::clone(&self.decoder.writer.tokenizer);
        Some(Retry { generation: Arc::new(generation), tokenizer, text, terms, rules })
    }

    fn copying_of(&self, segment: &Segment) -> Option<Copying> {
        let options = &self.attempt.generation;
        let rules = self.collector().rules_of(segment.record);
        if !options.copies_words() && !rules.has_terms() {
            return None;
        }
        let vocabulary = Arc::clone(&self.decoder.writer.vocabulary);
        let (copy_bias, name_bias) = (options.copy_bias as f32, options.name_bias as f32);
        let prepared = rules.prepare(&segment.text);
        let View { text, terms } = prepared.view(); // no more of it: equal views share outputs
        match (options.copies_words(), terms.is_empty()) {
            (_, false) => Some(Copying::of_terms(&terms.join(". "), vocabulary)),
            (true, true) => Some(Copying::of_text(text, copy_bias, name_bias, vocabulary)),
            (false, true) => None,
        }
    }

    /// Takes in finished rows until none is left, and counts their tokens. Reports regularly, even while this
    /// shard's rows wait for others', as long as the engine works: a waiting shard is not lost.
    async fn collect(
        &self,
        mut results: RowResults,
        memory: &mut MemoryShare,
        events: &EventSender,
    ) -> Result<DraftCounts, DecoderError> {
        let mut progress = ShardProgress::default();
        let mut drafts = DraftCounts::default();
        let mut num_bytes = received_num_bytes(&self.attempt, self.announced) + self.reuse().num_bytes();
        memory.settle(num_bytes.max(memory.num_bytes()));
        let mut reports = interval(REPORT_INTERVAL);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut num_steps_reported = self.decoder.engine.num_steps();
        loop {
            tokio::select! {
                result = results.next() => match result {
                    Some(Ok(WrittenRow { row, other })) => {
                        let outputs = row.outputs.iter().chain(other.iter().flat_map(|row| &row.outputs));
                        let num_tokens: usize = outputs.map(|output| output.num_tokens).sum();
                        let mut of_row = row.drafts;
                        other.iter().for_each(|other| of_row.add(other.drafts));
                        self.count(num_tokens as u64, of_row);
                        self.decoder.metrics.retried_rows.inc_by(u64::from(other.is_some()));
                        drafts.add(of_row);
                        let generated = self.detokenize(&row);
                        num_bytes += generated.as_ref().map_or(0, |outputs| outputs_num_bytes(outputs));
                        memory.settle(num_bytes.max(memory.num_bytes()));
                        self.reuse().finish(row.row.index, &generated, &self.decoder.known);
                        let mut collector = self.collector();
                        collector.finish(row.row.index, generated);
                        progress.decoded_records = collector.num_done();
                        progress.decoded_output_tokens += num_tokens as u64;
                    }
                    Some(Err((row, source))) => {
                        let index = self.collector().entry_of(row);
                        return Err(DecoderError::Refused { index, source });
                    }
                    None => break,
                },
                _ = reports.tick() => {
                    let num_steps = self.decoder.engine.num_steps();
                    if num_steps > num_steps_reported {
                        num_steps_reported = num_steps;
                        let event = shard_event::Event::Progress(progress);
                        // If nobody reads the stream, another task cancels this one.
                        let _ = events.send(Ok(ShardEvent { event: Some(event) })).await;
                    }
                }
            }
        }
        match self.collector().is_complete() {
            true => Ok(drafts),
            false => Err(DecoderError::RowsLost),
        }
    }

    fn collector(&self) -> MutexGuard<'_, ShardCollector> {
        self.collector.lock().expect(NO_PANIC)
    }

    fn reuse(&self) -> MutexGuard<'_, ShardReuse> {
        self.reuse.lock().expect(NO_PANIC)
    }

    /// The outcome of every entry, once all rows are done.
    fn take_outcomes(&self) -> Vec<Outcome> {
        std::mem::replace(&mut *self.collector(), ShardCollector::new(0, 0)).into_outcomes()
    }

    fn count(&self, num_tokens: u64, drafts: DraftCounts) {
        let metrics = &self.decoder.metrics;
        metrics.output_tokens.inc_by(num_tokens);
        metrics.drafted_tokens.inc_by(drafts.drafted);
        metrics.accepted_tokens.inc_by(drafts.accepted);
        metrics.llm_passes.inc_by(drafts.passes);
    }

    fn detokenize(&self, row: &FinishedRow) -> Generated {
        row.outputs.iter().map(|sequence| self.detokenize_sequence(sequence)).collect()
    }

    fn detokenize_sequence(&self, sequence: &FinishedSequence) -> Result<SegmentOutput, &'static str> {
        if sequence.score.is_nan() {
            return Err("the model's logits for this prompt are not numbers");
        }
        let stop_strings = &self.attempt.generation.stop_strings;
        let alternative = Alternative {
            output: output_text(sequence, stop_strings, &self.decoder.writer.tokenizer)?,
            score: f64::from(sequence.score),
            output_tokens: u32::try_from(sequence.num_tokens)
                .expect("a sequence has at most max_new_tokens, a u32"),
            finish_reason: sequence.finish_reason,
        };
        let log_probabilities = LogProbabilities {
            mean: f64::from(sequence.log_probabilities.mean),
            worst: f64::from(sequence.log_probabilities.worst),
        };
        Ok(SegmentOutput { alternative, log_probabilities })
    }
}

/// Reads the keys of `num_prompts` prompts, which are all that comes before the decoder's answer.
async fn receive_keys(
    requests: &mut Streaming<DecodeShardRequest>,
    num_prompts: u64,
) -> Result<Vec<SegmentKey>, DecoderError> {
    let mut keys: Vec<SegmentKey> = Vec::new();
    while (keys.len() as u64) < num_prompts {
        let request = requests.message().await.map_err(DecoderError::Stream)?;
        let Some(decode_shard_request::Message::Keys(next)) = request.and_then(|request| request.message)
        else {
            return Err(WireError::UnexpectedMessage { expected: "the keys of the shard's prompts" }.into());
        };
        keys.extend(Vec::<SegmentKey>::try_from(next)?);
    }
    match keys.len() as u64 == num_prompts {
        true => Ok(keys),
        false => {
            Err(WireError::UnexpectedMessage { expected: "as many keys as the header announced prompts" }
                .into())
        }
    }
}

/// Says which prompts need not be sent. If nobody reads the stream, another task cancels this one.
async fn tell_found(found: FoundPrompts, events: &EventSender) {
    let event = shard_event::Event::Found(found.into());
    let _ = events.send(Ok(ShardEvent { event: Some(event) })).await;
}

fn receipt(commit: &Commit) -> ShardReceipt {
    let outputs = &commit.verdict.outputs;
    ShardReceipt {
        records: commit.verdict.records as u32,
        failed_records: commit.verdict.failed.len() as u32,
        prompt_tokens: outputs.prompt_tokens,
        llm_prompt_tokens: outputs.llm_prompt_tokens,
        output_tokens: outputs.output_tokens,
        part_num_bytes: outputs.bytes,
        part_sha256: outputs.sha256.clone(),
        already_committed: commit.already_committed,
        drafts: None,
        warnings: outputs.warnings.iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        reuse: None,
        escalation: None,
        tiers: commit.verdict.tiers.iter().map(wire::TierSums::from).collect(),
        terms: (!outputs.terms.is_empty()).then(|| wire_terms(&outputs.terms)),
    }
}

fn wire_terms(terms: &TermCounts) -> wire::TermCounts {
    let TermCounts { occurrences, missed, missed_by_term } = terms;
    let missed_by_term = missed_by_term.iter().map(|(term, &count)| (term.clone(), count)).collect();
    wire::TermCounts { occurrences: *occurrences, missed: *missed, missed_by_term }
}

fn probe_receipt(outcomes: &[Outcome]) -> ShardReceipt {
    let num_failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
    ShardReceipt {
        records: outcomes.len() as u32,
        failed_records: num_failed as u32,
        ..ShardReceipt::default()
    }
}
