//! A shard's share of the memory budget until its commit. The share that its header announces is reserved
//! when the shard is taken on; outputs are counted as they arrive.

use baton_job::OutputRow;
use baton_proto::{DecodeHeader, RecordHead, ShardAttempt};

use crate::joined::SegmentOutput;

/// A record's bytes beside its strings: its head, its row, its place in lists; a generous estimate.
const NUM_BYTES_PER_RECORD: usize = 2 * size_of::<RecordHead>() + size_of::<OutputRow>();
/// A segment's bytes beside its strings: its place among the segments of its record, the overhead of
/// allocating the strings, and its place in the list of a row.
const NUM_BYTES_PER_SEGMENT: usize = 176;
/// A prompt's bytes beside its outputs: its row, with the row's lists, and its key.
const NUM_BYTES_PER_PROMPT: usize = 208;

/// The announcements in the header of a shard's stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    pub(crate) num_segments: u64,
    /// Bytes held until the commit.
    pub(crate) num_bytes: u64,
    num_text_bytes: u64,
    pub(crate) num_prompts: u64,
    /// Whether a key for each prompt follows.
    pub(crate) has_keys: bool,
}

impl Announced {
    pub(crate) fn by(header: &DecodeHeader) -> Self {
        let &DecodeHeader { num_segments, num_bytes, num_text_bytes, num_prompts, has_keys, .. } = header;
        Self { num_segments, num_bytes, num_text_bytes, num_prompts, has_keys }
    }
}

/// A shard's bytes without its outputs.
pub(crate) fn received_num_bytes(attempt: &ShardAttempt, announced: Announced) -> usize {
    let num_records = attempt.num_entries as usize;
    let times =
        |count: u64, num_bytes: usize| usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(num_bytes);
    times(announced.num_bytes, 1)
        .saturating_add(times(announced.num_segments, NUM_BYTES_PER_SEGMENT))
        .saturating_add(times(announced.num_prompts, NUM_BYTES_PER_PROMPT))
        .saturating_add(num_records * NUM_BYTES_PER_RECORD)
}

/// A shard's expected total: outputs are assumed to be as long as the texts.
pub(crate) fn expected_num_bytes(attempt: &ShardAttempt, announced: Announced) -> usize {
    let num_text_bytes = usize::try_from(announced.num_text_bytes).unwrap_or(usize::MAX);
    let written = num_text_bytes.saturating_mul(attempt.generation.n_best as usize);
    received_num_bytes(attempt, announced).saturating_add(written)
}

/// Bytes of a prompt's outputs.
pub(crate) fn outputs_num_bytes(outputs: &[SegmentOutput]) -> usize {
    outputs.iter().map(|output| size_of::<SegmentOutput>() + output.alternative.output.len()).sum()
}
