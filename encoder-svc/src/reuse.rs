//! Sets aside the prompts of a shard whose outputs the decoder has found. No model reads them.

use baton_proto::FoundPrompts;

use crate::prompts::{SharedPrompt, SharedReading};

/// A prompt that is not read, and its length.
#[derive(Debug)]
pub(crate) struct SetAside {
    pub(crate) prompt: SharedPrompt,
    pub(crate) prompt_len: usize,
}

/// Splits readings into prompts that are found and readings of the others. A record that an LLM reads whole
/// is read if one of its segments is not found.
pub(crate) fn set_aside(
    readings: Vec<SharedReading>,
    found: &FoundPrompts,
) -> (Vec<SetAside>, Vec<SharedReading>) {
    let (mut set_aside, mut to_read) = (Vec::new(), Vec::new());
    for SharedReading { mut reading, prompts } in readings {
        let prompt_lens = reading.prompt_lens();
        let mut are_found = prompts.iter().map(|prompt| found.has(prompt.number));
        reading.segments.retain(|_| are_found.next() == Some(false)); // none, or one for each prompt
        let mut rest = Vec::new();
        for (prompt, prompt_len) in prompts.into_iter().zip(prompt_lens) {
            match found.has(prompt.number) {
                true => set_aside.push(SetAside { prompt, prompt_len }),
                false => rest.push(prompt),
            }
        }
        if !rest.is_empty() {
            to_read.push(SharedReading { reading, prompts: rest });
        }
    }
    (set_aside, to_read)
}

#[cfg(test)]
mod tests {
    use baton_bundle::{Reading, SegmentPrompt, TokenAlignment};
    use baton_reuse::{SegmentKey, SegmentKeys};
    use baton_text::View;

    use super::*;

    fn key(number: u32) -> SegmentKey {
        SegmentKeys::new("").of_view(&View { text: &number.to_string(), terms: Vec::new() }, None)
    }

    fn prompts(numbers: std::ops::Range<u32>) -> Vec<SharedPrompt> {
        numbers.map(|number| SharedPrompt { key: key(number), number, segments: Vec::new() }).collect()
    }

    /// A text in the LLM's tokens; a record of three segments; a record of two.
    fn readings() -> Vec<SharedReading> {
        let segment = |token| SegmentPrompt { tokens: vec![token; 2], alignment: TokenAlignment::default() };
        let record = |tokens: &[u32]| Reading {
            llm_tokens: vec![9; 5],
            segments: tokens.iter().map(|&token| segment(token)).collect(),
        };
        vec![
            SharedReading { reading: Reading::of_llm_tokens(vec![1, 2, 3]), prompts: prompts(0..1) },
            SharedReading { reading: record(&[1, 2, 3]), prompts: prompts(1..4) },
            SharedReading { reading: record(&[4, 5]), prompts: prompts(4..6) },
        ]
    }

    #[test]
    fn a_reading_without_missing_prompts_is_left_out_and_others_keep_theirs() {
        let found = FoundPrompts::of([true, false, true, false, true, true]);
        let (set_aside, to_read) = set_aside(readings(), &found);
        let numbers: Vec<(u32, usize)> =
            set_aside.iter().map(|aside| (aside.prompt.number, aside.prompt_len)).collect();
        assert_eq!(numbers, [(0, 3), (2, 2), (4, 2), (5, 2)]);
        let [SharedReading { reading, prompts }] = &to_read[..] else { panic!("{to_read:?}") };
        let tokens: Vec<u32> = reading.segments.iter().map(|segment| segment.tokens[0]).collect();
        assert_eq!((tokens, reading.llm_tokens.len()), (vec![1, 3], 5));
        assert_eq!(prompts.iter().map(|prompt| prompt.number).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn without_found_prompts_all_are_read() {
        let (set_aside, to_read) = set_aside(readings(), &FoundPrompts::default());
        assert!(set_aside.is_empty());
        let read: Vec<Reading> = to_read.into_iter().map(|shared| shared.reading).collect();
        assert_eq!(read, readings().into_iter().map(|shared| shared.reading).collect::<Vec<_>>());
    }
}
