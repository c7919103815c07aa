//! An encoder's messages to a decoder about a shard: its size, its records, and the prompts of their
//! segments.

use baton_job::{KeptFields, LanguageChoice, Record, RecordSource};
use baton_segments::Segment;
use bytes::Bytes;

use crate::entries::{decode_fields, decode_languages, decode_source, encode_fields, encode_languages};
use crate::{ShardAttempt, TARGET_MESSAGE_NUM_BYTES, WireError, wire};

/// The header of a decoder's stream.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeHeader {
    /// The attempt.
    pub attempt: ShardAttempt,
    /// Segments of all records together.
    pub num_segments: u64,
    /// Bytes of ids, sources, kept fields and segments, all together: the decoder's memory until the commit.
    pub num_bytes: u64,
    /// The bytes of the segments' texts among them.
    pub num_text_bytes: u64,
    /// Prompts of all segments: no more than segments.
    pub num_prompts: u64,
    /// Whether a key for each of the prompts follows.
    pub has_keys: bool,
}

/// A record whose text has been cut: its data for the output row.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordHead {
    /// Position among the shard's entries, from 0.
    pub index: u32,
    /// The record's id.
    pub id: String,
    /// Its origin.
    pub source: RecordSource,
    /// Its other fields, if they are kept.
    pub fields: KeptFields,
    /// Segments of its text.
    pub num_segments: u32,
    /// The output of a record without segments; empty otherwise.
    pub copied: String,
    /// Tokens that the LLM reads for the record, if the small model reads its own tokens; otherwise 0.
    pub llm_prompt_tokens: u32,
    /// Maximum of tokens in its output, if its own limit is below the job's.
    pub max_new_tokens: Option<u32>,
    /// Its own languages, as far as it names them.
    pub languages: LanguageChoice,
    /// Its own glossary, entries as in the option `terms`.
    pub terms: Vec<String>,
}

/// A prompt's segment and length.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptHead {
    /// The segment.
    pub segment: Segment,
    /// Length of the prompt, in tokens of the model that writes.
    pub prompt_len: u32,
    /// Its number among the keys of the shard's prompts, if the shard has keys.
    pub number: u32,
}

/// The models' input for a prompt in the decoder. Mode and options decide which of the two exist.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptPayload {
    /// For the SLM, prompt states: `[prompt_len, d_slm]` bfloat16, or the first of these bytes.
    pub states: Bytes,
    /// For the LLM, its tokens. For a small model with a shortlist, its own, which decide what it can write.
    pub tokens: Vec<u32>,
}

impl RecordHead {
    /// The head of a record that has been cut into `num_segments`.
    #[must_use]
    pub fn of(record: Record, num_segments: u32, llm_prompt_tokens: u32) -> Self {
        let Record { index_in_shard: index, id, source, fields, text, max_new_tokens, languages, terms } =
            record;
        let copied = if num_segments == 0 { text } else { String::new() };
        RecordHead {
            index,
            id,
            source,
            fields,
            num_segments,
            copied,
            llm_prompt_tokens,
            max_new_tokens,
            languages,
            terms,
        }
    }

    /// Bytes of its strings, terms and kept fields.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        let own = self.languages.num_bytes() + self.terms.iter().map(String::len).sum::<usize>();
        self.id.len() + self.source.uri.len() + self.copied.len() + own + self.fields.num_bytes()
    }
}

/// One prompt as messages under the size limit: its head with the tokens or the first states, then the other
/// states. States are shared, not copied.
pub fn prompt_messages(
    head: PromptHead,
    payload: PromptPayload,
) -> impl Iterator<Item = wire::DecodeShardRequest> {
    use wire::decode_shard_request::Message;
    let PromptPayload { mut states, tokens } = payload;
    let room = TARGET_MESSAGE_NUM_BYTES.saturating_sub(head.segment.num_bytes());
    let first = Message::Prompt(wire::Prompt {
        prompt_len: head.prompt_len,
        number: head.number,
        segment: Some(head.segment.into()),
        states: split_at_most(&mut states, room),
        tokens,
    });
    let rest = std::iter::from_fn(move || {
        let chunk = split_at_most(&mut states, TARGET_MESSAGE_NUM_BYTES);
        (!chunk.is_empty()).then_some(Message::MoreStates(wire::StatesChunk { states: chunk }))
    });
    std::iter::once(first).chain(rest).map(|message| wire::DecodeShardRequest { message: Some(message) })
}

