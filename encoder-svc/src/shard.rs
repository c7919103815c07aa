//! One attempt at one shard, from its first record to the decoder's receipt.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex};

use baton_bundle::{Reading, RulesByLanguage};
use baton_generation::Method;
use baton_job::{LanguageChoice, ShardEntry};
use baton_proto::wire::decoder_client::DecoderClient;
use baton_proto::wire::{
    DecodeShardRequest, EncodeShardRequest, Repeat, ShardEvent, ShardProgress, decode_shard_request,
    encode_shard_request, shard_event,
};
use baton_proto::{
    DecodeHeader, FailureOrigin, FoundPrompts, IndexedEntry, MAX_MESSAGE_NUM_BYTES, PromptHead,
    PromptPayload, RecordHead, Refusal, ShardAttempt, WireError, key_messages, prompt_messages,
    receive_error,
};
use baton_segments::{Segment, Unit};
use baton_telemetry::TraceContext;
use baton_worker::{EventSender, MemoryShare, OpenShard};
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::loaded::LoadedEncoder;
use crate::prompts::{Cutting, ShardPrompts, SharedPrompt, SharedReading};
use crate::reuse::{SetAside, set_aside};
use crate::{EncoderError, pack_batches};

/// Messages between the encode loop and the decoder's stream; the stream's window is the real queue.
const DECODER_QUEUE: usize = 4;

/// The encoder's notes about a shard that it has taken on.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) decoder_endpoint: String,
}

/// An attempt under way.
struct ShardWork<'a> {
    encoder: &'a LoadedEncoder,
    attempt: ShardAttempt,
    accepted: Accepted,
    rules: Arc<RulesByLanguage>,
    trace: TraceContext,
    progress: Mutex<ShardProgress>,
    events: &'a EventSender,
}

/// The decoder's answers before any prompt is read.
struct DecoderAnswers {
    /// It has taken the shard on.
    begun: oneshot::Receiver<()>,
    /// It has looked for outputs by the prompts' keys, and has these.
    found: oneshot::Receiver<FoundPrompts>,
}

/// A prompt on its way to the decoder.
struct SentPrompt {
    prompt: SharedPrompt,
    prompt_len: usize,
    /// `None` if the decoder has its outputs.
    payload: Option<PromptPayload>,
}

/// Runs an attempt; its receipt is the last event sent. Dropping the future cancels it.
pub(crate) async fn process(
    encoder: &LoadedEncoder,
    shard: OpenShard<LoadedEncoder>,
    events: &EventSender,
) -> Result<(), EncoderError> {
    let OpenShard { attempt, accepted, rules, requests, mut memory, trace } = shard;
    let entries = receive_entries(requests, attempt.num_entries, &mut memory).await?;
    let progress = Mutex::default();
    let work = ShardWork { encoder, attempt, accepted, rules, trace, progress, events };
    let shard = work.prepare(entries).await;
    memory.grow(shard.num_bytes())?; // given back when the shard is done
    let (to_decoder, decoder_requests) = mpsc::channel(DECODER_QUEUE);
    let (has_begun, begun) = oneshot::channel();
    let (has_looked, found) = oneshot::channel();
    let answers = DecoderAnswers { begun, found };
    let feed = work.feed(shard, to_decoder, answers);
    tokio::try_join!(feed, work.relay(decoder_requests, has_begun, has_looked))?;
    let ShardProgress { encoded_records, encoded_prompt_tokens, .. } = work.progress();
    let decoder = &work.accepted.decoder_endpoint;
    tracing::info!(encoded_records, encoded_prompt_tokens, decoder, "shard is done");
    Ok(())
}

