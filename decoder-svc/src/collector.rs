//! Gathers the outputs for the segments of a shard's records, in any order of arrival, and returns the
//! outcome of each entry, in record order.

use std::collections::BTreeSet;
use std::sync::Arc;

use baton_job::{Alternative, FailureCode, FinishReason, OutputRow, RecordFailure, RecordSource};
use baton_proto::{RecordHead, WireError};
use baton_segments::{Piece, Segment, join};
use baton_text::{Finished, Prepared, TextRules};

/// The outcome of one entry.
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

/// The outputs for one prompt, best first and never empty, or the reason why there are none.
pub(crate) type Generated = Result<Vec<Alternative>, &'static str>;

/// The entries of one attempt at a shard, and the rows that are decoded for their segments: one for each
/// prompt.
#[derive(Debug)]
pub(crate) struct ShardCollector {
    entries: Vec<Entry>,
    rows: Vec<Row>,
    num_open: usize,
    /// Segments that records may still announce.
    num_segments_left: u64,
    /// Turns the text written for a segment into its output.
    rules: Arc<TextRules>,
}

#[derive(Debug, Clone)]
enum Entry {
    Missing,
    Open(Open),
    Done(Outcome),
}

/// A record whose segments are received and written.
#[derive(Debug, Clone)]
struct Open {
    head: RecordHead,
    /// By number, as far as they have come.
    segments: Vec<Option<PlacedSegment>>,
    num_received: usize,
    num_written: usize,
}

/// A segment and the row that reads its text.
#[derive(Debug, Clone)]
struct PlacedSegment {
    segment: Segment,
    row: u32,
}

/// A prompt that is decoded once.
#[derive(Debug)]
struct Row {
    prompt_len: u32,
    /// The segments that it is decoded for, record and number, while it is being decoded.
    places: Vec<(u32, u32)>,
    written: Option<Generated>,
}

impl ShardCollector {
    /// A collector for a stream whose header announces this many entries and segments.
    pub(crate) fn new(num_entries: u32, num_segments: u64) -> Self {
        let num_entries = num_entries as usize;
        let entries = vec![Entry::Missing; num_entries];
        let rules = Arc::new(TextRules::none());
        let (rows, num_segments_left) = (Vec::new(), num_segments);
        Self { entries, rows, num_open: num_entries, num_segments_left, rules }
    }

    /// Applies rules to the written texts.
    pub(crate) fn obeying(self, rules: Arc<TextRules>) -> Self {
        Self { rules, ..self }
    }

    /// Notes a record; its segments follow. One without segments is done.
    pub(crate) fn begin_record(&mut self, head: RecordHead) -> Result<(), WireError> {
        let (entry, num_segments) = (self.missing(head.index)?, head.num_segments);
        *entry = match num_segments {
            0 => Entry::Done(Outcome::copied(head)),
            _ => Entry::Open(Open::new(head)),
        };
        self.num_open -= usize::from(num_segments == 0);
        let left = self.num_segments_left.checked_sub(num_segments.into());
        self.num_segments_left = left.ok_or(WireError::UnexpectedMessage { expected: NO_MORE })?;
        Ok(())
    }

    /// Notes an entry that is no record.
    pub(crate) fn fail(&mut self, index: u32, failure: RecordFailure) -> Result<(), WireError> {
        *self.missing(index)? = Entry::Done(Outcome::Failed(failure));
        self.num_open -= 1;
        Ok(())
    }

    /// Notes a segment whose prompt is about to be decoded. Returns the number of its row, counted by prompts
    /// from 0.
    pub(crate) fn begin(&mut self, segment: Segment, prompt_len: u32) -> Result<u32, WireError> {
        let row = self.rows.len() as u32; // at most as many as segments were announced
        let place = self.receive(segment, row)?;
        self.rows.push(Row { prompt_len, places: vec![place], written: None });
        Ok(row)
    }

    /// Notes a segment that shares the row of a prompt begun before.
    pub(crate) fn join(&mut self, segment: Segment, row: u32) -> Result<(), WireError> {
        if row as usize >= self.rows.len() {
            return Err(WireError::UnexpectedMessage { expected: "repeats of prompts sent before" });
        }
        let place = self.receive(segment, row)?;
        let Row { places, written, .. } = &mut self.rows[row as usize];
        match written {
            None => places.push(place),
            Some(_) => self.fill(place),
        }
        Ok(())
    }

    /// Notes the outputs of a row, for all segments that share it.
    pub(crate) fn finish(&mut self, row: u32, generated: Generated) {
        let row = &mut self.rows[row as usize];
        row.written = Some(generated);
        for place in std::mem::take(&mut row.places) {
            self.fill(place);
        }
    }