fn split_at_most(states: &mut Bytes, max_num_bytes: usize) -> Bytes {
    states.split_to(states.len().min(max_num_bytes))
}

impl From<DecodeHeader> for wire::DecodeShardHeader {
    fn from(header: DecodeHeader) -> Self {
        let DecodeHeader { attempt, num_segments, num_bytes, num_text_bytes, num_prompts, has_keys } = header;
        let shard = Some(attempt.into());
        wire::DecodeShardHeader { shard, num_segments, num_bytes, num_text_bytes, num_prompts, has_keys }
    }
}

impl TryFrom<wire::DecodeShardHeader> for DecodeHeader {
    type Error = WireError;

    fn try_from(header: wire::DecodeShardHeader) -> Result<Self, WireError> {
        let wire::DecodeShardHeader { shard, num_segments, num_bytes, num_text_bytes, .. } = header;
        let (num_prompts, has_keys) = (header.num_prompts, header.has_keys);
        let shard = shard.ok_or(WireError::MissingField { field: "DecodeShardHeader.shard" })?;
        let attempt = shard.try_into()?;
        Ok(DecodeHeader { attempt, num_segments, num_bytes, num_text_bytes, num_prompts, has_keys })
    }
}

impl From<RecordHead> for wire::RecordHead {
    fn from(head: RecordHead) -> Self {
        let (extra_fields_json, kept_columns) = encode_fields(&head.fields);
        wire::RecordHead {
            index: head.index,
            source: Some(head.source.into()),
            id: head.id,
            extra_fields_json,
            num_segments: head.num_segments,
            copied: head.copied,
            llm_prompt_tokens: head.llm_prompt_tokens,
            kept_columns,
            max_new_tokens: head.max_new_tokens,
            languages: encode_languages(&head.languages),
            terms: head.terms,
        }
    }
}

impl TryFrom<wire::RecordHead> for RecordHead {
    type Error = WireError;

    fn try_from(head: wire::RecordHead) -> Result<Self, WireError> {
        Ok(RecordHead {
            index: head.index,
            id: head.id,
            source: decode_source(head.source, "RecordHead.source")?,
            fields: decode_fields(
                &head.extra_fields_json,
                head.kept_columns,
                "RecordHead.extra_fields_json",
            )?,
            num_segments: head.num_segments,
            copied: head.copied,
            llm_prompt_tokens: head.llm_prompt_tokens,
            max_new_tokens: head.max_new_tokens,
            languages: decode_languages(head.languages),
            terms: head.terms,
        })
    }
}

impl From<Segment> for wire::Segment {
    fn from(segment: Segment) -> Self {
        let Segment { record, number, text, before, after, is_in_tag: in_tag } = segment;
        wire::Segment { record, number, text, before, after, in_tag }
    }
}

impl From<wire::Segment> for Segment {
    fn from(segment: wire::Segment) -> Self {
        let wire::Segment { record, number, text, before, after, in_tag: is_in_tag } = segment;
        Segment { record, number, text, before, after, is_in_tag }
    }
}

impl TryFrom<wire::Prompt> for (PromptHead, PromptPayload) {
    type Error = WireError;

    /// The head, and the states or tokens that came with it.
    fn try_from(prompt: wire::Prompt) -> Result<Self, WireError> {
        let wire::Prompt { segment, prompt_len, states, tokens, number } = prompt;
        let segment = segment.ok_or(WireError::MissingField { field: "Prompt.segment" })?;
        let segment = segment.into();
        Ok((PromptHead { segment, prompt_len, number }, PromptPayload { states, tokens }))
    }
}

impl From<PromptHead> for wire::Reused {
    /// The head of a prompt that is not sent.
    fn from(head: PromptHead) -> Self {
        let PromptHead { segment, prompt_len, number } = head;
        wire::Reused { segment: Some(segment.into()), prompt_len, number }
    }
}

impl TryFrom<wire::Reused> for PromptHead {
    type Error = WireError;

    fn try_from(reused: wire::Reused) -> Result<Self, WireError> {
        let wire::Reused { segment, prompt_len, number } = reused;
        let segment = segment.ok_or(WireError::MissingField { field: "Reused.segment" })?;
        Ok(PromptHead { segment: segment.into(), prompt_len, number })
    }
}

