//! A prompt on its way to a decoder: what its output row needs, and its states, cut into messages.

use baton_job::{Record, RecordSource};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::entries::{decode_fields, decode_source, encode_fields};
use crate::{TARGET_MESSAGE_NUM_BYTES, WireError, wire};

/// A record whose prompt has been read: what is left of it for the output row.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptHead {
    /// Position among the shard's entries, from 0.
    pub index: u32,
    /// The record's id.
    pub id: String,
    /// Where it came from.
    pub source: RecordSource,
    /// Its other fields, where they are kept.
    pub fields: Map<String, Value>,
    /// Length of the prompt, LLM tokens.
    pub prompt_len: u32,
    /// Which of the record's sentences it is.
    pub sentence: SentencePlace,
}

/// A sentence's place among those of its record.
#[derive(Debug, Clone, PartialEq)]
pub struct SentencePlace {
    /// Its number, from 0.
    pub number: u32,
    /// Sentences of the record, at least one.
    pub count: u32,
    /// What the record's output has before this sentence's.
    pub before: String,
    /// What it has behind it.
    pub after: String,
}

/// A text that is not cut.
impl Default for SentencePlace {
    fn default() -> Self {
        SentencePlace { number: 0, count: 1, before: String::new(), after: String::new() }
    }
}

impl PromptHead {
    /// The head of one of the prompts of `record`, whose other fields go with the first.
    #[must_use]
    pub fn of(record: &Record, sentence: SentencePlace, prompt_len: u32) -> Self {
        let Record { index_in_shard, id, source, .. } = record;
        let fields = if sentence.number == 0 { record.fields.clone() } else { Map::new() };
        let (id, source) = (id.clone(), source.clone());
        PromptHead { index: *index_in_shard, id, source, fields, prompt_len, sentence }
    }
}

/// What the decoder's models read of a prompt. Which of the two there is, the mode says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptPayload {
    /// For the SLM, prompt states: `[prompt_len, d_slm]` bfloat16, or the first of these bytes.
    pub states: Bytes,
    /// For the LLM, its tokens.
    pub tokens: Vec<u32>,
    /// The text that was read, where outputs may copy its words.
    pub text: String,
}

/// One prompt as messages under the size limit: its head with the tokens or the first states, then the other states. States are shared,
/// not copied.
pub fn prompt_messages(
    head: PromptHead,
    payload: PromptPayload,
) -> impl Iterator<Item = wire::DecodeShardRequest> {
    use wire::decode_shard_request::Message;
    let PromptPayload { mut states, tokens, text } = payload;
    let index = head.index;
    let extra_fields_json = encode_fields(&head.fields);
    let SentencePlace { number, count, before, after } = head.sentence;
    let taken = extra_fields_json.len() + text.len() + before.len() + after.len();
    let room = TARGET_MESSAGE_NUM_BYTES.saturating_sub(taken);
    let first = Message::Prompt(wire::Prompt {
        index,
        source: Some(head.source.into()),
        id: head.id,
        extra_fields_json,
        prompt_len: head.prompt_len,
        states: split_at_most(&mut states, room),
        tokens,
        text,
        sentence: number,
        num_sentences: count,
        before,
        after,
    });
    let rest = std::iter::from_fn(move || {
        let chunk = split_at_most(&mut states, TARGET_MESSAGE_NUM_BYTES);
        (!chunk.is_empty()).then_some(Message::MoreStates(wire::StatesChunk { index, states: chunk }))
    });
    std::iter::once(first).chain(rest).map(|message| wire::DecodeShardRequest { message: Some(message) })
}

fn split_at_most(states: &mut Bytes, max_num_bytes: usize) -> Bytes {
    states.split_to(states.len().min(max_num_bytes))
}

impl TryFrom<wire::Prompt> for (PromptHead, PromptPayload) {
    type Error = WireError;

    /// The head, and the states or tokens that came with it.
    fn try_from(prompt: wire::Prompt) -> Result<Self, WireError> {
        let wire::Prompt { sentence: number, num_sentences: count, before, after, .. } = prompt;
        if number >= count {
            let detail = format!("{number}, of {count}");
            return Err(WireError::InvalidField { field: "Prompt.sentence", detail });
        }
        let head = PromptHead {
            index: prompt.index,
            id: prompt.id,
            source: decode_source(prompt.source, "Prompt.source")?,
            fields: decode_fields(&prompt.extra_fields_json, "Prompt.extra_fields_json")?,
            prompt_len: prompt.prompt_len,
            sentence: SentencePlace { number, count, before, after },
        };
        let wire::Prompt { states, tokens, text, .. } = prompt;
        Ok((head, PromptPayload { states, tokens, text }))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::MAX_MESSAGE_NUM_BYTES;
    use crate::wire::decode_shard_request::Message;

    fn head() -> PromptHead {
        PromptHead {
            index: 4,
            id: "r4".into(),
            source: RecordSource { uri: "corpus.csv".into(), line: 9 },
            fields: Map::from_iter([("lang".to_owned(), Value::from("en"))]),
            prompt_len: 12,
            sentence: SentencePlace { number: 1, count: 3, before: "\n".into(), after: "".into() },
        }
    }

    fn payload(states: Bytes) -> PromptPayload {
        PromptPayload { states, ..PromptPayload::default() }
    }

    #[test]
    fn a_long_prompt_is_cut_into_messages_and_comes_together_again() {
        let states = Bytes::from((0..3 << 20).map(|byte| (byte % 251) as u8).collect::<Vec<u8>>());
        let messages: Vec<_> = prompt_messages(head(), payload(states.clone())).collect();
        assert_eq!(messages.len(), 4, "kept fields take their room in the first");
        assert!(messages.iter().all(|message| message.encoded_len() < MAX_MESSAGE_NUM_BYTES));

        let mut received = Vec::new();
        for message in messages {
            match message.message.unwrap() {
                Message::Prompt(prompt) => {
                    let (received_head, first) = prompt.try_into().unwrap();
                    assert_eq!(received_head, head());
                    received.extend_from_slice(&first.states);
                }
                Message::MoreStates(chunk) => {
                    assert_eq!(chunk.index, 4);
                    received.extend_from_slice(&chunk.states);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(received, states);
    }

    #[test]
    fn tokens_and_text_travel_with_the_head() {
        let text = "for xfce4-panel".to_owned();
        let payload =
            PromptPayload { tokens: vec![3, 70_000, 1], text, ..payload(Bytes::from_static(b"1234")) };
        let messages: Vec<_> = prompt_messages(head(), payload.clone()).collect();
        let [wire::DecodeShardRequest { message: Some(Message::Prompt(prompt)) }] = &messages[..] else {
            panic!("not one prompt: {messages:?}")
        };
        assert_eq!(<(PromptHead, PromptPayload)>::try_from(prompt.clone()).unwrap(), (head(), payload));
    }

    #[test]
    fn a_sentence_beyond_the_last_is_refused() {
        let sentence = SentencePlace { number: 3, ..head().sentence };
        let mut messages = prompt_messages(PromptHead { sentence, ..head() }, payload(Bytes::new()));
        let Some(Message::Prompt(prompt)) = messages.next().unwrap().message else { panic!("no prompt") };
        let error = <(PromptHead, PromptPayload)>::try_from(prompt).unwrap_err().to_string();
        assert!(error.contains("`Prompt.sentence` is not valid: 3, of 3"), "{error}");
    }

    #[test]
    fn a_short_prompt_is_one_message() {
        assert_eq!(prompt_messages(head(), payload(Bytes::from_static(b"1234"))).count(), 1);
    }
}
