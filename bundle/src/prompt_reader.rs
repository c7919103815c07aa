//! From texts to an encoder's readings: the tokenizers of a mode, with one template each.
//!
//! A small model reads one segment at a time. An LLM beside it reads the segment, or the segment's whole
//! record ([`ReaderContext`](baton_job::ReaderContext)): then a record becomes one [`Reading`], or one for
//! each window (`windows.rs`), and each of its segments takes the states of its own characters.

use std::ops::Range;

use crate::windows::{Reach, places_of, windows};
use crate::{
    BundleError, Limits, PromptAttention, PromptTokenizer, Reading, SegmentPrompt, SpannedTokens,
    TokenAlignment,
};

/// Makes prompts of texts.
#[derive(Debug, Clone)]
pub enum PromptReader {
    /// A prompt is the LLM's tokens, for every reader.
    LlmTokens(PromptTokenizer),
    /// A prompt is the small model's own tokens.
    OwnTokens {
        /// Its tokenizer.
        slm: PromptTokenizer,
        /// The LLM's part, if the LLM also reads the text.
        llm: Option<LlmReader>,
    },
}

/// An LLM that reads for a small model with its own tokens.
#[derive(Debug, Clone)]
pub struct LlmReader {
    /// Its tokenizer, with its template.
    pub tokenizer: PromptTokenizer,
    /// The direction in which its tokens look.
    pub attention: PromptAttention,
}

/// A segment of a record that an LLM reads as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSegment {
    /// Its bytes in the record's text.
    pub range: Range<usize>,
    /// The small model's prompt, template included; spans are of the record's text.
    pub tokens: SpannedTokens,
}

impl PromptReader {
    /// Reads `text` as one segment, without context.
    ///
    /// # Errors
    /// A tokenizer refuses the text, which byte-level tokenizers never do.
    pub fn read(&self, text: &str) -> Result<Reading, BundleError> {
        let (slm, llm) = match self {
            PromptReader::LlmTokens(tokenizer) => {
                return Ok(Reading::of_llm_tokens(tokenizer.encode(text)?));
            }
            PromptReader::OwnTokens { slm, llm } => (slm.encode_with_spans(text)?, llm),
        };
        let Some(LlmReader { tokenizer, .. }) = llm else {
            let segment = SegmentPrompt { tokens: slm.ids, alignment: TokenAlignment::default() };
            return Ok(Reading { llm_tokens: Vec::new(), segments: vec![segment] });
        };
        let llm = tokenizer.encode_with_spans(text)?;
        let alignment = TokenAlignment::by_characters(&llm.spans, &slm.spans);
        let segment = SegmentPrompt { tokens: slm.ids, alignment };
        Ok(Reading { llm_tokens: llm.ids, segments: vec![segment] })
    }

    /// This reader with another template of the small model's. Both share their tokenizers.
    ///
    /// # Errors
    /// The template cannot be used.
    ///
    /// # Panics
    /// The small model reads the LLM's tokens.
    pub fn with_slm_template(&self, template: &str) -> Result<Self, BundleError> {
        let PromptReader::OwnTokens { slm, llm } = self else { panic!("{NO_TEMPLATES}") };
        Ok(PromptReader::OwnTokens { slm: slm.with_template(template)?, llm: llm.clone() })
    }

    /// Whether an LLM can read whole records for the segments that a small model reads.
    #[must_use]
    pub fn reads_records(&self) -> bool {
        matches!(self, PromptReader::OwnTokens { llm: Some(_), .. })
    }

