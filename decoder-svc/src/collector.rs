//! Gathers what is written for the sentences of a shard's entries, in whatever order it comes, and gives back what became of each entry, in
//! record order.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_job::{Alternative, FailureCode, FinishReason, OutputRow, RecordFailure, RecordSource};
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

/// What was written for one prompt, best first and never nothing, or why it could not be.
pub(crate) type Generated = Result<Vec<Alternative>, &'static str>;

/// The entries of one attempt at a shard, and the rows that are decoded for them: one for each distinct prompt.
#[derive(Debug)]
pub(crate) struct ShardCollector {
    entries: Vec<Entry>,
    rows: Vec<Row>,
    num_open: usize,
}

#[derive(Debug, Clone)]
enum Entry {
    Open(Received),
    Done(Outcome),
}

/// What has been received of an entry: in the end all of its sentences.
#[derive(Debug, Clone, Default)]
struct Received {
    /// By number.
    sentences: BTreeMap<u32, Sentence>,
    /// How many of them are written, so that none of thousands has to ask all others.
    num_written: usize,
}

#[derive(Debug, Clone)]
struct Sentence {
    head: PromptHead,
    written: Option<Arc<Generated>>,
}

/// What is decoded once.
#[derive(Debug)]
enum Row {
    /// For these sentences: entry and number.
    Decoding(Vec<(u32, u32)>),
    Done(Arc<Generated>),
}

impl ShardCollector {
    pub(crate) fn new(num_entries: u32) -> Self {
        let num_entries = num_entries as usize;
        Self {
            entries: vec![Entry::Open(Received::default()); num_entries],
            rows: Vec::new(),
            num_open: num_entries,
        }
    }

    /// Notes a prompt that is about to be decoded. Returns the number of its row.
    pub(crate) fn begin(&mut self, head: PromptHead) -> Result<u32, WireError> {
        let row = self.next_row();
        let place = self.receive(head)?;
        self.rows.push(Row::Decoding(vec![place]));
        Ok(row)
    }

    /// Number of the row that will be begun next.
    pub(crate) fn next_row(&self) -> u32 {
        self.rows.len() as u32 // at most as many as messages were received
    }

    /// Notes a prompt that is the same as that of a row begun before, and need not be decoded again.
    pub(crate) fn join(&mut self, head: PromptHead, row: u32) -> Result<(), WireError> {
        let place = self.receive(head)?;
        match &mut self.rows[row as usize] {
            Row::Decoding(places) => places.push(place),
            Row::Done(written) => {
                let written = Arc::clone(written);
                self.fill(place, &written);
            }
        }
        Ok(())
    }

    /// Notes an entry without a prompt.
    pub(crate) fn fail(&mut self, index: u32, failure: RecordFailure) -> Result<(), WireError> {
        match self.open(index)?.is_empty() {
            true => self.close(index, Outcome::Failed(failure)),
            false => return Err(sent_twice()),
        }
        Ok(())
    }

    /// Notes what was written for a row, for all sentences that have its prompt. Returns how many entries are done by that.
    pub(crate) fn finish(&mut self, row: u32, generated: Generated) -> u32 {
        let written = Arc::new(generated);
        let row = std::mem::replace(&mut self.rows[row as usize], Row::Done(Arc::clone(&written)));
        let Row::Decoding(places) = row else {
            unreachable!("the engine finishes each row once");
        };
        places.into_iter().map(|place| self.fill(place, &written)).sum()
    }

    /// Position in the shard of the entry that a row was begun for, as long as it is decoded.
    pub(crate) fn entry_of(&self, row: u32) -> u32 {
        match &self.rows[row as usize] {
            Row::Decoding(places) => places[0].0,
            Row::Done(_) => unreachable!("it is decoded no longer"),
        }
    }

    /// Whether every entry is done.
    pub(crate) fn is_complete(&self) -> bool {
        self.num_open == 0
    }

    /// Whether every entry was received whole: at the end of a stream.
    pub(crate) fn check_all_received(&self) -> Result<(), WireError> {
        let lacks_some = |entry: &Entry| match entry {
            Entry::Open(Received { sentences, .. }) => sentences
                .values()
                .next()
                .is_none_or(|first| first.head.sentence.count as usize != sentences.len()),
            Entry::Done(_) => false,
        };
        match self.entries.iter().any(lacks_some) {
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
            Entry::Open(_) => unreachable!("outcomes are asked only of a complete shard"),
        };
        self.entries.into_iter().map(outcome).collect()
    }