impl ShardWork<'_> {
    /// Cuts and tokenizes off the async threads; a shard of long texts takes a while.
    async fn prepare(&self, entries: Vec<ShardEntry>) -> ShardPrompts {
        let (readers, rules) = (Arc::clone(&self.encoder.readers), Arc::clone(&self.rules));
        let attempt = self.attempt.clone();
        let limits = self.encoder.limits;
        let generation = &self.attempt.generation;
        let unit = Unit::new(generation.by_sentence, generation.cut_long_texts);
        let (markup, context) = (generation.markup, generation.reader_context);
        let keys = self.encoder.keys.clone();
        let prepare = move || {
            let languages = entries.iter().filter_map(ShardEntry::record).map(|record| &record.languages);
            let languages: BTreeSet<LanguageChoice> = languages.cloned().collect();
            let speaking = |languages: LanguageChoice| {
                let spoken = match readers.problem_of_record(&attempt, &languages) {
                    None => readers.of(&attempt, &languages).map_err(|error| error.to_string()),
                    Some(problem) => Err(problem),
                };
                let keys = keys.speaking(&languages);
                let spoken = spoken.map(|reader| (reader, rules.of(&languages), keys));
                (languages, spoken)
            };
            let by_language: BTreeMap<_, _> = languages.into_iter().map(speaking).collect();
            let cutting = |languages: &LanguageChoice| {
                let (reader, rules, keys) = by_language[languages].as_ref().map_err(String::clone)?;
                Ok(Cutting { reader, limits, unit, markup, context, rules, keys })
            };
            ShardPrompts::new(cutting, entries)
        };
        let prepared = tokio::task::spawn_blocking(prepare).await;
        prepared.expect("cutting and tokenizing do not panic and are not aborted")
    }

    /// Encodes batch after batch and hands the states to the decoder's stream, waiting wherever that is full.
    /// Nothing is encoded before the decoder has taken the shard on and has said which outputs it has.
    async fn feed(
        &self,
        shard: ShardPrompts,
        to_decoder: mpsc::Sender<DecodeShardRequest>,
        answers: DecoderAnswers,
    ) -> Result<(), EncoderError> {
        let to_decoder = DecoderStream(to_decoder);
        if let Some(found) = self.open(&shard, &to_decoder, answers).await {
            self.feed_entries(shard, &found, &to_decoder).await.transpose()?;
        } // otherwise `relay` learns why
        Ok(())
    }

    /// Sends header and keys, and waits for the decoder's answers. `None` if the decoder ended the stream.
    async fn open(
        &self,
        shard: &ShardPrompts,
        to_decoder: &DecoderStream,
        answers: DecoderAnswers,
    ) -> Option<FoundPrompts> {
        use decode_shard_request::Message;
        let DecoderAnswers { begun, found } = answers;
        to_decoder.send(Message::Header(self.decode_header(shard).into())).await?;
        begun.await.ok()?;
        if !self.has_keys() {
            return Some(FoundPrompts::default());
        }
        for keys in key_messages(&shard.keys()) {
            to_decoder.send(Message::Keys(keys)).await?;
        }
        found.await.ok()
    }

    /// `None` if the decoder ended the stream.
    async fn feed_entries(
        &self,
        shard: ShardPrompts,
        found: &FoundPrompts,
        to_decoder: &DecoderStream,
    ) -> Option<Result<(), EncoderError>> {
        use decode_shard_request::Message;
        let ShardPrompts { records, failures, readings } = shard;
        for failure in failures {
            to_decoder.send(Message::Failure(failure.into())).await?;
        }
        let mut unread = UnreadSegments::of(&records, self.attempt.num_entries);
        let num_without_segments = records.iter().filter(|record| record.num_segments == 0).count();
        for record in records {
            to_decoder.send(Message::Record(record.into())).await?;
        }

        let (set_aside, mut readings) = set_aside(readings, found);
        let mut num_prompts = 0; // sent
        let mut num_records_done = num_without_segments as u32;
        for SetAside { prompt, prompt_len } in set_aside {
            num_records_done += unread.note_read(&prompt.segments);
            let sent = SentPrompt { prompt, prompt_len, payload: None };
            num_prompts += self.send(to_decoder, sent, num_prompts).await?;
        }
        self.report(|progress| progress.encoded_records += num_records_done).await;

        let num_tokens: Vec<usize> = readings.iter().map(|shared| shared.reading.num_tokens()).collect();
        let batches = pack_batches(&num_tokens, self.encoder.max_batch_tokens).into_iter().map(|batch| {
            let (mut batch_readings, mut prompts) = (Vec::new(), Vec::new());
            for &place in &batch {
                let SharedReading { reading, prompts: of_reading } = &mut readings[place];
                prompts.extend(reading.prompt_lens().into_iter().zip(std::mem::take(of_reading)));
                batch_readings.push(std::mem::take(reading));
            }
            let batch_tokens: usize = batch.iter().map(|&place| num_tokens[place]).sum();
            async move { (batch_tokens, prompts, self.payloads(batch_readings).await) }
        });
        // With an LLM in several parts, a batch is in each of them.
        let num_at_once = self.encoder.reader.as_ref().map_or(1, |reader| reader.num_parts());
        let mut encoded = pin!(stream::iter(batches).buffered(num_at_once));
        while let Some((batch_tokens, prompts, payloads)) = encoded.next().await {
            let payloads = match payloads {
                Ok(payloads) => payloads,
                Err(error) => return Some(Err(error)),
            };
            self.encoder.prompt_tokens.inc_by(batch_tokens as u64);
            let mut num_records_read = 0;
            for ((prompt_len, prompt), payload) in prompts.into_iter().zip(payloads) {
                num_records_read += unread.note_read(&prompt.segments);
                let sent = SentPrompt { prompt, prompt_len, payload: Some(payload) };
                num_prompts += self.send(to_decoder, sent, num_prompts).await?;
            }
            self.report(|progress| {
                progress.encoded_records += num_records_read;
                progress.encoded_prompt_tokens += batch_tokens as u64;
            })
            .await;
        }
        Some(Ok(()))
    }

    /// Sends a prompt for its segments: once, with references for the other segments, or once for each
    /// segment if their outputs differ. `num_sent`: prompts sent before. Returns the number of sent prompts.
    async fn send(&self, to_decoder: &DecoderStream, sent: SentPrompt, num_sent: u32) -> Option<u32> {
        use decode_shard_request::Message;
        let SentPrompt { prompt: SharedPrompt { segments, number, .. }, prompt_len, payload } = sent;
        let (prompt_len, mut num_prompts) = (prompt_len as u32, 0);
        for segment in segments {
            if num_prompts > 0 && !self.is_sampled() {
                let repeat = Repeat { segment: Some(segment.into()), prompt: num_sent };
                to_decoder.send(Message::Repeat(repeat)).await?;
                continue;
            }
            num_prompts += 1;
            let head = PromptHead { segment, prompt_len, number };
            match &payload {
                Some(payload) => to_decoder.send_prompt(head, payload.clone()).await?,
                None => to_decoder.send(Message::Reused(head.into())).await?,
            }
        }
        Some(num_prompts)
    }

    fn decode_header(&self, shard: &ShardPrompts) -> DecodeHeader {
        let num_head_bytes = shard.records.iter().map(RecordHead::num_bytes).sum::<usize>();
        DecodeHeader {
            attempt: self.attempt.clone(),
            num_segments: shard.segments().count() as u64,
            num_bytes: (num_head_bytes + shard.segments().map(Segment::num_bytes).sum::<usize>()) as u64,
            num_prompts: if self.is_sampled() { shard.segments().count() } else { shard.num_prompts() }
                as u64,
            num_text_bytes: shard.segments().map(|segment| segment.text.len()).sum::<usize>() as u64,
            has_keys: self.has_keys(),
        }
    }

    /// Whether outputs of equal segments are equal, and wanted: a probe is to decode.
    fn has_keys(&self) -> bool {
        !self.is_sampled() && !self.attempt.is_probe
    }

    /// Whether equal segments get different outputs.
    fn is_sampled(&self) -> bool {
        self.attempt.generation.method() == Method::Sample
    }

    /// The payload of each prompt of some readings, for the decoder.
    async fn payloads(&self, readings: Vec<Reading>) -> Result<Vec<PromptPayload>, EncoderError> {
        let ShardAttempt { mode, ref generation, .. } = self.attempt;
        let payload = |tokens| PromptPayload { tokens, ..PromptPayload::default() };
        let payloads_of = |reading: &Reading| match (mode.llm_writes(), generation.shortlist) {
            (true, _) => vec![payload(reading.llm_tokens.clone()); reading.prompt_lens().len()],
            (false, true) => reading.segments.iter().map(|segment| payload(segment.tokens.clone())).collect(),
            (false, false) => vec![PromptPayload::default(); reading.prompt_lens().len()],
        };
        let mut payloads: Vec<PromptPayload> = readings.iter().flat_map(payloads_of).collect();
        if let Some(reader) = &self.encoder.reader {
            let states = reader.encode(mode, readings).await?;
            for (payload, states) in payloads.iter_mut().zip(states.into_iter().flatten()) {
                payload.states = states.data;
            }
        }
        Ok(payloads)
    }

    /// Opens the decoder's stream and passes the decoder's events on, until the receipt. Tells `has_begun`
    /// when the decoder has taken the shard on, and `has_looked` which outputs it has.
    async fn relay(
        &self,
        decoder_requests: mpsc::Receiver<DecodeShardRequest>,
        has_begun: oneshot::Sender<()>,
        has_looked: oneshot::Sender<FoundPrompts>,
    ) -> Result<(), EncoderError> {
        let decoder_endpoint = &self.accepted.decoder_endpoint;
        let answered = |origin: FailureOrigin, status: Status| {
            let origin = FailureOrigin::of(&status).unwrap_or(origin); // the decoder knows better
            let message = format!("decoder {decoder_endpoint}: {}", status.message());
            let relayed = origin.mark(Status::new(status.code(), message));
            EncoderError::Relayed(
                Refusal::of(&status).into_iter().fold(relayed, |status, refusal| refusal.mark(status)),
            )
        };
        let refused = |status| answered(FailureOrigin::DecoderOpening, status);
        let broken = |status| answered(FailureOrigin::Decoder, status);
        let channel = self.encoder.connections.to(decoder_endpoint)?;
        let mut decoder = DecoderClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
        let requests = self.trace.request(ReceiverStream::new(decoder_requests));
        let response = decoder.decode_shard(requests).await.map_err(refused)?;
        let _ = has_begun.send(()); // unheard, `feed` has failed
        let mut decoder_events = response.into_inner();
        let mut has_looked = Some(has_looked);
        while let Some(event) = decoder_events.message().await.map_err(broken)? {
            match event.event {
                Some(shard_event::Event::Progress(decoded)) => {
                    self.report(|progress| {
                        progress.decoded_records = decoded.decoded_records;
                        progress.decoded_output_tokens = decoded.decoded_output_tokens;
                    })
                    .await;
                }
                Some(shard_event::Event::Receipt(_)) => {
                    let _ = self.events.send(Ok(event)).await; // a coordinator that left needs no receipt
                    return Ok(());
                }
                Some(shard_event::Event::Found(found)) => {
                    let _ = has_looked.take().map(|has_looked| has_looked.send(found.into()));
                }
                None => return Err(WireError::MissingField { field: "ShardEvent.event" }.into()),
            }
        }
        Err(broken(Status::unavailable("the stream ended without a receipt")))
    }

    /// Updates the attempt's totals and sends them.
    async fn report(&self, update: impl FnOnce(&mut ShardProgress)) {
        update(&mut self.progress.lock().expect("no holder of this lock panics"));
        let event = shard_event::Event::Progress(self.progress());
        // A coordinator that left needs no progress; its leaving cancels the attempt elsewhere.
        let _ = self.events.send(Ok(ShardEvent { event: Some(event) })).await;
    }

    fn progress(&self) -> ShardProgress {
        *self.progress.lock().expect("no holder of this lock panics")
    }
}

