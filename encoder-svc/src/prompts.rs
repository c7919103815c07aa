//! Makes the prompts of a shard from its entries: texts are cut into segments, segments are tokenized, and
//! equal segments become one prompt.

use std::collections::HashMap;

use baton_bundle::{Limits, PromptReader, Reading};
use baton_job::{FailureCode, Record, RecordFailure, ShardEntry};
use baton_proto::RecordHead;
use baton_segments::{Segment, Unit, cut, without_copied};
use baton_text::TextRules;

/// A shard ready to be encoded.
#[derive(Debug, Default)]
pub(crate) struct ShardPrompts {
    pub(crate) records: Vec<RecordHead>,
    /// By position in the shard.
    pub(crate) failures: Vec<(u32, RecordFailure)>,
    pub(crate) prompts: Vec<Prompt>,
}

/// A text that is read once.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) reading: Reading, // of one segment
    /// The segments that it is read for, at least one: all that decides their outputs is equal.
    pub(crate) segments: Vec<Segment>,
}

/// How texts become prompts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutting<'a> {
    pub(crate) reader: &'a PromptReader,
    pub(crate) limits: Limits,
    pub(crate) unit: Unit,
    /// Decides which parts of a segment the models see.
    pub(crate) rules: &'a TextRules,
}

/// A text before it is read.
#[derive(Debug, Clone)]
enum Tokenized {
    /// Place among the prompts.
    Prompt(usize),
    /// By so much, in words.
    TooLong(String),
    Refused,
}

impl ShardPrompts {
    /// Cuts and tokenizes the entries of a shard.
    pub(crate) fn new(cutting: Cutting<'_>, entries: Vec<ShardEntry>) -> Self {
        let mut shard = Self::default();
        let mut known = HashMap::new();
        for (index, entry) in (0..).zip(entries) {
            let failure = match entry {
                ShardEntry::Failed(failure) => failure,
                ShardEntry::Prompt(record) => match shard.add(cutting, record, &mut known) {
                    Ok(()) => continue,
                    Err(failure) => failure,
                },
            };
            shard.failures.push((index, failure));
        }
        // Left are segments of records that failed by another segment.
        shard.prompts.retain(|prompt| !prompt.segments.is_empty());
        shard
    }

    fn add(
        &mut self,
        cutting: Cutting<'_>,
        record: Record,
        known: &mut HashMap<String, Tokenized>,
    ) -> Result<(), RecordFailure> {
        let mut tokenized = |text: &str| {
            let prepared = cutting.rules.prepare(text);
            match known.get(prepared.text()) {
                Some(tokenized) => tokenized.clone(),
                None => {
                    let tokenized = cutting.tokenize(prepared.text(), &mut self.prompts);
                    known.insert(prepared.text().to_owned(), tokenized.clone());
                    tokenized
                }
            }
        };
        let is_copied = |text: &str| cutting.rules.prepare(text).text().is_empty();
        let fits = |text: &str| is_copied(text) || !matches!(tokenized(text), Tokenized::TooLong(_));
        let pieces = without_copied(&record.text, cut(&record.text, cutting.unit, fits), is_copied);
        let prompt_of = |(number, text): (u32, &str)| match tokenized(text) {
            Tokenized::Prompt(prompt) => Ok(prompt),
            Tokenized::TooLong(excess) => {
                let what = match cutting.unit {
                    Unit::Record => "the prompt".to_owned(),
                    Unit::Sentence => format!("a single character, segment {},", number + 1),
                };
                Err(record.failure(FailureCode::PromptTooLong, format!("{what} has {excess}")))
            }
            Tokenized::Refused => {
                let message = "a tokenizer refuses the text";
                Err(record.failure(FailureCode::ProcessingFailed, message))
            }
        };
        let texts = (0..).zip(pieces.iter().map(|piece| piece.text));
        let places: Vec<usize> = texts.map(prompt_of).collect::<Result<_, _>>()?;
        for (number, (&piece, place)) in (0..).zip(pieces.iter().zip(places)) {
            self.prompts[place].segments.push(Segment::of_piece(record.index_in_shard, number, piece));
        }
        let num_segments = pieces.len() as u32; // of a text of at most some hundred megabytes
        self.records.push(RecordHead::of(record, num_segments));
        Ok(())
    }