    /// Position in the shard of the entry that began a row, while it is being decoded.
    pub(crate) fn entry_of(&self, row: u32) -> u32 {
        self.rows[row as usize].places[0].0
    }

    /// Maximum of tokens in a record's output, if its own limit is below the job's.
    pub(crate) fn max_new_tokens(&self, record: u32) -> Option<u32> {
        match self.entries.get(record as usize) {
            Some(Entry::Open(open)) => open.head.max_new_tokens,
            _ => None,
        }
    }

    /// Entries that are done.
    pub(crate) fn num_done(&self) -> u32 {
        (self.entries.len() - self.num_open) as u32 // at most as many as the header announces
    }

    /// Whether every entry is done.
    pub(crate) fn is_complete(&self) -> bool {
        self.num_open == 0
    }

    /// Whether every entry was received whole: at the end of a stream.
    pub(crate) fn check_all_received(&self) -> Result<(), WireError> {
        let is_whole = |entry: &Entry| match entry {
            Entry::Missing => false,
            Entry::Open(open) => open.num_received == open.segments.len(),
            Entry::Done(_) => true,
        };
        match self.num_segments_left == 0 && self.entries.iter().all(is_whole) {
            true => Ok(()),
            false => Err(WireError::UnexpectedMessage {
                expected: "as many entries and segments as the header announced",
            }),
        }
    }

    /// The outcome of every entry, in record order.
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

    /// Notes a segment that has no output yet.
    fn receive(&mut self, segment: Segment, row: u32) -> Result<(u32, u32), WireError> {
        let Segment { record, number, .. } = segment;
        let Some(Entry::Open(open)) = self.entries.get_mut(record as usize) else { return Err(sent_twice()) };
        match open.segments.get_mut(number as usize) {
            Some(place @ None) => *place = Some(PlacedSegment { segment, row }),
            _ => return Err(sent_twice()),
        }
        open.num_received += 1;
        Ok((record, number))
    }

    /// Notes that the row of a segment is written.
    fn fill(&mut self, (record, _): (u32, u32)) {
        let entry = &mut self.entries[record as usize];
        let Entry::Open(open) = entry else {
            unreachable!("a record is open until all its segments are written");
        };
        open.num_written += 1; // once each: a row is finished once, and a segment has one row
        if open.num_written == open.segments.len() {
            *entry = Entry::Done(open.outcome(&self.rows, &self.rules));
            self.num_open -= 1;
        }
    }

    fn missing(&mut self, index: u32) -> Result<&mut Entry, WireError> {
        match self.entries.get_mut(index as usize) {
            Some(entry @ Entry::Missing) => Ok(entry),
            _ => Err(sent_twice()),
        }
    }
}

const NO_MORE: &str = "no more segments than the header announced";

fn sent_twice() -> WireError {
    WireError::UnexpectedMessage {
        expected: "each of the shard's entries once, and behind it each of its segments",
    }
}

impl Outcome {
    /// Of a record without segments.
    fn copied(head: RecordHead) -> Self {
        let RecordHead { id, source, fields, copied: output, .. } = head;
        let (alternatives, finish_reason) = (Vec::new(), FinishReason::Stop);
        let row = OutputRow {
            id,
            output,
            score: 0.0,
            prompt_tokens: 0,
            llm_prompt_tokens: 0,
            output_tokens: 0,
            finish_reason,
            warnings: Vec::new(),
            alternatives,
            origin: None,
            fields,
        };
        Outcome::Output { source, row }
    }
}

impl Open {
    fn new(head: RecordHead) -> Self {
        let segments = vec![None; head.num_segments as usize]; // no more than the header announced
        Self { head, segments, num_received: 0, num_written: 0 }
    }

    /// The outcome of a record whose segments all have their outputs.
    fn outcome(&mut self, rows: &[Row], rules: &TextRules) -> Outcome {
        let segments: Vec<PlacedSegment> = std::mem::take(&mut self.segments).into_iter().flatten().collect();
        let prompt_tokens = segments.iter().map(|segment| rows[segment.row as usize].prompt_len).sum();
        let RecordHead { id, source, fields, llm_prompt_tokens, max_new_tokens, .. } = self.head.clone();
        match joined(&segments, rows, rules, max_new_tokens) {
            Ok((mut outputs, warnings)) => {
                let Alternative { output, score, output_tokens, finish_reason } = outputs.remove(0);
                let alternatives = outputs;
                let row = OutputRow {
                    id,
                    output,
                    score,
                    prompt_tokens,
                    llm_prompt_tokens,
                    output_tokens,
                    finish_reason,
                    warnings,
                    alternatives,
                    origin: None,
                    fields,
                };
                Outcome::Output { source, row }
            }
            Err(message) => {
                let code = FailureCode::ProcessingFailed;
                Outcome::Failed(RecordFailure { source, id: Some(id), code, message })
            }
        }
    }
}

