//! Gathers what becomes of each entry of a shard, in whatever order it comes, and gives it back in record order.

use baton_job::{FailureCode, FinishReason, OutputRow, RecordFailure, RecordSource};
use baton_proto::{PromptHead, WireError};

/// What became of one entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It has an output row.
    Output {
        /// Where the record came from.
        source: RecordSource,
        /// The row.
        row: OutputRow,
    },
    /// It has an error row.
    Failed(RecordFailure),
}

/// What the SLM wrote for one prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generated {
    pub(crate) text: String,
    /// Mean log-probability of its tokens.
    pub(crate) score: f64,
    /// Tokens, the end token included.
    pub(crate) output_tokens: u32,
    pub(crate) finish_reason: FinishReason,
}

/// The entries of one attempt at a shard.
#[derive(Debug)]
pub(crate) struct ShardCollector {
    entries: Vec<Entry>,
    num_open: usize,
}

#[derive(Debug, Clone)]
enum Entry {
    NotReceived,
    Decoding(PromptHead),
    Done(Outcome),
}

impl ShardCollector {
    pub(crate) fn new(num_entries: u32) -> Self {
        let num_entries = num_entries as usize;
        Self { entries: vec![Entry::NotReceived; num_entries], num_open: num_entries }
    }

    /// Notes a prompt that is about to be decoded.
    pub(crate) fn begin(&mut self, head: PromptHead) -> Result<(), WireError> {
        let entry = self.unreceived(head.index)?;
        *entry = Entry::Decoding(head);
        Ok(())
    }

    /// Notes an entry without a prompt.
    pub(crate) fn fail(&mut self, index: u32, failure: RecordFailure) -> Result<(), WireError> {
        *self.unreceived(index)? = Entry::Done(Outcome::Failed(failure));
        self.num_open -= 1;
        Ok(())
    }

    /// Notes what was written for a prompt begun before, or why nothing could be.
    pub(crate) fn finish(&mut self, index: u32, generated: Result<Generated, &'static str>) {
        let entry = &mut self.entries[index as usize];
        let Entry::Decoding(head) = std::mem::replace(entry, Entry::NotReceived) else {
            unreachable!("the engine finishes each row once, and only rows that were begun");
        };
        *entry = Entry::Done(match generated {
            Ok(generated) => {
                let row = OutputRow {
                    id: head.id,
                    output: generated.text,
                    score: generated.score,
                    prompt_tokens: head.prompt_len,
                    output_tokens: generated.output_tokens,
                    finish_reason: generated.finish_reason,
                    fields: head.fields,
                };
                Outcome::Output { source: head.source, row }
            }
            Err(message) => Outcome::Failed(RecordFailure {
                source: head.source,
                id: Some(head.id),
                code: FailureCode::ProcessingFailed,
                message: message.to_owned(),
            }),
        });
        self.num_open -= 1;
    }

    /// Whether every entry is done.
    pub(crate) fn is_complete(&self) -> bool {
        self.num_open == 0
    }

    /// Whether every entry was received: at the end of a stream.
    pub(crate) fn check_all_received(&self) -> Result<(), WireError> {
        match self.entries.iter().any(|entry| matches!(entry, Entry::NotReceived)) {
            false => Ok(()),
            true => Err(WireError::UnexpectedMessage { expected: "as many entries as the header announced" }),
        }
    }

    /// What became of every entry, in record order.
    ///
    /// # Panics
    /// The shard is not complete.
    pub(crate) fn into_outcomes(self) -> Vec<Outcome> {
        let outcome = |entry| match entry {
            Entry::Done(outcome) => outcome,
            _ => unreachable!("outcomes are asked only of a complete shard"),
        };
        self.entries.into_iter().map(outcome).collect()
    }

    fn unreceived(&mut self, index: u32) -> Result<&mut Entry, WireError> {
        match self.entries.get_mut(index as usize) {
            Some(entry @ Entry::NotReceived) => Ok(entry),
            _ => Err(WireError::UnexpectedMessage { expected: "each of the shard's entries once" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(line: u64) -> RecordSource {
        RecordSource { uri: "a.txt".into(), line }
    }

    fn head(index: u32) -> PromptHead {
        let id = format!("r{index}");
        PromptHead { index, id, source: source(index.into()), fields: serde_json::Map::new(), prompt_len: 3 }
    }

    fn generated(text: &str) -> Generated {
        Generated { text: text.into(), score: -0.5, output_tokens: 2, finish_reason: FinishReason::Stop }
    }

    fn failure(line: u64) -> RecordFailure {
        let message = "no field `text`".into();
        RecordFailure { source: source(line), id: None, code: FailureCode::MissingField, message }
    }

    #[test]
    fn outcomes_come_back_in_record_order() {
        let mut collector = ShardCollector::new(3);
        collector.begin(head(2)).unwrap();
        collector.fail(1, failure(1)).unwrap();
        collector.begin(head(0)).unwrap();
        collector.check_all_received().unwrap();
        collector.finish(2, Ok(generated("due")));
        assert!(!collector.is_complete());
        collector.finish(0, Ok(generated("zero")));
        assert!(collector.is_complete());

        let outcomes = collector.into_outcomes();
        let text = |outcome: &Outcome| match outcome {
            Outcome::Output { row, .. } => row.output.clone(),
            Outcome::Failed(failure) => failure.code.to_string(),
        };
        assert_eq!(outcomes.iter().map(text).collect::<Vec<_>>(), ["zero", "missing_field", "due"]);
    }

    #[test]
    fn an_entry_sent_twice_or_not_at_all_or_out_of_range_is_refused() {
        let mut collector = ShardCollector::new(2);
        collector.begin(head(0)).unwrap();
        assert!(collector.begin(head(0)).is_err());
        assert!(collector.fail(0, failure(0)).is_err());
        assert!(collector.begin(head(2)).is_err());
        assert!(collector.check_all_received().is_err());
    }
}
