//! Gathers what becomes of each entry of a shard, in whatever order it comes, and gives it back in record order.

use baton_job::{Alternative, FailureCode, OutputRow, RecordFailure, RecordSource};
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

/// What the SLM wrote for one prompt, best first and never nothing, or why it could not.
pub(crate) type Generated = Result<Vec<Alternative>, &'static str>;

impl Outcome {
    fn new(head: PromptHead, generated: Generated) -> Self {
        let message = match generated {
            Ok(outputs) => {
                let mut outputs = outputs.into_iter();
                let best = outputs.next().expect("a finished row has an output");
                let row = OutputRow {
                    id: head.id,
                    output: best.output,
                    score: best.score,
                    prompt_tokens: head.prompt_len,
                    output_tokens: best.output_tokens,
                    finish_reason: best.finish_reason,
                    alternatives: outputs.collect(),
                    fields: head.fields,
                };
                return Outcome::Output { source: head.source, row };
            }
            Err(message) => message.to_owned(),
        };
        let code = FailureCode::ProcessingFailed;
        Outcome::Failed(RecordFailure { source: head.source, id: Some(head.id), code, message })
    }

    /// What becomes of another entry with the same prompt.
    fn of_twin(&self, head: PromptHead) -> Self {
        match self {
            Outcome::Output { row, .. } => {
                let row = OutputRow { id: head.id, fields: head.fields, ..row.clone() };
                Outcome::Output { source: head.source, row }
            }
            Outcome::Failed(failure) => {
                let failure = RecordFailure { source: head.source, id: Some(head.id), ..failure.clone() };
                Outcome::Failed(failure)
            }
        }
    }
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
    Decoding {
        head: PromptHead,
        /// Entries with the same prompt, which get the same outputs.
        twins: Vec<PromptHead>,
    },
    /// Waits for the entry whose twin it is.
    Twin,
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
        *entry = Entry::Decoding { head, twins: Vec::new() };
        Ok(())
    }

    /// Notes a prompt that is the same as that of another entry, which was begun before, and need not be decoded again.
    pub(crate) fn join(&mut self, head: PromptHead, twin_of: u32) -> Result<(), WireError> {
        self.unreceived(head.index)?;
        let index = head.index as usize;
        match &mut self.entries[twin_of as usize] {
            Entry::Decoding { twins, .. } => {
                twins.push(head);
                self.entries[index] = Entry::Twin;
            }
            Entry::Done(outcome) => {
                let outcome = outcome.of_twin(head);
                self.entries[index] = Entry::Done(outcome);
                self.num_open -= 1;
            }
            Entry::NotReceived | Entry::Twin => unreachable!("an entry is a twin only of one that was begun"),
        }
        Ok(())
    }

    /// Notes an entry without a prompt.
    pub(crate) fn fail(&mut self, index: u32, failure: RecordFailure) -> Result<(), WireError> {
        *self.unreceived(index)? = Entry::Done(Outcome::Failed(failure));
        self.num_open -= 1;
        Ok(())
    }

    /// Notes what was written for a prompt begun before, for all entries that have it; returns how many these are.
    pub(crate) fn finish(&mut self, index: u32, generated: Generated) -> u32 {
        let entry = &mut self.entries[index as usize];
        let Entry::Decoding { head, twins } = std::mem::replace(entry, Entry::NotReceived) else {
            unreachable!("the engine finishes each row once, and only rows that were begun");
        };
        let num_entries = 1 + twins.len();
        let outcome = Outcome::new(head, generated);
        for twin in twins {
            let index = twin.index as usize;
            self.entries[index] = Entry::Done(outcome.of_twin(twin));
        }
        self.entries[index as usize] = Entry::Done(outcome);
        self.num_open -= num_entries;
        num_entries as u32 // at most the entries of a shard, a u32
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
    use baton_job::FinishReason;

    use super::*;

    fn source(line: u64) -> RecordSource {
        RecordSource { uri: "a.txt".into(), line }
    }

    fn head(index: u32) -> PromptHead {
        let id = format!("r{index}");
        PromptHead { index, id, source: source(index.into()), fields: serde_json::Map::new(), prompt_len: 3 }
    }

    fn generated(text: &str) -> Generated {
        let output = text.into();
        Ok(vec![Alternative { output, score: -0.5, output_tokens: 2, finish_reason: FinishReason::Stop }])
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
        collector.finish(2, generated("due"));
        assert!(!collector.is_complete());
        collector.finish(0, generated("zero"));
        assert!(collector.is_complete());

        assert_eq!(texts(collector), ["zero", "missing_field", "due"]);
    }

    fn texts(collector: ShardCollector) -> Vec<String> {
        let text = |outcome: &Outcome| match outcome {
            Outcome::Output { row, .. } => row.output.clone(),
            Outcome::Failed(failure) => failure.code.to_string(),
        };
        collector.into_outcomes().iter().map(text).collect()
    }

    #[test]
    fn twins_get_the_same_outputs_under_their_own_ids_whenever_they_come() {
        let mut collector = ShardCollector::new(4);
        collector.begin(head(1)).unwrap();
        collector.join(head(3), 1).unwrap();
        collector.begin(head(2)).unwrap();
        assert_eq!(collector.finish(1, generated("uno")), 2);
        collector.join(head(0), 1).unwrap();
        assert!(!collector.is_complete());
        assert_eq!(collector.finish(2, Err("it broke")), 1);
        assert!(collector.is_complete());
        let ids = |outcomes: &[Outcome]| -> Vec<(String, u64)> {
            let id = |outcome: &Outcome| match outcome {
                Outcome::Output { source, row } => (row.id.clone(), source.line),
                Outcome::Failed(failure) => (failure.id.clone().unwrap(), failure.source.line),
            };
            outcomes.iter().map(id).collect()
        };
        let expected: Vec<(String, u64)> = (0..4).map(|index| (format!("r{index}"), index)).collect();
        let outcomes = collector.into_outcomes();
        assert_eq!(ids(&outcomes), expected);
        let outputs = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Output { .. }));
        assert_eq!(outputs.count(), 3);
    }

    #[test]
    fn a_twin_sent_twice_is_refused() {
        let mut collector = ShardCollector::new(2);
        collector.begin(head(0)).unwrap();
        collector.join(head(1), 0).unwrap();
        assert!(collector.join(head(1), 0).is_err());
        assert!(collector.join(head(0), 0).is_err());
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