/// The segments of each entry that are neither read nor found.
struct UnreadSegments(Vec<u32>);

impl UnreadSegments {
    fn of(records: &[RecordHead], num_entries: u32) -> Self {
        let mut num_unread = vec![0; num_entries as usize];
        for record in records {
            num_unread[record.index as usize] = record.num_segments;
        }
        Self(num_unread)
    }

    /// Notes that these are done. Returns the number of records that are then done.
    fn note_read(&mut self, segments: &[Segment]) -> u32 {
        let mut num_records = 0;
        for segment in segments {
            let num_unread = &mut self.0[segment.record as usize];
            *num_unread -= 1;
            num_records += u32::from(*num_unread == 0);
        }
        num_records
    }
}

/// The messages on their way to the decoder.
struct DecoderStream(mpsc::Sender<DecodeShardRequest>);

impl DecoderStream {
    /// `None` if the decoder ended the stream.
    async fn send(&self, message: decode_shard_request::Message) -> Option<()> {
        self.0.send(DecodeShardRequest { message: Some(message) }).await.ok()
    }

    async fn send_prompt(&self, head: PromptHead, payload: PromptPayload) -> Option<()> {
        for message in prompt_messages(head, payload) {
            self.0.send(message).await.ok()?;
        }
        Some(())
    }
}