    /// A segment of a record: `range` of its text. The small model reads `shown` for it; `origin` maps the
    /// bytes of `shown` to those of the segment.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Panics
    /// The small model reads the LLM's tokens.
    pub fn record_segment(
        &self,
        range: Range<usize>,
        shown: &str,
        origin: impl Fn(Range<usize>) -> Range<usize>,
    ) -> Result<RecordSegment, BundleError> {
        let PromptReader::OwnTokens { slm, .. } = self else { panic!("{NO_RECORDS}") };
        let tokens = slm.encode_with_spans(shown)?;
        let spans = tokens.spans.into_iter().map(|span| if span.is_empty() { span } else { origin(span) });
        let tokens = SpannedTokens { ids: tokens.ids, spans: spans.collect() }.shifted(range.start);
        Ok(RecordSegment { range, tokens })
    }

    /// Says that a segment of `text` exceeds `limits`, even if the LLM reads it alone, in words that continue
    /// "the prompt has".
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Panics
    /// As for [`read_record`](Self::read_record).
    pub fn excess_of(
        &self,
        text: &str,
        segment: &RecordSegment,
        limits: Limits,
    ) -> Result<Option<String>, BundleError> {
        let llm_tokens = self.llm_reader().tokenizer.encode(&text[segment.range.clone()])?;
        let tokens = segment.tokens.ids.clone();
        let alone = SegmentPrompt { tokens, alignment: TokenAlignment::default() };
        Ok(Reading { llm_tokens, segments: vec![alone] }.excess(limits))
    }

    /// All readings of a record: of `text` by the LLM, at most `max_prompt_tokens` at once, and each of its
    /// `segments` by the small model. The readings follow the text, and so do the segments in each; every
    /// segment is in one. A segment may lie inside the one before it.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Panics
    /// [`reads_records`](Self::reads_records) is false, or the beginnings of segments fall.
    pub fn read_record(
        &self,
        text: &str,
        segments: Vec<RecordSegment>,
        max_prompt_tokens: usize,
    ) -> Result<Vec<Reading>, BundleError> {
        let LlmReader { tokenizer, attention } = self.llm_reader();
        // A segment in a tag lies inside the one that has the tag: its window reaches to the end of both.
        let to_the_furthest = |end: &mut usize, segment: &RecordSegment| {
            *end = segment.range.end.max(*end);
            Some(segment.range.start..*end)
        };
        let ranges: Vec<Range<usize>> = segments.iter().scan(0, to_the_furthest).collect();
        assert!(ranges.is_sorted_by_key(|range| range.start), "segments rise");
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(Vec::new()) };
        let (text_start, text_end) = (first.start, last.end);
        let encode = |range: Range<usize>| -> Result<SpannedTokens, BundleError> {
            Ok(tokenizer.encode_with_spans(&text[range.clone()])?.shifted(range.start))
        };
        let whole = encode(text_start..text_end)?;
        let template_tokens = whole.spans.iter().filter(|span| span.is_empty()).count();
        let reach = Reach { max_tokens: max_prompt_tokens, template_tokens, attention: *attention };
        let read = |window: Range<usize>| {
            let range = ranges[window.start].start..ranges[window.end - 1].end;
            let tokens = if range == (text_start..text_end) { whole.clone() } else { encode(range)? };
            let len = tokens.ids.len();
            Ok::<_, BundleError>((tokens, len))
        };
        let windows = windows(&places_of(&ranges, &whole.spans), reach, read)?;
        let mut segments = segments.into_iter();
        let readings = windows.into_iter().map(|window| {
            let prompts = segments.by_ref().take(window.taking.len()).map(|segment| SegmentPrompt {
                alignment: TokenAlignment::by_characters(&window.read.spans, &segment.tokens.spans),
                tokens: segment.tokens.ids,
            });
            Reading { segments: prompts.collect(), llm_tokens: window.read.ids }
        });
        Ok(readings.collect())
    }

    fn llm_reader(&self) -> &LlmReader {
        match self {
            PromptReader::OwnTokens { llm: Some(llm), .. } => llm,
            _ => panic!("{NO_RECORDS}"),
        }
    }
}

const NO_TEMPLATES: &str = "only a small model with its own tokens has templates of its own";
const NO_RECORDS: &str = "only a small model with its own tokens allows the LLM to read whole records";
