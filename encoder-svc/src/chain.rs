//! The parts of the LLM in other processes: the handshake before this encoder serves, and a batch's way
//! through one of them.

use std::ops::Range;
use std::time::Duration;

use baton_bundle::Bundle;
use baton_model::{LayerStates, num_layers_of_part};
use baton_proto::wire::blocks_client::BlocksClient;
use baton_proto::wire::{GetBlocksInfoRequest, GetBlocksInfoResponse};
use baton_proto::{
    Connection, Connections, FailureOrigin, MAX_MESSAGE_NUM_BYTES, PartName, Refusal, WireError,
    batch_messages,
};
use tonic::{Code, Status};

use crate::EncoderError;

/// Pause before a part that does not answer yet is asked again: it may be loading.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why the named processes are no continuation of this encoder's blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It has loaded something else.
    #[error("the part at {endpoint} does not fit: {problem}")]
    Unsuited {
        /// The process.
        endpoint: String,
        /// The first difference.
        problem: String,
    },
    /// It serves something else.
    #[error(
        "{endpoint}, named by --chain, runs no blocks for others: start baton-encoder there with --blocks, \
         from block {next_block}"
    )]
    NoPart {
        /// The process.
        endpoint: String,
        /// The first block that is missing.
        next_block: usize,
    },
    /// It does not let this process in.
    #[error("{endpoint}, named by --chain, refuses: {message}")]
    Refused {
        /// The process.
        endpoint: String,
        /// Its words.
        message: String,
    },
    /// Nobody runs the last blocks.
    #[error(
        "the parts end with block {end} of {num_blocks}: name a baton-encoder for the rest by --chain, or \
         give the last one more --blocks"
    )]
    Incomplete {
        /// The block after the last part.
        end: usize,
        /// How many blocks the bundle reads with.
        num_blocks: usize,
    },
    /// This process does not have the first block.
    #[error("--chain belongs to the encoder with the first block; this one begins with block {start}")]
    NotFirst {
        /// Its first block.
        start: usize,
    },
}

/// The first difference between a part that is loaded and the one that its caller expects, if any.
pub(crate) fn difference(loaded: &PartName, expected: &PartName) -> Option<String> {
    let say = |what: &str, [loaded, expected]: [&str; 2], remedy: &str| {
        Some(format!("it has loaded {what} {loaded}, and {expected} is needed: {remedy}"))
    };
    let blocks = |range: &Range<usize>| format!("{}..{}", range.start, range.end);
    if loaded.bundle_digest != expected.bundle_digest {
        let digests = [&*loaded.bundle_digest, &*expected.bundle_digest];
        return say("bundle", digests, "start all parts with the same bundle");
    }
    if loaded.arithmetic != expected.arithmetic {
        let arithmetics = [&*loaded.arithmetic, &*expected.arithmetic];
        return say("weights for", arithmetics, "give all parts the same --weights and kind of --device");
    }
    if loaded.blocks != expected.blocks {
        let ranges = [&*blocks(&loaded.blocks), &*blocks(&expected.blocks)];
        return say("blocks", ranges, "set --blocks of both, and restart the first encoder");
    }
    None
}

/// A part in another process.
#[derive(Debug)]
pub(crate) struct RemotePart {
    endpoint: String,
    connections: Connections,
    part: PartName,
    num_layers: usize,
    d_llm: usize,
}

/// The parts that follow on `own`, in order, and the most tokens that a batch of theirs may have. Waits until
/// all of them answer.
pub(crate) async fn reach(
    bundle: &Bundle,
    (own, num_blocks): (&PartName, usize),
    (connections, endpoints): (&Connections, &[String]),
) -> Result<(Vec<RemotePart>, usize), EncoderError> {
    let (_, llm) = bundle.llm().map_err(|source| EncoderError::Bundle { source })?;
    let (mut parts, mut max_batch_tokens) = (Vec::new(), usize::MAX);
    let mut end = own.blocks.end;
    for endpoint in endpoints {
        let unsuited = |problem: String| ChainError::Unsuited { endpoint: endpoint.clone(), problem };
        if end >= num_blocks {
            return Err(unsuited("no block is left for it; leave it out of --chain".to_owned()).into());
        }
        let info = info_of(connections, endpoint, end).await?;
        let field = "GetBlocksInfoResponse.part";
        let part = info.part.ok_or(WireError::MissingField { field })?;
        let part = PartName::try_from(part).map_err(|error| unsuited(error.to_string()))?;
        let expected_end = part.blocks.end.clamp(end + 1, num_blocks);
        if let Some(problem) = difference(&part, &PartName { blocks: end..expected_end, ..own.clone() }) {
            return Err(unsuited(problem).into());
        }
        tracing::info!(endpoint, blocks = ?part.blocks, of = num_blocks, "reached the next part of the LLM");
        end = part.blocks.end;
        max_batch_tokens = max_batch_tokens.min(info.max_batch_tokens as usize);
        parts.push(RemotePart {
            endpoint: endpoint.clone(),
            connections: connections.clone(),
            num_layers: num_layers_of_part(bundle, &part.blocks)?,
            d_llm: llm.hidden_size,
            part,
        });
    }
    match end < num_blocks {
        true => Err(ChainError::Incomplete { end, num_blocks }.into()),
        false => Ok((parts, max_batch_tokens)),
    }
}