impl TryFrom<wire::Repeat> for (Segment, u32) {
    type Error = WireError;

    /// The segment, and the number of the prompt that it shares.
    fn try_from(repeat: wire::Repeat) -> Result<Self, WireError> {
        let segment = repeat.segment.ok_or(WireError::MissingField { field: "Repeat.segment" })?;
        Ok((segment.into(), repeat.prompt))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::MAX_MESSAGE_NUM_BYTES;
    use crate::wire::decode_shard_request::Message;

    fn record() -> RecordHead {
        RecordHead {
            index: 4,
            id: "r4".into(),
            source: RecordSource { uri: "corpus.csv".into(), line: 9 },
            fields: KeptFields::Columns(Bytes::from_static(b"a row")),
            num_segments: 3,
            copied: "--".into(),
            llm_prompt_tokens: 40,
            max_new_tokens: Some(40),
            languages: LanguageChoice { source: Some("en".into()), target: None },
            terms: vec!["disk=disco".to_owned()],
        }
    }

    fn head() -> PromptHead {
        let (text, before, after) = ("for xfce4-panel".into(), "\n".into(), String::new());
        let segment = Segment { record: 4, number: 1, text, before, after, is_in_tag: true };
        PromptHead { segment, prompt_len: 12, number: 3 }
    }

    fn payload(states: Bytes) -> PromptPayload {
        PromptPayload { states, ..PromptPayload::default() }
    }

    #[test]
    fn a_long_prompt_is_cut_into_messages_and_comes_together_again() {
        let states = Bytes::from((0..3 << 20).map(|byte| (byte % 251) as u8).collect::<Vec<u8>>());
        let messages: Vec<_> = prompt_messages(head(), payload(states.clone())).collect();
        assert_eq!(messages.len(), 4, "the segment takes its room in the first");
        assert!(messages.iter().all(|message| message.encoded_len() < MAX_MESSAGE_NUM_BYTES));

        let mut received = Vec::new();
        for message in messages {
            match message.message.unwrap() {
                Message::Prompt(prompt) => {
                    let (received_head, first) = prompt.try_into().unwrap();
                    assert_eq!(received_head, head());
                    received.extend_from_slice(&first.states);
                }
                Message::MoreStates(chunk) => received.extend_from_slice(&chunk.states),
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(received, states);
    }

    #[test]
    fn tokens_travel_with_the_head_in_one_message() {
        let payload = PromptPayload { tokens: vec![3, 70_000, 1], ..payload(Bytes::from_static(b"1234")) };
        let messages: Vec<_> = prompt_messages(head(), payload.clone()).collect();
        let [wire::DecodeShardRequest { message: Some(Message::Prompt(prompt)) }] = &messages[..] else {
            panic!("not one prompt: {messages:?}")
        };
        assert_eq!(<(PromptHead, PromptPayload)>::try_from(prompt.clone()).unwrap(), (head(), payload));
    }

    #[test]
    fn a_record_and_a_repeated_segment_survive_the_wire() {
        assert_eq!(RecordHead::try_from(wire::RecordHead::from(record())), Ok(record()));
        let repeat = wire::Repeat { segment: Some(head().segment.into()), prompt: 7 };
        assert_eq!(<(Segment, u32)>::try_from(repeat), Ok((head().segment, 7)));
        assert_eq!(PromptHead::try_from(wire::Reused::from(head())), Ok(head()));
    }

    #[test]
    fn messages_that_lack_a_part_are_refused_by_field() {
        let missing = WireError::MissingField { field: "RecordHead.source" };
        assert_eq!(RecordHead::try_from(wire::RecordHead::default()), Err(missing));
        let missing = WireError::MissingField { field: "Prompt.segment" };
        assert_eq!(<(PromptHead, PromptPayload)>::try_from(wire::Prompt::default()), Err(missing));
        let missing = WireError::MissingField { field: "Reused.segment" };
        assert_eq!(PromptHead::try_from(wire::Reused::default()), Err(missing));
        let missing = WireError::MissingField { field: "Repeat.segment" };
        assert_eq!(<(Segment, u32)>::try_from(wire::Repeat::default()), Err(missing));
        let missing = WireError::MissingField { field: "DecodeShardHeader.shard" };
        assert_eq!(DecodeHeader::try_from(wire::DecodeShardHeader::default()), Err(missing));
    }
}
