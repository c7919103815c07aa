//! One attempt at one shard, from its first record to the decoder's receipt.

use std::sync::{Arc, Mutex};

use baton_bundle::PromptTokenizer;
use baton_job::{FailureCode, Record, RecordFailure, Sentence, ShardEntry, sentences};
use baton_proto::wire::decoder_client::DecoderClient;
use baton_proto::wire::{
    DecodeShardRequest, EncodeShardRequest, ShardEvent, ShardProgress, decode_shard_request,
    encode_shard_request, shard_event,
};
use baton_proto::{
    FailureOrigin, IndexedEntry, MAX_MESSAGE_NUM_BYTES, PromptHead, PromptPayload, Refusal, SentencePlace,
    ShardAttempt, WireError, prompt_messages, receive_error,
};
use baton_telemetry::TraceContext;
use baton_worker::{EventSender, MemoryShare};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::service::Shared;
use crate::{EncoderError, pack_batches};

/// Messages between the encode loop and the decoder's stream; the stream's window is the real queue.
const DECODER_QUEUE: usize = 4;

/// An attempt that was accepted.
pub(crate) struct ShardWork {
    pub(crate) shared: Arc<Shared>,
    pub(crate) attempt: ShardAttempt,
    pub(crate) decoder_endpoint: String,
    pub(crate) tokenizer: Arc<PromptTokenizer>,
    pub(crate) trace: TraceContext,
}

/// A shard ready to be encoded.
#[derive(Default)]
struct TokenizedShard {
    records: Vec<Record>,
    prompts: Vec<TokenizedPrompt>,
    failures: Vec<(u32, RecordFailure)>,
}

/// A record's text, or one of its sentences, ready to be encoded.
struct TokenizedPrompt {
    /// Its record's place in [`TokenizedShard::records`].
    record: usize,
    sentence: SentencePlace,
    text: String,
    tokens: Vec<u32>,
}

/// Reads the first message of a stream.
pub(crate) async fn receive_header(
    requests: &mut Streaming<EncodeShardRequest>,
) -> Result<(ShardAttempt, String), EncoderError> {
    use encode_shard_request::Message;
    match requests.message().await.map_err(EncoderError::Relayed)?.and_then(|request| request.message) {
        Some(Message::Header(header)) => {
            let shard = header.shard.ok_or(WireError::MissingField { field: "EncodeShardHeader.shard" })?;
            Ok((shard.try_into()?, header.decoder_endpoint))
        }
        _ => Err(WireError::UnexpectedMessage { expected: "a header" }.into()),
    }
}

impl ShardWork {
    /// Runs the attempt; its receipt is the last event sent. Dropping the future cancels it.
    pub(crate) async fn process(
        self,
        requests: Streaming<EncodeShardRequest>,
        events: EventSender,
    ) -> Result<(), EncoderError> {
        let events = &events;
        let mut memory = self.shared.records.share(); // held until the shard is done
        let entries = receive_entries(requests, self.attempt.num_entries, &mut memory).await?;
        let shard = self.tokenize(entries).await;
        let (to_decoder, decoder_requests) = mpsc::channel(DECODER_QUEUE);
        let progress = Mutex::new(ShardProgress::default());
        let feed = self.feed(shard, to_decoder, &progress, events);
        let relay = self.relay(decoder_requests, &progress, events);
        tokio::try_join!(feed, relay)?;
        let ShardProgress { encoded_records, encoded_prompt_tokens, .. } =
            *progress.lock().expect("no holder of this lock panics");
        tracing::info!(
            encoded_records,
            encoded_prompt_tokens,
            decoder = self.decoder_endpoint,
            "shard is done"
        );
        Ok(())
    }

