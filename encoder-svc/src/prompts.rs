//! From the entries of a shard to its readings: texts are cut into segments, each is prepared and tokenized
//! once, and texts with equal outputs are read once.
//!
//! A segment's output depends on the models' view of it and, if the LLM reads whole records, on its place in
//! the record. Without context, equal segments of all records therefore share a prompt; with it, only
//! segments of equal records do.

use std::collections::HashMap;
use std::ops::Range;

use baton_bundle::{Limits, PromptReader, Reading, RecordSegment};
use baton_job::{FailureCode, ReaderContext, Record, RecordFailure, ShardEntry};
use baton_proto::RecordHead;
use baton_segments::{Part, Piece, Segment, Unit, cut};
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
    /// For each of its prompts, the segments that share it, at least one: they have equal outputs.
    pub(crate) prompts: Vec<Vec<Segment>>,
}

/// How texts become prompts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutting<'a> {
    pub(crate) reader: &'a PromptReader,
    pub(crate) limits: Limits,
    pub(crate) unit: Unit,
    /// `Record` only if the reader reads records.
    pub(crate) context: ReaderContext,
    /// Decides which parts of a segment the models see.
    pub(crate) rules: &'a TextRules,
}

/// The place of a prompt: its reading, and its number there.
type Place = (usize, usize);

/// Finds a reading again by the text that decides it: a segment as the models see it, or a whole record.
#[derive(Debug, Default)]
struct Known {
    segments: HashMap<String, Result<Place, Unreadable>>,
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
    /// Cuts and tokenizes the entries of a shard.
    pub(crate) fn new(cutting: Cutting<'_>, entries: Vec<ShardEntry>) -> Self {
        let mut shard = Self::default();
        let mut known: HashMap<Option<u32>, Known> = HashMap::new();
        for (index, entry) in (0..).zip(entries) {
            let failure = match entry {
                ShardEntry::Failed(failure) => failure,
                ShardEntry::Prompt(record) => {
                    // Equal texts whose records have different limits may get different outputs.
                    let known = known.entry(record.max_new_tokens).or_default();
                    match shard.add(cutting, record, known) {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    }
                }
            };
            shard.failures.push((index, failure));
        }
        // The rest are readings of records that failed because of another segment.
        shard.readings.retain(|reading| reading.prompts.iter().any(|segments| !segments.is_empty()));
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
            self.readings[reading].prompts[prompt].push(segment);
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
            let text = prepared.text();
            if text.is_empty() {
                return Part::Copied;
            }
            let place = known.segments.get(text).cloned().unwrap_or_else(|| {
                let place = self.read_alone(cutting, text);
                known.segments.insert(text.to_owned(), place.clone());
                place
            });
            part_of(place)
        };
        let (pieces, places) = cut(&record.text, cutting.unit, judge).into_iter().unzip();
        Ok((pieces, cutting.all_readable(record, places)?))
    }

    fn read_alone(&mut self, cutting: Cutting<'_>, text: &str) -> Result<Place, Unreadable> {
        let reading = cutting.reader.read(text).map_err(|_| Unreadable::Refused)?;
        match reading.excess(cutting.limits) {
            Some(excess) => Err(Unreadable::TooLong(excess)),
            None => Ok(self.push(reading)[0]),
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
            if prepared.text().is_empty() {
                return Part::Copied;
            }
            let origin = |range| prepared.source_range(range);
            part_of(
                cutting.segment_of_record(text, cutting.reader.record_segment(part, prepared.text(), origin)),
            )
        };
        let (pieces, segments) = cut(text, cutting.unit, judge).into_iter().unzip();
        let segments = cutting.all_readable(record, segments)?;
        if let Some(places) = known.records.get(text) {
            return Ok((pieces, places.clone()));
        }
        let readings = cutting.reader.read_record(text, segments, cutting.limits.max_prompt_tokens);
        let readings = readings.map_err(|_| cutting.failure(record, 0, Unreadable::Refused))?;
        let places: Vec<Place> = readings.into_iter().flat_map(|reading| self.push(reading)).collect();
        known.records.insert(text.clone(), places.clone());
        Ok((pieces, places))
    }

    /// Takes in a reading; gives the places of its prompts.
    fn push(&mut self, reading: Reading) -> Vec<Place> {
        let num_prompts = reading.prompt_lens().len();
        self.readings.push(SharedReading { reading, prompts: vec![Vec::new(); num_prompts] });
        (0..num_prompts).map(|prompt| (self.readings.len() - 1, prompt)).collect()
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
        self.readings.iter().flat_map(|reading| &reading.prompts).flatten()
    }

    /// Prompts of all readings.
    pub(crate) fn num_prompts(&self) -> usize {
        self.readings.iter().map(|reading| reading.prompts.len()).sum()
    }

    /// Bytes of the prompts, beside those of the entries.
    pub(crate) fn num_bytes(&self) -> usize {
        let of_segment = |segment: &Segment| segment.num_bytes() + size_of::<Segment>();
        let of_reading = |shared: &SharedReading| {
            size_of::<SharedReading>()
                + shared.prompts.len() * size_of::<Vec<Segment>>()
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
                let what = match self.unit {
                    Unit::Record => "the prompt".to_owned(),
                    Unit::Sentence => format!("a single character, segment {},", number + 1),
                };
                record.failure(FailureCode::PromptTooLong, format!("{what} has {excess}"))
            }
            Unreadable::Refused => {
                record.failure(FailureCode::ProcessingFailed, "a tokenizer refuses the text".to_owned())
            }
        }
    }
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
mod tests {
    use baton_bundle::{LlmReader, PromptAttention, PromptTokenizer};
    use baton_job::RecordSource;
    use baton_text::TextOptions;