/// The outputs of a record. The best joins the best of all segments, the second the second ones; a segment
/// with fewer outputs gives its last. The warnings are those of the best. An output
/// ends before the segment that would exceed `max_new_tokens`.
fn joined(
    segments: &[PlacedSegment],
    rows: &[Row],
    rules: &TextRules,
    max_new_tokens: Option<u32>,
) -> Result<(Vec<Alternative>, Vec<String>), String> {
    let outputs_of = |segment: &PlacedSegment| {
        let written = rows[segment.row as usize].written.as_ref().expect("all are written");
        written.as_ref().map_err(|&message| message.to_owned())
    };
    let outputs: Vec<&Vec<Alternative>> = segments.iter().map(outputs_of).collect::<Result<_, _>>()?;
    let num_outputs = outputs.iter().map(|outputs| outputs.len()).max().unwrap_or_default();
    let prepared: Vec<Prepared<'_>> =
        segments.iter().map(|placed| rules.prepare(&placed.segment.text)).collect();
    let mut warnings = BTreeSet::new();
    let mut problem = None;
    let mut join = |rank: usize| {
        let of_rank = || outputs.iter().map(|outputs| &outputs[rank.min(outputs.len() - 1)]);
        let num_kept = max_new_tokens.map_or(segments.len(), |limit| num_within(limit, of_rank()));
        let of_rank = || of_rank().take(num_kept);
        let written = prepared.iter().zip(of_rank());
        let finished: Vec<Finished> = written.map(|(text, written)| text.finish(&written.output)).collect();
        if rank == 0 {
            let all = finished.iter().flat_map(|finished| &finished.warnings);
            warnings.extend(all.map(ToString::to_string));
            problem = finished.iter().find_map(|finished| finished.problem);
        }
        let output = join(segments.iter().zip(&finished).map(|(PlacedSegment { segment, .. }, finished)| {
            Piece { before: &segment.before, text: &finished.text, after: &segment.after }
        }));
        let output_tokens: u32 = of_rank().map(|segment| segment.output_tokens).sum();
        let score = match outputs[..] {
            [only] => only[rank].score, // exactly, without rounding
            _ => {
                of_rank().map(|segment| segment.score * f64::from(segment.output_tokens)).sum::<f64>()
                    / f64::from(output_tokens)
            }
        };
        let is_cut = of_rank().any(|segment| segment.finish_reason == FinishReason::Length);
        let is_cut = is_cut || num_kept < segments.len();
        let finish_reason = if is_cut { FinishReason::Length } else { FinishReason::Stop };
        Alternative { output, score, output_tokens, finish_reason }
    };
    let alternatives = (0..num_outputs).map(&mut join).collect();
    if let Some(problem) = problem {
        return Err(format!("the output has the warning {problem}, which this job does not accept"));
    }
    Ok((alternatives, warnings.into_iter().collect()))
}

/// Counts the first of these outputs that together have at most `limit` tokens; the first alone always
/// has.
fn num_within<'a>(limit: u32, outputs: impl Iterator<Item = &'a Alternative>) -> usize {
    let sums = outputs.scan(0_u32, |sum, output| {
        *sum = sum.saturating_add(output.output_tokens);
        Some(*sum)
    });
    sums.take_while(|&sum| sum <= limit).count().max(1)
}

#[cfg(test)]
mod tests {
    use baton_job::KeptFields;

    use super::*;

    fn source(line: u64) -> RecordSource {
        RecordSource { uri: "a.txt".into(), line }
    }

    fn record(index: u32, num_segments: u32) -> RecordHead {
        let (id, copied) = (format!("r{index}"), "--".to_owned());
        let (source, fields) = (source(index.into()), KeptFields::default());
        let (llm_prompt_tokens, max_new_tokens) = (11, None);
        RecordHead { index, id, source, fields, num_segments, copied, llm_prompt_tokens, max_new_tokens }
    }

    fn segment(record: u32, number: u32, before: &str, after: &str) -> Segment {
        Segment { record, number, text: "read".into(), before: before.into(), after: after.into() }
    }

    /// The only one of a record.
    fn whole(record: u32) -> Segment {
        segment(record, 0, "", "")
    }