    /// Tokenizes off the async threads; a shard of long texts takes a while.
    async fn tokenize(&self, entries: Vec<ShardEntry>) -> TokenizedShard {
        let tokenizer = Arc::clone(&self.tokenizer);
        let max_prompt_tokens = self.shared.max_prompt_tokens;
        let by_sentence = self.attempt.generation.by_sentence;
        tokio::task::spawn_blocking(move || {
            let mut shard = TokenizedShard::default();
            for (index, entry) in (0..).zip(entries) {
                let tokenized = match entry {
                    ShardEntry::Prompt(record) => {
                        let place = shard.records.len();
                        tokenize_record(&tokenizer, &record, place, by_sentence, max_prompt_tokens)
                            .map(|prompts| (record, prompts))
                    }
                    ShardEntry::Failed(failure) => Err(failure),
                };
                match tokenized {
                    Ok((record, prompts)) => {
                        shard.records.push(record);
                        shard.prompts.extend(prompts);
                    }
                    Err(failure) => shard.failures.push((index, failure)),
                }
            }
            shard
        })
        .await
        .expect("tokenizing does not panic and is not aborted")
    }

    /// Encodes batch after batch and hands the states to the decoder's stream, waiting wherever that is full.
    async fn feed(
        &self,
        shard: TokenizedShard,
        to_decoder: mpsc::Sender<DecodeShardRequest>,
        progress: &Mutex<ShardProgress>,
        events: &EventSender,
    ) -> Result<(), EncoderError> {
        use decode_shard_request::Message;
        let mut messages = vec![Message::Header(self.attempt.clone().into())];
        messages.extend(shard.failures.into_iter().map(|failure| Message::Failure(failure.into())));
        for message in messages {
            if to_decoder.send(DecodeShardRequest { message: Some(message) }).await.is_err() {
                return Ok(()); // the decoder ended the stream; `relay` learns why
            }
        }
        let TokenizedShard { records, prompts, .. } = shard;
        let mut num_unread = vec![0_u32; records.len()]; // sentences
        for prompt in &prompts {
            num_unread[prompt.record] += 1;
        }
        let prompt_lens: Vec<usize> = prompts.iter().map(|prompt| prompt.tokens.len()).collect();
        for batch in pack_batches(&prompt_lens, self.shared.max_batch_tokens) {
            let tokens: Vec<Vec<u32>> =
                batch.iter().map(|&position| prompts[position].tokens.clone()).collect();
            let mut payloads = self.payloads(tokens).await?;
            if self.attempt.generation.copies_words() {
                for (payload, &position) in payloads.iter_mut().zip(&batch) {
                    payload.text.clone_from(&prompts[position].text);
                }
            }
            let batch_tokens: usize = batch.iter().map(|&position| prompt_lens[position]).sum();
            let mut num_records_read = 0;
            self.shared.prompt_tokens.inc_by(batch_tokens as u64);
            for (position, payload) in batch.into_iter().zip(payloads) {
                let TokenizedPrompt { record, sentence, .. } = &prompts[position];
                num_unread[*record] -= 1;
                num_records_read += u32::from(num_unread[*record] == 0);
                let head = PromptHead::of(&records[*record], sentence.clone(), prompt_lens[position] as u32);
                for message in prompt_messages(head, payload) {
                    if to_decoder.send(message).await.is_err() {
                        return Ok(());
                    }
                }
            }
            report(events, progress, |progress| {
                progress.encoded_records += num_records_read;
                progress.encoded_prompt_tokens += batch_tokens as u64;
            })
            .await;
        }
        Ok(())
    }

    /// What the decoder is sent of each prompt.
    async fn payloads(&self, prompts: Vec<Vec<u32>>) -> Result<Vec<PromptPayload>, EncoderError> {
        let Shared { queue, sends_tokens, .. } = &*self.shared;
        let mut payloads = vec![PromptPayload::default(); prompts.len()];
        if *sends_tokens {
            for (payload, tokens) in payloads.iter_mut().zip(&prompts) {
                payload.tokens.clone_from(tokens);
            }
        }
        if let Some(queue) = queue {
            let states = queue.encode(prompts).await.ok_or(EncoderError::BatchLost)?;
            for (payload, states) in payloads.iter_mut().zip(states) {
                payload.states = states.data;
            }
        }
        Ok(payloads)
    }

