//! From the entries of a shard to its readings: texts are cut into segments, each is prepared and tokenized
//! once, and texts with equal outputs are read once.
//!
//! A segment's output depends on the models' view of it and, if the LLM reads whole records, on its place in
//! the record. Without context, equal segments of all records therefore share a prompt; with it, only
//! segments of equal records do. A prompt's key (`baton_reuse`) says the same beyond the shard.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use baton_bundle::{Limits, PromptReader, Reading, RecordSegment};
use baton_job::{FailureCode, LanguageChoice, ReaderContext, Record, RecordFailure, ShardEntry};
use baton_proto::RecordHead;
use baton_reuse::{SegmentKey, SegmentKeys};
use baton_segments::{Markup, Part, Piece, Segment, Unit, cut};
use baton_text::TextRules;

/// A shard ready to be encoded.
#[derive(Debug, Default)]
pub(crate) struct ShardPrompts {
    pub(crate) records: Vec<RecordHead>,
    /// By position in the shard.
    pub(crate) failures: Vec<(u32, RecordFailure)>,
    pub(crate) readings: Vec<SharedReading>,
}

/// A text that is read once.
#[derive(Debug)]
pub(crate) struct SharedReading {
    pub(crate) reading: Reading,
    pub(crate) prompts: Vec<SharedPrompt>,
}

/// A prompt that is written once.
#[derive(Debug)]
pub(crate) struct SharedPrompt {
    /// Names its outputs.
    pub(crate) key: SegmentKey,
    /// Its number among the shard's prompts, from 0.
    pub(crate) number: u32,
    /// The segments that share it; none if their records have failed.
    pub(crate) segments: Vec<Segment>,
}

/// How texts become prompts; it depends on the languages of their record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutting<'a> {
    pub(crate) reader: &'a PromptReader,
    pub(crate) limits: Limits,
    pub(crate) unit: Unit,
    /// Of the texts.
    pub(crate) markup: Markup,
    /// `Record` only if the reader reads records.
    pub(crate) context: ReaderContext,
    /// Decides which parts of a segment the models see.
    pub(crate) rules: &'a TextRules,
    /// Names segments by what decides their outputs.
    pub(crate) keys: &'a SegmentKeys,
}

/// The place of a prompt: its reading, and its number there.
type Place = (usize, usize);

/// Finds a reading again by what decides it: a segment as the models see it, or the text of a whole record.
#[derive(Debug, Default)]
struct Known {
    segments: HashMap<SegmentKey, Result<Place, Unreadable>>,
    records: HashMap<String, Vec<Place>>,
}

/// The reason why a segment cannot be read.
#[derive(Debug, Clone)]
enum Unreadable {
    /// The excess, in words.
    TooLong(String),
    Refused,
}