    use super::*;

    /// To its tokens, capitals and small letters are the same.
    const LOSSY_TOKENIZER: &str = r#"{
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "Lowercase" }, "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": null, "decoder": null,
        "model": {
            "type": "WordLevel",
            "vocab": { "read": 0, "reads": 1, "mail": 2, ".": 3, "x": 4, ":": 5, "?": 6 },
            "unk_token": "x"
        }
    }"#;
    /// Words and signs, including those of the template.
    const MAX_PROMPT_TOKENS: usize = 8;

    fn tokenizer(template: &str) -> PromptTokenizer {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, LOSSY_TOKENIZER).unwrap();
        PromptTokenizer::open(&path, template).unwrap()
    }

    fn prompts(unit: Unit, texts: &[&str]) -> ShardPrompts {
        let reader = PromptReader::LlmTokens(tokenizer("Read: {text}"));
        prompts_by(&reader, unit, ReaderContext::Segment, &TextRules::none(), texts)
    }

    /// An LLM whose template has two tokens, and a small model with one token after its texts.
    fn own_tokens() -> PromptReader {
        let llm = LlmReader { tokenizer: tokenizer("Read: {text}"), attention: PromptAttention::Causal };
        PromptReader::OwnTokens { slm: tokenizer("{text} ?"), llm: Some(llm) }
    }

    fn prompts_by(
        reader: &PromptReader,
        unit: Unit,
        context: ReaderContext,
        rules: &TextRules,
        texts: &[&str],
    ) -> ShardPrompts {
        let texts: Vec<(&str, Option<u32>)> = texts.iter().map(|&text| (text, None)).collect();
        limited_prompts_by(reader, unit, context, rules, &texts)
    }

    /// For texts whose records have these limits.
    fn limited_prompts_by(
        reader: &PromptReader,
        unit: Unit,
        context: ReaderContext,
        rules: &TextRules,
        texts: &[(&str, Option<u32>)],
    ) -> ShardPrompts {
        let record = |(index, &(text, max_new_tokens)): (u32, &(&str, Option<u32>))| {
            let source = RecordSource { uri: "a.txt".into(), line: u64::from(index) + 1 };
            let record = Record::new(index, format!("r{index}"), source, text);
            ShardEntry::Prompt(Record { max_new_tokens, ..record })
        };
        let entries = (0..).zip(texts).map(record).collect();
        let limits =
            Limits { max_prompt_tokens: MAX_PROMPT_TOKENS, max_new_tokens: 8, max_slm_prompt_tokens: None };
        ShardPrompts::new(Cutting { reader, limits, unit, context, rules }, entries)
    }

    fn places(shard: &ShardPrompts) -> Vec<Vec<(u32, u32)>> {
        let place = |segment: &Segment| (segment.record, segment.number);
        let prompts = shard.readings.iter().flat_map(|reading| &reading.prompts);
        prompts.map(|segments| segments.iter().map(place).collect()).collect()
    }

    #[test]
    fn equal_texts_are_read_once_and_texts_of_equal_tokens_are_not_equal() {
        let shard = prompts(Unit::Sentence, &["Reads mail. Reads mail.", "reads mail.", "Reads mail."]);
        assert_eq!(places(&shard), [vec![(0, 0), (0, 1), (2, 0)], vec![(1, 0)]]);
        assert_eq!(
            shard.readings[0].reading, shard.readings[1].reading,
            "which name it is, only the text says"
        );
        let num_segments: Vec<u32> = shard.records.iter().map(|record| record.num_segments).collect();
        assert_eq!(num_segments, [2, 1, 1]);
    }

    #[test]
    fn equal_texts_with_other_limits_are_prompts_of_their_own() {
        let texts = [("mail.", None), ("mail.", Some(3)), ("mail.", Some(5)), ("mail.", Some(3))];
        let reader = PromptReader::LlmTokens(tokenizer("Read: {text}"));
        let shard =
            limited_prompts_by(&reader, Unit::Record, ReaderContext::Segment, &TextRules::none(), &texts);
        assert_eq!(places(&shard), [vec![(0, 0)], vec![(1, 0), (3, 0)], vec![(2, 0)]]);
        let limits: Vec<Option<u32>> = shard.records.iter().map(|record| record.max_new_tokens).collect();
        assert_eq!(limits, texts.map(|(_, limit)| limit));
    }

    #[test]
    fn a_sentence_that_is_too_long_is_cut_and_a_whole_text_fails() {
        let text = "Reads mail mail mail, reads mail mail mail.";
        let shard = prompts(Unit::Sentence, &[text]);
        let texts: Vec<&str> = shard.segments().map(|segment| segment.text.as_str()).collect();
        assert_eq!(texts, ["Reads mail mail mail,", "reads mail mail mail."]);
        assert!(shard.failures.is_empty());

        let shard = prompts(Unit::Record, &["reads mail.", text]);
        assert_eq!(places(&shard), [[(0, 0)]]);
        let [(1, failure)] = &shard.failures[..] else { panic!("{:?}", shard.failures) };
        assert_eq!(failure.code, FailureCode::PromptTooLong);
        assert!(
            failure.message.starts_with("the prompt has 12 tokens; the bundle reads at most 8"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_record_without_a_letter_has_nothing_to_read_and_is_copied() {
        let shard = prompts(Unit::Sentence, &["-- 3.14", "mail."]);
        assert_eq!(places(&shard), [[(1, 0)]]);
        let copied: Vec<&str> = shard.records.iter().map(|record| record.copied.as_str()).collect();
        assert_eq!(copied, ["-- 3.14", ""]);
    }
    /// Tokens that the LLM reads at once, and the prompts made from them.
    fn sizes(shard: &ShardPrompts) -> Vec<(usize, usize)> {
        shard.readings.iter().map(|shared| (shared.reading.llm_tokens.len(), shared.prompts.len())).collect()
    }

    fn llm_prompt_tokens(shard: &ShardPrompts) -> Vec<u32> {
        shard.records.iter().map(|record| record.llm_prompt_tokens).collect()
    }

    #[test]
    fn with_its_record_as_context_a_sentence_equals_only_that_of_an_equal_record() {
        let texts = ["Mail. Reads mail.", "Reads mail.", "Mail. Reads mail."];
        let (reader, rules) = (own_tokens(), TextRules::none());
        let by_record = prompts_by(&reader, Unit::Sentence, ReaderContext::Record, &rules, &texts);
        assert_eq!(places(&by_record), [vec![(0, 0), (2, 0)], vec![(0, 1), (2, 1)], vec![(1, 0)]]);
        assert_eq!(sizes(&by_record), [(7, 2), (5, 1)], "a template and five words, once");
        assert_eq!(llm_prompt_tokens(&by_record), [7, 5, 7], "as if each were the only one");

        let by_segment = prompts_by(&reader, Unit::Sentence, ReaderContext::Segment, &rules, &texts);
        assert_eq!(places(&by_segment), [vec![(0, 0), (2, 0)], vec![(0, 1), (1, 0), (2, 1)]]);
        assert_eq!(sizes(&by_segment), [(4, 1), (5, 1)]);
        assert_eq!(llm_prompt_tokens(&by_segment), [9, 5, 9]);
    }

    #[test]
    fn a_record_that_is_longer_than_the_llm_reads_is_read_in_windows() {
        let text = "Mail x. Reads x. Mail. Read x x.";
        let shard =
            prompts_by(&own_tokens(), Unit::Sentence, ReaderContext::Record, &TextRules::none(), &[text]);
        assert_eq!(places(&shard), [[(0, 0)], [(0, 1)], [(0, 2)], [(0, 3)]]);
        // Two and the template; the second and third; the third and fourth.
        assert_eq!(sizes(&shard), [(8, 2), (7, 1), (8, 1)]);
        assert_eq!(llm_prompt_tokens(&shard), [23]);
        let alignment = &shard.readings[1].reading.segments[0].alignment;
        assert_eq!(alignment.of_token(0), [5], "mail, behind the template and three tokens of context");
    }

    #[test]
    fn a_prepared_segment_takes_the_states_of_the_characters_that_it_was_made_of() {
        let rules = TextRules::new(&TextOptions::default()).unwrap();
        let text = "x x. READ    MAIL.";
        let shard = prompts_by(&own_tokens(), Unit::Sentence, ReaderContext::Record, &rules, &[text]);
        let [only] = &shard.readings[..] else { panic!("one window: {:?}", shard.failures) };
        let second = &only.reading.segments[1];
        assert_eq!(second.tokens, [0, 2, 3, 6], "read mail . ?");
        let taken: Vec<&[u32]> = (0..4).map(|token| second.alignment.of_token(token)).collect();
        assert_eq!(taken, [&[5][..], &[6], &[7], &[]]);
    }

    #[test]
    fn a_sentence_too_long_for_either_model_is_cut_with_its_record_as_context_too() {
        let text = "Reads mail mail mail, reads mail mail mail.";
        let shard =
            prompts_by(&own_tokens(), Unit::Sentence, ReaderContext::Record, &TextRules::none(), &[text]);
        let texts: Vec<&str> = shard.segments().map(|segment| segment.text.as_str()).collect();
        assert_eq!(texts, ["Reads mail mail mail,", "reads mail mail mail."]);
        let whole =
            prompts_by(&own_tokens(), Unit::Record, ReaderContext::Record, &TextRules::none(), &[text]);
        let [(0, failure)] = &whole.failures[..] else { panic!("{:?}", whole.failures) };
        assert_eq!(failure.code, FailureCode::PromptTooLong);
        assert!(whole.readings.is_empty());
    }
}