    /// Of records that have these numbers of segments.
    fn collector(num_segments: &[u32]) -> ShardCollector {
        let sum = num_segments.iter().map(|&num| u64::from(num)).sum();
        let mut collector = ShardCollector::new(num_segments.len() as u32, sum);
        for (index, &num_segments) in (0..).zip(num_segments) {
            collector.begin_record(record(index, num_segments)).unwrap();
        }
        collector
    }

    fn generated(text: &str) -> Generated {
        let output = text.into();
        Ok(vec![Alternative { output, score: -0.5, output_tokens: 2, finish_reason: FinishReason::Stop }])
    }

    fn failure(line: u64) -> RecordFailure {
        let message = "no field `text`".into();
        RecordFailure { source: source(line), id: None, code: FailureCode::MissingField, message }
    }

    fn texts(collector: ShardCollector) -> Vec<String> {
        let text = |outcome: &Outcome| match outcome {
            Outcome::Output { row, .. } => row.output.clone(),
            Outcome::Failed(failure) => failure.code.to_string(),
        };
        collector.into_outcomes().iter().map(text).collect()
    }

    #[test]
    fn the_rules_repair_written_text() {
        let rules = TextRules::new(&baton_text::TextOptions::default()).unwrap();
        let mut collector = collector(&[1]).obeying(Arc::new(rules));
        let segment = Segment { text: "- Open %s now".into(), ..whole(0) };
        let row = collector.begin(segment, 3).unwrap();
        collector.finish(row, generated("Apri ora"));
        let outcomes = collector.into_outcomes();
        let [Outcome::Output { row, .. }] = &outcomes[..] else { panic!("no output") };
        assert_eq!(row.output, "- Apri %s ora");
        assert_eq!(row.warnings, ["placeholder_placed"]);
    }

    #[test]
    fn outcomes_come_back_in_record_order() {
        let mut collector = ShardCollector::new(3, 2);
        collector.fail(1, failure(1)).unwrap();
        collector.begin_record(record(2, 1)).unwrap();
        collector.begin_record(record(0, 1)).unwrap();
        let two = collector.begin(whole(2), 3).unwrap();
        let zero = collector.begin(whole(0), 3).unwrap();
        collector.check_all_received().unwrap();
        collector.finish(two, generated("due"));
        assert!(!collector.is_complete());
        collector.finish(zero, generated("zero"));
        assert!(collector.is_complete());
        assert_eq!(texts(collector), ["zero", "missing_field", "due"]);
    }

    #[test]
    fn a_record_without_segments_consists_of_copied_text() {
        let mut collector = collector(&[0, 1]);
        assert_eq!(collector.num_done(), 1);
        let row = collector.begin(whole(1), 3).unwrap();
        collector.finish(row, generated("uno"));
        let outcomes = collector.into_outcomes();
        let [Outcome::Output { row, source: from }, _] = &outcomes[..] else { panic!("no output") };
        assert_eq!((row.output.as_str(), row.id.as_str(), from), ("--", "r0", &source(0)));
        assert_eq!((row.prompt_tokens, row.output_tokens, row.score), (0, 0, 0.0));
        assert_eq!(row.finish_reason, FinishReason::Stop);
    }

    #[test]
    fn segments_that_share_a_row_get_its_outputs_whenever_they_come() {
        let mut collector = collector(&[1, 1, 1, 1]);
        let uno = collector.begin(whole(1), 3).unwrap();
        collector.join(whole(3), uno).unwrap();
        let other = collector.begin(whole(2), 4).unwrap();
        collector.finish(uno, generated("uno"));
        assert_eq!(collector.num_done(), 2);
        collector.join(whole(0), uno).unwrap();
        assert!(!collector.is_complete());
        assert_eq!(collector.entry_of(other), 2);
        collector.finish(other, Err("it broke"));
        assert_eq!((collector.num_done(), collector.is_complete()), (4, true));
        let of = |outcome: &Outcome| match outcome {
            Outcome::Output { source, row } => (row.id.clone(), source.line, row.prompt_tokens),
            Outcome::Failed(failure) => (failure.id.clone().unwrap(), failure.source.line, 0),
        };
        let outcomes: Vec<_> = collector.into_outcomes().iter().map(of).collect();
        let expected = [("r0", 0, 3), ("r1", 1, 3), ("r2", 2, 0), ("r3", 3, 3)];
        assert_eq!(outcomes, expected.map(|(id, line, tokens)| (id.to_owned(), line, tokens)));
    }