    /// Notes a sentence without what was written for it.
    fn receive(&mut self, head: PromptHead) -> Result<(u32, u32), WireError> {
        let place = (head.index, head.sentence.number);
        let count = head.sentence.count;
        let sentences = self.open(head.index)?;
        let first = sentences.values().next(); // the others have been compared with it
        let is_of_another_count = first.is_some_and(|first| first.head.sentence.count != count);
        if is_of_another_count || sentences.contains_key(&place.1) {
            return Err(sent_twice());
        }
        sentences.insert(place.1, Sentence { head, written: None });
        Ok(place)
    }

    /// Notes what was written for a sentence. Returns 1 if that was the last of its entry.
    fn fill(&mut self, (index, number): (u32, u32), written: &Arc<Generated>) -> u32 {
        let Entry::Open(Received { sentences, num_written }) = &mut self.entries[index as usize] else {
            unreachable!("an entry is open until all its sentences are written");
        };
        let sentence = sentences.get_mut(&number).expect("it was received");
        sentence.written = Some(Arc::clone(written));
        *num_written += 1; // once each: a row is finished once, and a sentence has one row
        if *num_written < sentence.head.sentence.count as usize {
            return 0;
        }
        let outcome = Outcome::of(std::mem::take(sentences).into_values());
        self.close(index, outcome);
        1
    }

    fn close(&mut self, index: u32, outcome: Outcome) {
        self.entries[index as usize] = Entry::Done(outcome);
        self.num_open -= 1;
    }

    fn open(&mut self, index: u32) -> Result<&mut BTreeMap<u32, Sentence>, WireError> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Open(received)) => Ok(&mut received.sentences),
            _ => Err(sent_twice()),
        }
    }
}

fn sent_twice() -> WireError {
    WireError::UnexpectedMessage { expected: "each of the shard's entries once, and each of its sentences" }
}

impl Outcome {
    /// Of the sentences of an entry, in order, all of them written.
    fn of(sentences: impl Iterator<Item = Sentence>) -> Self {
        let (mut heads, mut written) = (Vec::new(), Vec::new());
        for sentence in sentences {
            heads.push(sentence.head);
            written.push(sentence.written.expect("all are written"));
        }
        let joined = joined(&heads, &written);
        let prompt_tokens = heads.iter().map(|head| head.prompt_len).sum();
        let PromptHead { id, source, fields, .. } = heads.swap_remove(0);
        match joined {
            Ok(mut outputs) => {
                let Alternative { output, score, output_tokens, finish_reason } = outputs.remove(0);
                let alternatives = outputs;
                let row = OutputRow {
                    id,
                    output,
                    score,
                    prompt_tokens,
                    output_tokens,
                    finish_reason,
                    alternatives,
                    fields,
                };
                Outcome::Output { source, row }
            }
            Err(message) => {
                let code = FailureCode::ProcessingFailed;
                Outcome::Failed(RecordFailure { source, id: Some(id), code, message: message.to_owned() })
            }
        }
    }
}

/// The outputs of an entry: the best joins the best of all sentences, the second the second ones, or the last where there are fewer.
fn joined(heads: &[PromptHead], written: &[Arc<Generated>]) -> Generated {
    let outputs: Vec<&Vec<Alternative>> = written
        .iter()
        .map(|outputs| outputs.as_ref().as_ref().map_err(|&message| message))
        .collect::<Result<_, _>>()?;
    let num_outputs = outputs.iter().map(|outputs| outputs.len()).max().unwrap_or_default();
    let join = |rank: usize| {
        let of_rank = || outputs.iter().map(|outputs| &outputs[rank.min(outputs.len() - 1)]);
        let mut output = String::new();
        for (head, sentence) in heads.iter().zip(of_rank()) {
            output += &head.sentence.before;
            output += &sentence.output;
            output += &head.sentence.after;
        }
        let output_tokens: u32 = of_rank().map(|sentence| sentence.output_tokens).sum();
        let score = match heads {
            [_] => outputs[0][rank].score, // exactly, without rounding
            _ => {
                of_rank().map(|s| s.score * f64::from(s.output_tokens)).sum::<f64>()
                    / f64::from(output_tokens)
            }
        };
        let is_cut = of_rank().any(|sentence| sentence.finish_reason == FinishReason::Length);
        Alternative {
            output,
            score,
            output_tokens,
            finish_reason: if is_cut { FinishReason::Length } else { FinishReason::Stop },
        }
    };
    Ok((0..num_outputs).map(join).collect())
}

