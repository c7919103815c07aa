//! Gathers the outputs for the segments of a shard's records, in any order of arrival, and returns the
//! outcome of each entry, in record order. `joined` makes a record's output from those of its segments.

use std::sync::Arc;

use baton_bundle::RulesByLanguage;
use baton_formats::ReviewRow;
use baton_job::{
    FailureCode, FinishReason, Judgement, LanguageChoice, OutputRow, RecordFailure, RecordSource, TermCounts,
};
use baton_proto::{RecordHead, WireError};
use baton_segments::{Segment, Unit};
use baton_text::TextRules;

use crate::joined::{Generated, Joined, ReadSegment, joined, source_text};
use crate::judge::Judge;

/// The outcome of one entry.
#[allow(clippy::large_enum_variant, reason = "nearly all entries have an output row")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It has an output row.
    Output {
        /// Where the record came from.
        source: RecordSource,
        /// The row.
        row: OutputRow,
        /// The same for a reader of the worst outputs, if the job asks for them.
        review: Option<Box<ReviewRow>>,
        /// The decoder's knowledge of the output; `None` if no model wrote it.
        judgement: Option<Judgement>,
        /// The glossary's terms in the text.
        terms: TermCounts,
    },
    /// It has an error row.
    Failed(RecordFailure),
}

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
    rules: Arc<RulesByLanguage>,
    unit: Unit,
    /// Judges outputs.
    judge: Judge,
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
    /// The job's, in the record's languages and with its own terms.
    rules: Arc<TextRules>,
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
        let rules = Arc::new(RulesByLanguage::none());
        let (rows, num_segments_left) = (Vec::new(), num_segments);
        let (num_open, unit, judge) = (num_entries, Unit::Record, Judge::default());
        Self { entries, rows, num_open, num_segments_left, rules, unit, judge }
    }

    /// Expects the segments of texts that are cut by this unit.
    pub(crate) fn cut_by(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// Applies rules to the written texts.
    pub(crate) fn obeying(self, rules: Arc<RulesByLanguage>) -> Self {
        Self { rules, ..self }
    }

    /// Judges outputs.
    pub(crate) fn judged_by(self, judge: Judge) -> Self {
        Self { judge, ..self }
    }

    /// Notes a record; its segments follow. One without segments is done.
    pub(crate) fn begin_record(&mut self, head: RecordHead) -> Result<(), WireError> {
        let (index, num_segments) = (head.index, head.num_segments);
        let rules = rules_of(&self.rules, &head)?;
        *self.missing(index)? = match num_segments {
            0 => Entry::Done(Outcome::copied(head)),
            _ => Entry::Open(Open::new(head, rules)),
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

    /// The settings that a record has of its own: the maximum of tokens in its output, and its languages.
    pub(crate) fn own_settings(&self, record: u32) -> (Option<u32>, LanguageChoice) {
        match self.entries.get(record as usize) {
            Some(Entry::Open(open)) => (open.head.max_new_tokens, open.head.languages.clone()),
            _ => (None, LanguageChoice::default()),
        }
    }

    /// The rules for a record's text, until it is done.
    pub(crate) fn rules_of(&self, record: u32) -> Arc<TextRules> {
        match self.entries.get(record as usize) {
            Some(Entry::Open(open)) => Arc::clone(&open.rules),
            _ => self.rules.of(&LanguageChoice::default()),
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
            *entry = Entry::Done(open.outcome(&self.rows, self.unit, &self.judge));
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
            quality: None,
            signals: None,
            tier: None,
            alternatives,
            origin: None,
            fields,
        };
        Outcome::Output { source, row, review: None, judgement: None, terms: TermCounts::default() }
    }
}

/// The rules for the text of a record: the job's, in its languages and with its own terms.
fn rules_of(rules: &RulesByLanguage, head: &RecordHead) -> Result<Arc<TextRules>, WireError> {
    let rules = rules.of(&head.languages);
    if head.terms.is_empty() {
        return Ok(rules);
    }
    let rules = rules.with_terms(&head.terms);
    rules.map(Arc::new).map_err(|_| WireError::UnexpectedMessage { expected: "records with valid terms" })
}

impl Open {
    fn new(head: RecordHead, rules: Arc<TextRules>) -> Self {
        let segments = vec![None; head.num_segments as usize]; // no more than the header announced
        Self { head, rules, segments, num_received: 0, num_written: 0 }
    }

    /// The outcome of a record whose segments all have their outputs.
    fn outcome(&mut self, rows: &[Row], unit: Unit, judge: &Judge) -> Outcome {
        let rules = Arc::clone(&self.rules);
        let segments: Vec<PlacedSegment> = std::mem::take(&mut self.segments).into_iter().flatten().collect();
        let row_of = |placed: &PlacedSegment| &rows[placed.row as usize];
        let prompt_tokens = segments.iter().map(|placed| row_of(placed).prompt_len).sum();
        let read: Vec<ReadSegment<'_>> = segments
            .iter()
            .map(|placed| ReadSegment {
                segment: &placed.segment,
                written: row_of(placed).written.as_ref().expect("all are written"),
            })
            .collect();
        let RecordHead { id, source, fields, llm_prompt_tokens, max_new_tokens, .. } = self.head.clone();
        let Joined { best, alternatives, warnings, log_probabilities, terms } =
            match joined(&read, (&rules, unit), max_new_tokens) {
                Ok(joined) => joined,
                Err(message) => {
                    let code = FailureCode::ProcessingFailed;
                    return Outcome::Failed(RecordFailure { source, id: Some(id), code, message });
                }
            };
        let mut row = OutputRow {
            id,
            output: best.output,
            score: best.score,
            prompt_tokens,
            llm_prompt_tokens,
            output_tokens: best.output_tokens,
            finish_reason: best.finish_reason,
            warnings,
            quality: None,
            signals: None,
            tier: None,
            alternatives,
            origin: None,
            fields,
        };
        let text = || source_text(&read);
        let (judgement, review) = judge.judge(&mut row, (text, &source), log_probabilities, &rules);
        let mut found = TermCounts::default();
        found.add_output(terms.num_terms.into(), &terms.missed);
        let review = review.map(Box::new);
        Outcome::Output { source, row, review, judgement: Some(judgement), terms: found }
    }
}

#[cfg(test)]
mod tests;