/// Reads all entries; they must be the shard's, in order.
async fn receive_entries(
    mut requests: Streaming<EncodeShardRequest>,
    num_entries: u32,
    memory: &mut MemoryShare,
) -> Result<Vec<ShardEntry>, EncoderError> {
    let mut entries: Vec<ShardEntry> = Vec::new();
    loop {
        let request = requests.message().await.map_err(|status| {
            let what = || format!("the message after entry {} of the shard", entries.len());
            EncoderError::Relayed(receive_error(status, what))
        })?;
        let Some(request) = request else { break };
        let Some(encode_shard_request::Message::Entries(batch)) = request.message else {
            return Err(WireError::UnexpectedMessage { expected: "entries" }.into());
        };
        for entry in batch.entries {
            let IndexedEntry { index, entry } = entry.try_into()?;
            if index as usize != entries.len() || index >= num_entries {
                return Err(WireError::UnexpectedMessage { expected: "the shard's entries in order" }.into());
            }
            memory.grow(entry_num_bytes(&entry))?;
            entries.push(entry);
        }
    }
    if entries.len() == num_entries as usize {
        Ok(entries)
    } else {
        Err(WireError::UnexpectedMessage { expected: "as many entries as the header announced" }.into())
    }
}

/// An entry's share of the memory budget.
fn entry_num_bytes(entry: &ShardEntry) -> usize {
    let payload_num_bytes = match entry {
        ShardEntry::Prompt(record) => record.payload_num_bytes() as usize,
        ShardEntry::Failed(failure) => failure.message.len(),
    };
    payload_num_bytes + size_of::<ShardEntry>()
}