/// A part's description, once it answers.
async fn info_of(
    connections: &Connections,
    endpoint: &str,
    next_block: usize,
) -> Result<GetBlocksInfoResponse, EncoderError> {
    let mut is_told = false;
    loop {
        let status = match client(connections.to(endpoint)?).get_info(GetBlocksInfoRequest {}).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        let (endpoint, message) = (endpoint.to_owned(), status.message().to_owned());
        match status.code() {
            Code::Unimplemented => return Err(ChainError::NoPart { endpoint, next_block }.into()),
            Code::Unauthenticated | Code::PermissionDenied => {
                return Err(ChainError::Refused { endpoint, message }.into());
            }
            _ if !is_told => {
                tracing::warn!(endpoint, error = message, "waiting for the next part of the LLM");
                is_told = true;
            }
            _ => {}
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

fn client(connection: Connection) -> BlocksClient<Connection> {
    BlocksClient::new(connection)
        .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES)
}

impl RemotePart {
    /// Lets the part continue a stream. The part holds nothing afterwards, so a failed call may be made
    /// again.
    pub(crate) async fn read(&self, stream: LayerStates) -> Result<LayerStates, EncoderError> {
        let prompt_lens = stream.prompt_lens().to_vec();
        let states = stream.to_bytes().swap_remove(0);
        drop(stream); // its tensors have no place in what waits
        let max_num_bytes = self.num_layers * states.len();
        let requests = batch_messages(self.part.clone(), &prompt_lens, states);
        let mut client = client(self.connections.to(&self.endpoint)?);
        let response = client.run_blocks(tokio_stream::iter(requests)).await;
        let mut answers = response.map_err(|status| self.not_opened(&status))?.into_inner();
        let mut bytes = Vec::with_capacity(max_num_bytes);
        while let Some(answer) = answers.message().await.map_err(|status| self.broken(&status))? {
            if bytes.len() + answer.states.len() > max_num_bytes {
                return Err(self.broken(&Status::internal("its answer is too long")));
            }
            bytes.extend_from_slice(&answer.states);
        }
        let states = LayerStates::from_bytes(prompt_lens, (self.num_layers, self.d_llm), &bytes);
        states.map_err(|error| self.broken(&Status::internal(error.to_string())))
    }

    /// The part does not answer, or does not accept the batch: no fault of the batch.
    fn not_opened(&self, status: &Status) -> EncoderError {
        let relayed = Status::new(status.code(), self.says(status));
        EncoderError::Relayed(self.with_refusal(status, FailureOrigin::EncoderOpening.mark(relayed)))
    }

    /// The part failed with the batch, whatever its reason.
    fn broken(&self, status: &Status) -> EncoderError {
        EncoderError::Relayed(self.with_refusal(status, Status::unavailable(self.says(status))))
    }

    fn says(&self, status: &Status) -> String {
        let Range { start, end } = self.part.blocks;
        format!("blocks {start}..{end} at {}: {}", self.endpoint, status.message())
    }

    fn with_refusal(&self, status: &Status, relayed: Status) -> Status {
        Refusal::of(status).into_iter().fold(relayed, |status, refusal| refusal.mark(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_another_bundle_arithmetic_or_range_is_refused_with_what_to_do() {
        let part =
            PartName { bundle_digest: "aa".to_owned(), blocks: 2..4, arithmetic: "f32 on a CPU".to_owned() };
        assert_eq!(difference(&part, &part), None);
        for (other, pieces) in [
            (PartName { bundle_digest: "bb".to_owned(), ..part.clone() }, ["bundle bb", "same bundle"]),
            (
                PartName { arithmetic: "int8 on a CPU".to_owned(), ..part.clone() },
                ["int8 on a CPU", "--weights"],
            ),
            (PartName { blocks: 3..4, ..part.clone() }, ["blocks 3..4", "--blocks"]),
        ] {
            let said = difference(&other, &part).unwrap();
            assert!(pieces.iter().all(|piece| said.contains(piece)), "{said}");
        }
    }
}