impl ShardPrompts {
    /// Cuts and tokenizes the entries of a shard. `cutting` is asked for the languages that a record names,
    /// and says so if it does not know them.
    pub(crate) fn new<'a>(
        cutting: impl Fn(&LanguageChoice) -> Result<Cutting<'a>, String>,
        entries: Vec<ShardEntry>,
    ) -> Self {
        let mut shard = Self::default();
        let mut known: HashMap<(Option<u32>, LanguageChoice, Vec<String>), Known> = HashMap::new();
        for (index, entry) in (0..).zip(entries) {
            let failure = match entry {
                ShardEntry::Failed(failure) => failure,
                ShardEntry::Prompt(record) => {
                    // Equal texts whose records have other limits, languages or terms may get other outputs.
                    let own = (record.max_new_tokens, record.languages.clone(), record.terms.clone());
                    let known = known.entry(own).or_default();
                    let added = match cutting(&record.languages) {
                        Ok(cutting) => rules_of(cutting.rules, &record)
                            .and_then(|rules| shard.add(Cutting { rules: &rules, ..cutting }, record, known)),
                        Err(problem) => Err(record.failure(FailureCode::UnknownLanguage, problem)),
                    };
                    match added {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    }
                }
            };
            shard.failures.push((index, failure));
        }
        // The rest are readings of records that failed because of another segment.
        shard.readings.retain(|reading| reading.prompts.iter().any(|prompt| !prompt.segments.is_empty()));
        for (number, prompt) in (0..).zip(shard.readings.iter_mut().flat_map(|reading| &mut reading.prompts))
        {
            prompt.number = number;
        }
        shard
    }

    fn add(&mut self, cutting: Cutting<'_>, record: Record, known: &mut Known) -> Result<(), RecordFailure> {
        let (pieces, places) = match cutting.context {
            ReaderContext::Segment => self.read_segments(cutting, &record, known)?,
            ReaderContext::Record => self.read_record(cutting, &record, known)?,
        };
        let llm_prompt_tokens = self.num_llm_tokens(cutting.context, &places);
        let num_segments = pieces.len() as u32; // of a text of at most some hundred megabytes
        for (number, (piece, (reading, prompt))) in (0..).zip(pieces.into_iter().zip(places)) {
            let segment = Segment::of_piece(record.index_in_shard, number, piece);
            self.readings[reading].prompts[prompt].segments.push(segment);
        }
        self.records.push(RecordHead::of(record, num_segments, llm_prompt_tokens));
        Ok(())
    }

    /// Reads each segment of a record by itself.
    fn read_segments<'r>(
        &mut self,
        cutting: Cutting<'_>,
        record: &'r Record,
        known: &mut Known,
    ) -> Result<(Vec<Piece<'r>>, Vec<Place>), RecordFailure> {
        let judge = |part: Range<usize>| {
            let prepared = cutting.rules.prepare(&record.text[part]);
            let view = prepared.view();
            if view.text.is_empty() {
                return Part::Copied;
            }
            let key = cutting.keys.of_view(&view, record.max_new_tokens);
            let place = known.segments.entry(key).or_insert_with(|| self.read_alone(cutting, view.text, key));
            part_of(place.clone())
        };
        let (pieces, places) = cut(&record.text, (cutting.unit, cutting.markup), judge).into_iter().unzip();
        Ok((pieces, cutting.all_readable(record, places)?))
    }

    fn read_alone(&mut self, cutting: Cutting<'_>, text: &str, key: SegmentKey) -> Result<Place, Unreadable> {
        let reading = cutting.reader.read(text).map_err(|_| Unreadable::Refused)?;
        match reading.excess(cutting.limits) {
            Some(excess) => Err(Unreadable::TooLong(excess)),
            None => Ok(self.push(reading, vec![key])[0]),
        }
    }

    /// Reads the segments of a record together.
    fn read_record<'r>(
        &mut self,
        cutting: Cutting<'_>,
        record: &'r Record,
        known: &mut Known,
    ) -> Result<(Vec<Piece<'r>>, Vec<Place>), RecordFailure> {
        let text = &record.text;
        let judge = |part: Range<usize>| {
            let prepared = cutting.rules.prepare(&text[part.clone()]);
            let view = prepared.view();
            if view.text.is_empty() {
                return Part::Copied;
            }
            let key = cutting.keys.of_view(&view, record.max_new_tokens);
            let origin = |range| prepared.source_range(range);
            let segment = cutting.reader.record_segment(part, view.text, origin);
            part_of(cutting.segment_of_record(text, segment).map(|segment| (segment, key)))
        };
        let (pieces, segments) = cut(text, (cutting.unit, cutting.markup), judge).into_iter().unzip();
        let segments = cutting.all_readable(record, segments)?;
        if let Some(places) = known.records.get(text) {
            return Ok((pieces, places.clone()));
        }
        let (segments, keys): (Vec<RecordSegment>, Vec<SegmentKey>) = segments.into_iter().unzip();
        let ranges: Vec<Range<usize>> = segments.iter().map(|segment| segment.range.clone()).collect();
        let whole = SegmentKeys::of_record(text, &ranges);
        let mut keys = keys.into_iter().enumerate().map(|(number, key)| key.within(whole, number));
        let readings = cutting.reader.read_record(text, segments, cutting.limits.max_prompt_tokens);
        let readings = readings.map_err(|_| cutting.failure(record, 0, Unreadable::Refused))?;
        let push = |reading: Reading| {
            let keys = keys.by_ref().take(reading.prompt_lens().len()).collect();
            self.push(reading, keys)
        };
        let places: Vec<Place> = readings.into_iter().flat_map(push).collect();
        known.records.insert(text.clone(), places.clone());
        Ok((pieces, places))
    }

    /// Takes in a reading whose prompts have these keys; gives their places.
    fn push(&mut self, reading: Reading, keys: Vec<SegmentKey>) -> Vec<Place> {
        let place = self.readings.len();
        let places = (0..keys.len()).map(|prompt| (place, prompt)).collect();
        let prompt = |key| SharedPrompt { key, number: 0, segments: Vec::new() };
        self.readings.push(SharedReading { reading, prompts: keys.into_iter().map(prompt).collect() });
        places
    }

    /// Tokens that the LLM reads for a record with these prompts, if the small model reads its own tokens.
    /// Shared readings count in full.
    fn num_llm_tokens(&self, context: ReaderContext, places: &[Place]) -> u32 {
        let mut readings: Vec<usize> = places.iter().map(|&(reading, _)| reading).collect();
        if context == ReaderContext::Record {
            readings.dedup(); // read once for all its segments
        }
        let readings = readings.into_iter().map(|reading| &self.readings[reading].reading);
        readings
            .filter(|reading| !reading.segments.is_empty())
            .map(|reading| reading.llm_tokens.len() as u32)
            .sum()
    }

    /// Segments of all records.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.prompts().flat_map(|prompt| &prompt.segments)
    }

    /// Prompts of all readings, in the order of their numbers.
    fn prompts(&self) -> impl Iterator<Item = &SharedPrompt> {
        self.readings.iter().flat_map(|reading| &reading.prompts)
    }

    /// The keys of all prompts, in the order of their numbers.
    pub(crate) fn keys(&self) -> Vec<SegmentKey> {
        self.prompts().map(|prompt| prompt.key).collect()
    }

    /// Prompts of all readings.
    pub(crate) fn num_prompts(&self) -> usize {
        self.prompts().count()
    }

    /// Bytes of the prompts, beside those of the entries.
    pub(crate) fn num_bytes(&self) -> usize {
        let of_segment = |segment: &Segment| segment.num_bytes() + size_of::<Segment>();
        let of_reading = |shared: &SharedReading| {
            size_of::<SharedReading>()
                + shared.prompts.len() * size_of::<SharedPrompt>()
                + reading_num_bytes(&shared.reading)
        };
        self.segments().map(of_segment).sum::<usize>() + self.readings.iter().map(of_reading).sum::<usize>()
    }
}

