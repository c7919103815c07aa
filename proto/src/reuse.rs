//! The messages about outputs that need not be written again: an encoder's keys, and a decoder's answer.

use baton_job::ReuseCounts;
use baton_reuse::{KEY_NUM_BYTES, SegmentKey};
use bytes::Bytes;

use crate::{TARGET_MESSAGE_NUM_BYTES, WireError, wire};

/// The prompts of a shard whose outputs a decoder has, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundPrompts {
    bits: Bytes,
}

/// The keys of a shard's prompts as messages under the size limit, in order.
pub fn key_messages(keys: &[SegmentKey]) -> impl Iterator<Item = wire::PromptKeys> + '_ {
    keys.chunks(TARGET_MESSAGE_NUM_BYTES / KEY_NUM_BYTES).map(|keys| wire::PromptKeys {
        keys: keys.iter().flat_map(|key| key.to_bytes()).collect::<Vec<u8>>().into(),
    })
}

impl TryFrom<wire::PromptKeys> for Vec<SegmentKey> {
    type Error = WireError;

    fn try_from(message: wire::PromptKeys) -> Result<Self, WireError> {
        let (keys, rest) = message.keys.as_chunks::<KEY_NUM_BYTES>();
        if keys.is_empty() || !rest.is_empty() {
            let detail = format!("{} bytes; a key has {KEY_NUM_BYTES}", message.keys.len());
            return Err(WireError::InvalidField { field: "PromptKeys.keys", detail });
        }
        Ok(keys.iter().copied().map(SegmentKey::from_bytes).collect())
    }
}

impl FoundPrompts {
    /// Those of a list, in the order of the keys.
    pub fn of(are_found: impl IntoIterator<Item = bool>) -> Self {
        let mut bits = Vec::new();
        for (number, is_found) in are_found.into_iter().enumerate() {
            if number % 8 == 0 {
                bits.push(0_u8);
            }
            bits[number / 8] |= u8::from(is_found) << (number % 8);
        }
        Self { bits: bits.into() }
    }

    /// Whether the outputs of a prompt are found.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.bits.get(number as usize / 8).is_some_and(|byte| (byte >> (number % 8)) & 1 == 1)
    }
}

impl From<FoundPrompts> for wire::FoundPrompts {
    fn from(found: FoundPrompts) -> Self {
        wire::FoundPrompts { bits: found.bits }
    }
}

impl From<wire::FoundPrompts> for FoundPrompts {
    fn from(found: wire::FoundPrompts) -> Self {
        Self { bits: found.bits }
    }
}

impl From<ReuseCounts> for wire::Reuse {
    fn from(counts: ReuseCounts) -> Self {
        let ReuseCounts { segments, repeated, remembered, cached } = counts;
        wire::Reuse { segments, repeated, remembered, cached }
    }
}

impl From<wire::Reuse> for ReuseCounts {
    fn from(counts: wire::Reuse) -> Self {
        let wire::Reuse { segments, repeated, remembered, cached } = counts;
        ReuseCounts { segments, repeated, remembered, cached }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::MAX_MESSAGE_NUM_BYTES;

    #[test]
    fn found_prompts_survive_the_wire_and_others_are_not_found() {
        let are_found: Vec<bool> = (0..21).map(|number| number % 3 == 1).collect();
        let found = FoundPrompts::of(are_found.clone());
        let found = FoundPrompts::from(wire::FoundPrompts::from(found));
        let read: Vec<bool> = (0..21).map(|number| found.has(number)).collect();
        assert_eq!(read, are_found);
        assert!(!found.has(21) && !found.has(u32::MAX));
        assert!(!FoundPrompts::default().has(0));
    }

    #[test]
    fn many_keys_are_cut_into_messages_and_come_together_again() {
        let key = |number: u64| {
            let mut bytes = [0; KEY_NUM_BYTES];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            SegmentKey::from_bytes(bytes)
        };
        let keys: Vec<SegmentKey> = (0..150_000).map(key).collect();
        let messages: Vec<wire::PromptKeys> = key_messages(&keys).collect();
        assert!(messages.len() > 1);
        assert!(messages.iter().all(|message| message.encoded_len() < MAX_MESSAGE_NUM_BYTES));
        let read = messages.into_iter().map(|message| Vec::<SegmentKey>::try_from(message).unwrap());
        assert_eq!(read.flatten().collect::<Vec<_>>(), keys);
    }

    #[test]
    fn keys_that_are_cut_off_are_refused() {
        for num_bytes in [0, 1, 17] {
            let message = wire::PromptKeys { keys: vec![0; num_bytes].into() };
            let error = Vec::<SegmentKey>::try_from(message).unwrap_err().to_string();
            assert!(error.contains("PromptKeys.keys"), "{error}");
        }
    }
}
