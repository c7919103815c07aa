//! Texts that are read once, that are cut, and that fail.

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
    let keys = &SegmentKeys::new("int8 on a CPU");
    let markup = Markup::None;
    ShardPrompts::new(|_| Ok(Cutting { reader, limits, unit, markup, context, rules, keys }), entries)
}

fn places(shard: &ShardPrompts) -> Vec<Vec<(u32, u32)>> {
    let place = |segment: &Segment| (segment.record, segment.number);
    shard.prompts().map(|prompt| prompt.segments.iter().map(place).collect()).collect()
}

#[test]
fn equal_texts_are_read_once_and_texts_of_equal_tokens_are_not_equal() {
    let shard = prompts(Unit::Sentence, &["Reads mail. Reads mail.", "reads mail.", "Reads mail."]);
    assert_eq!(places(&shard), [vec![(0, 0), (0, 1), (2, 0)], vec![(1, 0)]]);
    assert_eq!(shard.readings[0].reading, shard.readings[1].reading, "which name it is, only the text says");
    let num_segments: Vec<u32> = shard.records.iter().map(|record| record.num_segments).collect();
    assert_eq!(num_segments, [2, 1, 1]);
}

#[test]
fn equal_texts_with_other_limits_are_prompts_of_their_own() {
    let texts = [("mail.", None), ("mail.", Some(3)), ("mail.", Some(5)), ("mail.", Some(3))];
    let reader = PromptReader::LlmTokens(tokenizer("Read: {text}"));
    let shard = limited_prompts_by(&reader, Unit::Record, ReaderContext::Segment, &TextRules::none(), &texts);
    assert_eq!(places(&shard), [vec![(0, 0)], vec![(1, 0), (3, 0)], vec![(2, 0)]]);
    let limits: Vec<Option<u32>> = shard.records.iter().map(|record| record.max_new_tokens).collect();
    assert_eq!(limits, texts.map(|(_, limit)| limit));
}

#[test]
fn a_text_with_a_term_is_not_one_that_had_its_words_already() {
    let options = TextOptions { terms: vec!["mail=reads".parse().unwrap()], ..TextOptions::default() };
    let rules = TextRules::new(&options).unwrap();
    let reader = PromptReader::LlmTokens(tokenizer("Read: {text}"));
    let texts = ["Read mail.", "Read reads.", "Read mail."];
    let shard = prompts_by(&reader, Unit::Record, ReaderContext::Segment, &rules, &texts);
    assert_eq!(shard.readings[0].reading, shard.readings[1].reading);
    assert_eq!(places(&shard), [vec![(0, 0), (2, 0)], vec![(1, 0)]]);
}

#[test]
fn equal_prompts_of_any_shard_have_equal_keys_and_numbers_follow_them() {
    let keys = |texts: &[&str], context| {
        prompts_by(&own_tokens(), Unit::Sentence, context, &TextRules::none(), texts).keys()
    };
    let (one, other) = (["Mail. Reads mail.", "Read x."], ["Read x.", "x.", "Mail. Reads mail."]);
    for context in [ReaderContext::Segment, ReaderContext::Record] {
        let (one, other) = (keys(&one, context), keys(&other, context));
        assert_eq!((&one[..2], one[2]), (&other[2..], other[0]));
        assert!(!one.contains(&other[1]));
    }
    let with_context = keys(&["Mail. Reads mail."], ReaderContext::Record);
    assert!(!with_context.iter().any(|key| keys(&["Mail. Reads x."], ReaderContext::Record).contains(key)));
    let shard = prompts(Unit::Sentence, &one);
    assert_eq!(shard.prompts().map(|prompt| prompt.number).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn texts_in_different_languages_are_prompts_of_their_own_and_unknown_ones_fail() {
    let [english, other] =
        ["Read: {text}", "x: {text}"].map(|template| PromptReader::LlmTokens(tokenizer(template)));
    let (rules, keys) = (TextRules::none(), SegmentKeys::new("int8 on a CPU"));
    let limits =
        Limits { max_prompt_tokens: MAX_PROMPT_TOKENS, max_new_tokens: 8, max_slm_prompt_tokens: None };
    let cutting = |languages: &LanguageChoice| {
        let reader = match languages.source.as_deref() {
            None => &english,
            Some("x") => &other,
            Some(_) => return Err("field `lang` is unknown".to_owned()),
        };
        let (unit, context) = (Unit::Record, ReaderContext::Segment);
        let markup = Markup::None;
        Ok(Cutting { reader, limits, unit, markup, context, rules: &rules, keys: &keys })
    };
    let entry = |(index, source): (u32, Option<&str>)| {
        let place = RecordSource { uri: "a.txt".into(), line: u64::from(index) + 1 };
        let languages = LanguageChoice { source: source.map(str::to_owned), target: None };
        ShardEntry::Prompt(Record { languages, ..Record::new(index, "r", place, "mail.") })
    };
    let sources = [None, Some("x"), Some("?"), None, Some("x")];
    let shard = ShardPrompts::new(cutting, (0..).zip(sources).map(entry).collect());
    assert_eq!(places(&shard), [vec![(0, 0), (3, 0)], vec![(1, 0), (4, 0)]]);
    assert_eq!(shard.readings[0].reading.llm_tokens, [0, 5, 2, 3], "read : mail .");
    assert_eq!(shard.readings[1].reading.llm_tokens, [4, 5, 2, 3], "x : mail .");
    let [(2, failure)] = &shard.failures[..] else { panic!("{:?}", shard.failures) };
    assert_eq!(failure.code, FailureCode::UnknownLanguage);
    assert_eq!(shard.records[1].languages.source.as_deref(), Some("x"), "the decoder needs it too");
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
    let shard = prompts_by(&own_tokens(), Unit::Sentence, ReaderContext::Record, &TextRules::none(), &[text]);
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
    let shard = prompts_by(&own_tokens(), Unit::Sentence, ReaderContext::Record, &TextRules::none(), &[text]);
    let texts: Vec<&str> = shard.segments().map(|segment| segment.text.as_str()).collect();
    assert_eq!(texts, ["Reads mail mail mail,", "reads mail mail mail."]);
    let whole = prompts_by(&own_tokens(), Unit::Record, ReaderContext::Record, &TextRules::none(), &[text]);
    let [(0, failure)] = &whole.failures[..] else { panic!("{:?}", whole.failures) };
    assert_eq!(failure.code, FailureCode::PromptTooLong);
    assert!(whole.readings.is_empty());
}