    /// Segments of all records.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.prompts.iter().flat_map(|prompt| &prompt.segments)
    }

    /// Bytes of the prompts, beside those of the entries.
    pub(crate) fn num_bytes(&self) -> usize {
        let of_segment = |segment: &Segment| segment.num_bytes() + size_of::<Segment>();
        let of_prompt = |prompt: &Prompt| size_of::<Prompt>() + reading_num_bytes(&prompt.reading);
        self.segments().map(of_segment).sum::<usize>() + self.prompts.iter().map(of_prompt).sum::<usize>()
    }
}

impl Cutting<'_> {
    fn tokenize(&self, text: &str, prompts: &mut Vec<Prompt>) -> Tokenized {
        let Ok(reading) = self.reader.read(text) else { return Tokenized::Refused };
        if let Some(excess) = reading.excess(self.limits) {
            return Tokenized::TooLong(excess);
        }
        prompts.push(Prompt { reading, segments: Vec::new() });
        Tokenized::Prompt(prompts.len() - 1)
    }
}

/// Bytes of the tokens. A token that is aligned with one of the LLM's takes one more number.
fn reading_num_bytes(reading: &Reading) -> usize {
    let of_segments: usize = reading.segments.iter().map(|segment| segment.tokens.len()).sum();
    (reading.llm_tokens.len() + of_segments) * 4 * size_of::<u32>()
}

#[cfg(test)]
mod tests {
    use baton_bundle::PromptTokenizer;
    use baton_job::RecordSource;

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
    /// Words and signs, that of the template among them.
    const MAX_PROMPT_TOKENS: usize = 8;

    fn prompts(unit: Unit, texts: &[&str]) -> ShardPrompts {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, LOSSY_TOKENIZER).unwrap();
        let tokenizer = PromptTokenizer::open(&path, "Read: {text}").unwrap();
        let record = |(index, text): (u32, &&str)| {
            let source = RecordSource { uri: "a.txt".into(), line: u64::from(index) + 1 };
            let (id, text, fields) = (format!("r{index}"), (*text).to_owned(), serde_json::Map::new());
            ShardEntry::Prompt(Record { index_in_shard: index, id, source, text, fields })
        };
        let entries = (0..).zip(texts).map(record).collect();
        let limits =
            Limits { max_prompt_tokens: MAX_PROMPT_TOKENS, max_new_tokens: 8, max_slm_prompt_tokens: None };
        let reader = &PromptReader::LlmTokens(tokenizer);
        let rules = &TextRules::none();
        ShardPrompts::new(Cutting { reader, limits, unit, rules }, entries)
    }

    fn places(shard: &ShardPrompts) -> Vec<Vec<(u32, u32)>> {
        let place = |segment: &Segment| (segment.record, segment.number);
        shard.prompts.iter().map(|prompt| prompt.segments.iter().map(place).collect()).collect()
    }

    #[test]
    fn equal_texts_are_read_once_and_texts_of_equal_tokens_are_not_equal() {
        let shard = prompts(Unit::Sentence, &["Reads mail. Reads mail.", "reads mail.", "Reads mail."]);
        assert_eq!(places(&shard), [vec![(0, 0), (0, 1), (2, 0)], vec![(1, 0)]]);
        assert_eq!(
            shard.prompts[0].reading, shard.prompts[1].reading,
            "which name it is, only the text says"
        );
        let num_segments: Vec<u32> = shard.records.iter().map(|record| record.num_segments).collect();
        assert_eq!(num_segments, [2, 1, 1]);
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
}