impl Cutting<'_> {
    /// A segment of a record, if it can be read.
    fn segment_of_record<E>(
        &self,
        text: &str,
        segment: Result<RecordSegment, E>,
    ) -> Result<RecordSegment, Unreadable> {
        let segment = segment.map_err(|_| Unreadable::Refused)?;
        match self.reader.excess_of(text, &segment, self.limits) {
            Ok(None) => Ok(segment),
            Ok(Some(excess)) => Err(Unreadable::TooLong(excess)),
            Err(_) => Err(Unreadable::Refused),
        }
    }

    /// All segments of a record, or the record's failure: that of its first unreadable segment.
    fn all_readable<T>(
        &self,
        record: &Record,
        segments: Vec<Result<T, Unreadable>>,
    ) -> Result<Vec<T>, RecordFailure> {
        let numbered = segments.into_iter().enumerate();
        numbered.map(|(number, made)| made.map_err(|why| self.failure(record, number, why))).collect()
    }

    fn failure(&self, record: &Record, number: usize, why: Unreadable) -> RecordFailure {
        match why {
            Unreadable::TooLong(excess) => {
                let message = match self.unit {
                    Unit::Record => {
                        format!("the prompt has {excess}; `--cut-long-texts true` reads it in parts")
                    }
                    Unit::Part | Unit::Sentence => {
                        format!("a single character, segment {}, has {excess}", number + 1)
                    }
                };
                record.failure(FailureCode::PromptTooLong, message)
            }
            Unreadable::Refused => {
                record.failure(FailureCode::ProcessingFailed, "a tokenizer refuses the text".to_owned())
            }
        }
    }
}

/// The rules for a record's text: the job's, with the record's own terms.
fn rules_of<'r>(rules: &'r TextRules, record: &Record) -> Result<Cow<'r, TextRules>, RecordFailure> {
    if record.terms.is_empty() {
        return Ok(Cow::Borrowed(rules));
    }
    let rules = rules.with_terms(&record.terms);
    let failure = |_| record.failure(FailureCode::WrongType, "a term of the record is invalid");
    rules.map(Cow::Owned).map_err(failure)
}

/// The answer to `cut` about a part of a text.
fn part_of<T>(made: Result<T, Unreadable>) -> Part<Result<T, Unreadable>> {
    match made {
        Err(Unreadable::TooLong(_)) => Part::TooLong(made),
        _ => Part::Read(made),
    }
}

/// Bytes of the tokens. A token that is aligned with one of the LLM's takes one more number.
fn reading_num_bytes(reading: &Reading) -> usize {
    let of_segments: usize = reading.segments.iter().map(|segment| segment.tokens.len()).sum();
    (reading.llm_tokens.len() + of_segments) * 4 * size_of::<u32>()
}

#[cfg(test)]
mod tests;