#[cfg(test)]
mod tests {
    use baton_proto::SentencePlace;

    use super::*;

    fn source(line: u64) -> RecordSource {
        RecordSource { uri: "a.txt".into(), line }
    }

    fn head(index: u32) -> PromptHead {
        sentence(index, SentencePlace::default())
    }

    fn sentence(index: u32, sentence: SentencePlace) -> PromptHead {
        let id = format!("r{index}");
        let (source, fields) = (source(index.into()), serde_json::Map::new());
        PromptHead { index, id, source, fields, prompt_len: 3, sentence }
    }

    fn place(number: u32, before: &str, after: &str) -> SentencePlace {
        SentencePlace { number, count: 3, before: before.into(), after: after.into() }
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
        let two = collector.begin(head(2)).unwrap();
        collector.fail(1, failure(1)).unwrap();
        let zero = collector.begin(head(0)).unwrap();
        collector.check_all_received().unwrap();
        collector.finish(two, generated("due"));
        assert!(!collector.is_complete());
        collector.finish(zero, generated("zero"));
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
        let uno = collector.begin(head(1)).unwrap();
        collector.join(head(3), uno).unwrap();
        let other = collector.begin(head(2)).unwrap();
        assert_eq!(collector.finish(uno, generated("uno")), 2);
        collector.join(head(0), uno).unwrap();
        assert!(!collector.is_complete());
        assert_eq!(collector.entry_of(other), 2);
        assert_eq!(collector.finish(other, Err("it broke")), 1);
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
    fn sentences_are_joined_by_what_stands_between_them_in_whatever_order_they_come() {
        let mut collector = ShardCollector::new(1);
        let due = collector.begin(sentence(0, place(1, "\n", ""))).unwrap();
        assert!(collector.check_all_received().is_err(), "two are missing");
        assert_eq!(collector.finish(due, generated("due.")), 0);
        let mut first = sentence(0, place(0, "1. ", ""));
        first.fields.insert("lang".into(), "en".into());
        let uno = collector.begin(first).unwrap();
        collector.join(sentence(0, place(2, " ", " --")), due).unwrap(); // the second once more
        collector.check_all_received().unwrap();
        let cut = |output: &str, score| Alternative {
            output: output.into(),
            score,
            output_tokens: 4,
            finish_reason: FinishReason::Length,
        };
        assert_eq!(collector.finish(uno, Ok(vec![cut("uno.", -0.1), cut("Uno!", -0.2)])), 1);

        let [Outcome::Output { row, .. }] = &collector.into_outcomes()[..] else { panic!("no output") };
        assert_eq!(
            (row.output.as_str(), row.output_tokens, row.prompt_tokens),
            ("1. uno.\ndue. due. --", 8, 9)
        );
        assert_eq!(
            (row.score, row.finish_reason),
            (-0.3, FinishReason::Length),
            "by tokens; one of them is cut"
        );
        assert_eq!(row.alternatives[0].output, "1. Uno!\ndue. due. --", "the last where there are fewer");
        assert_eq!(row.fields["lang"], "en");
    }

    #[test]
    fn an_entry_fails_with_any_of_its_sentences() {
        let mut collector = ShardCollector::new(1);
        let rows: Vec<u32> =
            (0..3).map(|n| collector.begin(sentence(0, place(n, "", ""))).unwrap()).collect();
        let finished = rows.iter().map(|&row| {
            collector.finish(row, if row == rows[1] { Err("it broke") } else { generated("bene") })
        });
        assert_eq!(finished.collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(texts(collector), ["processing_failed"]);
    }

    #[test]
    fn an_entry_or_sentence_sent_twice_or_not_at_all_or_out_of_range_is_refused() {
        let mut collector = ShardCollector::new(3);
        let row = collector.begin(head(0)).unwrap();
        assert!(collector.begin(head(0)).is_err());
        assert!(collector.join(head(0), row).is_err());
        assert!(collector.fail(0, failure(0)).is_err());
        assert!(collector.begin(head(3)).is_err());
        collector.begin(sentence(1, place(2, "", ""))).unwrap();
        assert!(collector.begin(sentence(1, place(2, "", ""))).is_err());
        assert!(collector.begin(head(1)).is_err(), "of another number of sentences");
        assert!(collector.check_all_received().is_err());
    }
}
