//! The messages between the parts of a reader that is split over processes.

use std::ops::Range;

use bytes::Bytes;

use crate::{PROTOCOL, TARGET_MESSAGE_NUM_BYTES, WireError, wire};

/// Names a part of a reader: the numbers that come out depend on nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartName {
    /// SHA-256 of the bundle's manifest, hexadecimal.
    pub bundle_digest: String,
    /// Its blocks.
    pub blocks: Range<usize>,
    /// Its arithmetic in words.
    pub arithmetic: String,
}

impl From<PartName> for wire::ReaderPart {
    fn from(part: PartName) -> Self {
        let block = |block: usize| u32::try_from(block).expect("no model has so many blocks");
        wire::ReaderPart {
            protocol: PROTOCOL.to_owned(),
            bundle_digest: part.bundle_digest,
            first_block: block(part.blocks.start),
            end_block: block(part.blocks.end),
            arithmetic: part.arithmetic,
        }
    }
}

impl TryFrom<wire::ReaderPart> for PartName {
    type Error = WireError;

    fn try_from(part: wire::ReaderPart) -> Result<Self, WireError> {
        if part.protocol != PROTOCOL {
            return Err(WireError::OtherProtocol { found: part.protocol });
        }
        let blocks = part.first_block as usize..part.end_block as usize;
        Ok(PartName { bundle_digest: part.bundle_digest, blocks, arithmetic: part.arithmetic })
    }
}

/// The messages that ask a part for a batch. `states`: of the residual stream.
pub fn batch_messages(
    part: PartName,
    prompt_lens: &[usize],
    states: Bytes,
) -> impl Iterator<Item = wire::RunBlocksRequest> + use<> {
    use wire::run_blocks_request::Message;
    let prompt_lens = prompt_lens.iter().map(|&len| len as u32).collect();
    let header = Message::Header(wire::RunBlocksHeader { part: Some(part.into()), prompt_lens });
    let messages = std::iter::once(header).chain(chunks(states).map(Message::States));
    messages.map(|message| wire::RunBlocksRequest { message: Some(message) })
}

/// The messages of a part's answer.
pub fn answer_messages(layers: Vec<Bytes>) -> impl Iterator<Item = wire::RunBlocksResponse> {
    layers.into_iter().flat_map(chunks).map(|states| wire::RunBlocksResponse { states })
}

/// The same bytes in pieces that fit into messages. They are shared, not copied.
fn chunks(mut states: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let chunk = states.split_to(states.len().min(TARGET_MESSAGE_NUM_BYTES));
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::MAX_MESSAGE_NUM_BYTES;
    use crate::wire::run_blocks_request::Message;

    fn part() -> PartName {
        PartName { bundle_digest: "d".repeat(64), blocks: 3..9, arithmetic: "f32 on a CPU".to_owned() }
    }

    #[test]
    fn a_batch_survives_the_wire_in_messages_of_the_allowed_size() {
        let states = Bytes::from((0..3 << 20).map(|byte| (byte % 251) as u8).collect::<Vec<u8>>());
        let messages: Vec<_> = batch_messages(part(), &[4, 7], states.clone()).collect();
        assert!(messages.iter().all(|message| message.encoded_len() < MAX_MESSAGE_NUM_BYTES));
        let mut received = Vec::new();
        for message in messages {
            match message.message.unwrap() {
                Message::Header(header) => {
                    assert_eq!(header.prompt_lens, [4, 7]);
                    assert_eq!(PartName::try_from(header.part.unwrap()), Ok(part()));
                }
                Message::States(chunk) => received.extend_from_slice(&chunk),
            }
        }
        assert_eq!(received, states);
        let answer = answer_messages(vec![states.slice(..5), states.slice(5..)]);
        assert_eq!(answer.map(|message| message.states).collect::<Vec<_>>().concat(), states);
    }

    #[test]
    fn a_part_of_another_version_is_refused() {
        let other = wire::ReaderPart { protocol: "0.0.1-0000".to_owned(), ..part().into() };
        let error = PartName::try_from(other).unwrap_err();
        assert!(matches!(error, WireError::OtherProtocol { ref found } if found == "0.0.1-0000"), "{error}");
    }
}