    /// Opens the decoder's stream and passes its events on, until the receipt.
    async fn relay(
        &self,
        decoder_requests: mpsc::Receiver<DecodeShardRequest>,
        progress: &Mutex<ShardProgress>,
        events: &EventSender,
    ) -> Result<(), EncoderError> {
        let answered = |origin: FailureOrigin, status: Status| {
            let origin = FailureOrigin::of(&status).unwrap_or(origin); // the decoder knows better
            let message = format!("decoder {}: {}", self.decoder_endpoint, status.message());
            let relayed = origin.mark(Status::new(status.code(), message));
            EncoderError::Relayed(
                Refusal::of(&status).into_iter().fold(relayed, |status, refusal| refusal.mark(status)),
            )
        };
        let refused = |status| answered(FailureOrigin::DecoderOpening, status);
        let broken = |status| answered(FailureOrigin::Decoder, status);
        let channel = self.shared.connections.to(&self.decoder_endpoint)?;
        let mut decoder = DecoderClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
        let requests = self.trace.request(ReceiverStream::new(decoder_requests));
        let response = decoder.decode_shard(requests).await.map_err(refused)?;
        let mut decoder_events = response.into_inner();
        while let Some(event) = decoder_events.message().await.map_err(broken)? {
            match event.event {
                Some(shard_event::Event::Progress(decoded)) => {
                    report(events, progress, |progress| {
                        progress.decoded_records = decoded.decoded_records;
                        progress.decoded_output_tokens = decoded.decoded_output_tokens;
                    })
                    .await;
                }
                Some(shard_event::Event::Receipt(_)) => {
                    let _ = events.send(Ok(event)).await; // a coordinator that left needs no receipt
                    return Ok(());
                }
                None => return Err(WireError::MissingField { field: "ShardEvent.event" }.into()),
            }
        }
        Err(broken(Status::unavailable("the stream ended without a receipt")))
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
            memory.grow(entry_num_bytes(&entry)).map_err(EncoderError::Relayed)?;
            entries.push(entry);
        }
    }
    if entries.len() == num_entries as usize {
        Ok(entries)
    } else {
        Err(WireError::UnexpectedMessage { expected: "as many entries as the header announced" }.into())
    }
}

/// What an entry takes of the memory budget.
fn entry_num_bytes(entry: &ShardEntry) -> usize {
    let payload_num_bytes = match entry {
        ShardEntry::Prompt(record) => record.payload_num_bytes() as usize,
        ShardEntry::Failed(failure) => failure.message.len(),
    };
    payload_num_bytes + size_of::<ShardEntry>()
}

/// The prompts of a record that has `place` among the shard's: its text, or each of its sentences, never cut.
fn tokenize_record(
    tokenizer: &PromptTokenizer,
    record: &Record,
    place: usize,
    by_sentence: bool,
    max_prompt_tokens: usize,
) -> Result<Vec<TokenizedPrompt>, RecordFailure> {
    let whole = || vec![Sentence { before: "", text: &record.text, after: "" }];
    let sentences = if by_sentence { sentences(&record.text) } else { whole() };
    let count = sentences.len() as u32; // of a text of at most some hundred megabytes
    let tokenize = |(number, sentence): (u32, Sentence<'_>)| {
        let Ok(tokens) = tokenizer.encode(sentence.text) else {
            let message = "the LLM's tokenizer refuses the text";
            return Err(record.failure(FailureCode::ProcessingFailed, message));
        };
        if tokens.len() > max_prompt_tokens {
            let what = if by_sentence { format!("sentence {}", number + 1) } else { "the prompt".to_owned() };
            let message =
                format!("{what} has {} tokens; the bundle reads at most {max_prompt_tokens}", tokens.len());
            return Err(record.failure(FailureCode::PromptTooLong, message));
        }
        let Sentence { before, text, after } = sentence;
        let sentence = SentencePlace { number, count, before: before.to_owned(), after: after.to_owned() };
        Ok(TokenizedPrompt { record: place, sentence, text: text.to_owned(), tokens })
    };
    (0..).zip(sentences).map(tokenize).collect()
}

/// Updates the attempt's totals and sends them.
async fn report(
    events: &EventSender,
    progress: &Mutex<ShardProgress>,
    update: impl FnOnce(&mut ShardProgress),
) {
    let totals = {
        let mut progress = progress.lock().expect("no holder of this lock panics");
        update(&mut progress);
        *progress
    };
    // A coordinator that left needs no progress; its leaving cancels the attempt elsewhere.
    let _ = events.send(Ok(ShardEvent { event: Some(shard_event::Event::Progress(totals)) })).await;
}