    #[test]
    fn segments_in_any_order_are_joined_by_the_text_between_them() {
        let mut collector = ShardCollector::new(1, 3);
        let fields = serde_json::Map::from_iter([("lang".to_owned(), "en".into())]);
        let head = RecordHead { fields: fields.into(), ..record(0, 3) };
        collector.begin_record(head).unwrap();
        let due = collector.begin(segment(0, 1, "\n", ""), 3).unwrap();
        assert!(collector.check_all_received().is_err(), "two are missing");
        collector.finish(due, generated("due."));
        assert_eq!(collector.num_done(), 0);
        let uno = collector.begin(segment(0, 0, "1. ", ""), 3).unwrap();
        collector.join(segment(0, 2, " ", " --"), due).unwrap(); // the second once more
        collector.check_all_received().unwrap();
        let cut = |output: &str, score| Alternative {
            output: output.into(),
            score,
            output_tokens: 4,
            finish_reason: FinishReason::Length,
        };
        collector.finish(uno, Ok(vec![cut("uno.", -0.1), cut("Uno!", -0.2)]));
        assert_eq!(collector.num_done(), 1);

        let [Outcome::Output { row, .. }] = &collector.into_outcomes()[..] else { panic!("no output") };
        assert_eq!(
            (row.output.as_str(), row.output_tokens, row.prompt_tokens, row.llm_prompt_tokens),
            ("1. uno.\ndue. due. --", 8, 9, 11)
        );
        assert_eq!(
            (row.score, row.finish_reason),
            (-0.3, FinishReason::Length),
            "by tokens; one of them is cut"
        );
        assert_eq!(row.alternatives[0].output, "1. Uno!\ndue. due. --", "the last where there are fewer");
        assert_eq!(serde_json::to_string(&row.fields).unwrap(), r#"{"lang":"en"}"#);
    }

    #[test]
    fn an_output_ends_before_the_segment_that_would_exceed_the_limit_of_its_record() {
        let joined = |limit: u32| {
            let mut collector = ShardCollector::new(1, 3);
            let head = RecordHead { max_new_tokens: Some(limit), ..record(0, 3) };
            collector.begin_record(head).unwrap();
            assert_eq!(collector.max_new_tokens(0), Some(limit));
            for (number, text) in ["uno.", "due.", "tre."].into_iter().enumerate() {
                let (before, after) = if number == 0 { ("", "") } else { (" ", "\n") };
                let row = collector.begin(segment(0, number as u32, before, after), 3).unwrap();
                collector.finish(row, generated(text)); // two tokens
            }
            match collector.into_outcomes().remove(0) {
                Outcome::Output { row, .. } => (row.output, row.output_tokens, row.finish_reason),
                Outcome::Failed(failure) => panic!("{failure:?}"),
            }
        };
        assert_eq!(joined(6), ("uno. due.\n tre.\n".to_owned(), 6, FinishReason::Stop));
        assert_eq!(joined(5), ("uno. due.\n".to_owned(), 4, FinishReason::Length));
        assert_eq!(joined(1).0, "uno.", "the first is limited by itself");
    }

    #[test]
    fn a_record_fails_with_any_of_its_segments() {
        let mut collector = collector(&[3]);
        let rows: Vec<u32> = (0..3).map(|n| collector.begin(segment(0, n, "", ""), 3).unwrap()).collect();
        for &row in &rows {
            assert_eq!(collector.num_done(), 0);
            collector.finish(row, if row == rows[1] { Err("it broke") } else { generated("bene") });
        }
        assert_eq!(texts(collector), ["processing_failed"]);
    }

    #[test]
    fn repeated_missing_and_invalid_segments_are_refused() {
        let mut collector = ShardCollector::new(3, 4);
        assert!(collector.begin(whole(0), 3).is_err(), "before its record");
        collector.begin_record(record(0, 1)).unwrap();
        assert!(collector.begin_record(record(0, 1)).is_err());
        assert!(collector.begin_record(record(3, 1)).is_err());
        let row = collector.begin(whole(0), 3).unwrap();
        assert!(collector.begin(whole(0), 3).is_err());
        assert!(collector.join(whole(0), row).is_err());
        assert!(collector.fail(0, failure(0)).is_err());
        collector.begin_record(record(1, 3)).unwrap();
        assert!(collector.join(segment(1, 0, "", ""), 7).is_err(), "no row 7");
        collector.begin(segment(1, 2, "", ""), 3).unwrap();
        assert!(collector.begin(segment(1, 2, "", ""), 3).is_err());
        assert!(collector.begin(segment(1, 3, "", ""), 3).is_err());
        assert!(collector.check_all_received().is_err());
        assert!(collector.begin_record(record(2, 1)).is_err(), "more segments than were announced");
    }
}
