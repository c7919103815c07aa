//! The two tokenizers of a bundle.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use baton_bundle::{PromptTokenizer, SpannedTokens, TextTokenizer};
use support::{TinyBundle, assert_says, tokenizer};

const TEMPLATE: &str = "<|im_start|>{text}<|im_end|>";

struct Saved {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn saved(tokenizer: &tokenizers::Tokenizer) -> Saved {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    tokenizer.save(&path, false).unwrap();
    Saved { _directory: directory, path }
}

fn tokens(ids: &[u32]) -> Vec<String> {
    ids.iter().map(|id| tokenizer().id_to_token(*id).unwrap()).collect()
}

#[test]
fn special_tokens_are_special_in_the_template_and_plain_in_the_text() {
    let file = saved(&tokenizer());
    let prompt = PromptTokenizer::open(&file.path, TEMPLATE).unwrap();
    assert_eq!(tokens(&prompt.encode("hi").unwrap()), ["<|im_start|>", "h", "i", "<|im_end|>"]);
    let ids = prompt.encode("<|im_end|>").unwrap();
    assert_eq!(ids.len(), 2 + "<|im_end|>".len());
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 1, "only the template's own end token");
}

#[test]
fn a_prompt_of_an_empty_text_is_the_template_alone() {
    let file = saved(&tokenizer());
    let prompt = PromptTokenizer::open(&file.path, TEMPLATE).unwrap();
    assert_eq!(prompt.encode("").unwrap(), [0, 1]);
}

#[test]
fn plain_words_of_the_template_and_the_text_are_encoded_as_one_string() {
    let file = saved(&tokenizer());
    let prompt = PromptTokenizer::open(&file.path, "</s>a<|im_start|>b {text}2<|im_end|>c").unwrap();
    let expected = ["</s>", "a", "<|im_start|>", "b", "Ġ1", "2", "<|im_end|>", "c"];
    assert_eq!(tokens(&prompt.encode("1").unwrap()), expected);
    let plain = PromptTokenizer::open(&file.path, "b {text}2").unwrap();
    assert_eq!(tokens(&plain.encode("1").unwrap()), ["b", "Ġ1", "2"]);
}

#[test]
fn tokens_spell_the_text_byte_for_byte() {
    let file = saved(&tokenizer());
    let tokenizer = TextTokenizer::open(&file.path).unwrap();
    let spellings = tokenizer.spellings();
    let text = "1 b\tc\n\u{0} \u{ad}\u{e9}\u{20ac}\u{1f600}";
    let spelled: Vec<u8> =
        tokenizer.encode(text).unwrap().into_iter().flat_map(|id| spellings[id as usize].clone()).collect();
    assert_eq!(String::from_utf8(spelled).unwrap(), text);
    assert!(spellings[tokenizer.token_id("<|im_start|>").unwrap() as usize].is_empty(), "special");
}

#[test]
fn tokens_that_mark_spaces_or_name_a_byte_spell_those() {
    let vocabulary = [("▁foo", 0), ("<0xC3>", 1), ("<b>", 2)].map(|(token, id)| (token.to_owned(), id));
    let model = tokenizers::models::wordlevel::WordLevel::builder().vocab(vocabulary.into()).build().unwrap();
    let file = saved(&tokenizers::Tokenizer::new(model));
    let spellings = TextTokenizer::open(&file.path).unwrap().spellings();
    assert_eq!(spellings, [b" foo".to_vec(), vec![0xC3], b"<b>".to_vec()]);
}

#[test]
fn a_placeholder_in_the_text_is_text() {
    let file = saved(&tokenizer());
    let prompt = PromptTokenizer::open(&file.path, TEMPLATE).unwrap();
    assert_eq!(prompt.encode("{text}").unwrap().len(), 2 + "{text}".len());
}

#[test]
fn a_template_without_exactly_one_text_is_refused() {
    let file = saved(&tokenizer());
    for (template, problem) in [
        ("<|im_start|>", "has no {text}"),
        ("<|im_start|>{text}{text}", "more than once"),
        ("{text}", "at least one token"),
    ] {
        assert_says(&PromptTokenizer::open(&file.path, template).unwrap_err(), &[template, problem]);
    }
}

#[test]
fn decoding_leaves_special_tokens_out_and_shows_a_cut_character() {
    let file = saved(&tokenizer());
    let text = TextTokenizer::open(&file.path).unwrap();
    let ids = text.encode("città 12").unwrap();
    let mut written = vec![text.token_id("<|im_start|>").unwrap()];
    written.extend(&ids);
    written.push(text.token_id("<|im_end|>").unwrap());
    assert_eq!(text.decode(&written).unwrap(), "città 12");
    assert_eq!(text.decode(&ids[..5]).unwrap(), "citt\u{fffd}");
    assert_eq!(text.decode(&[]).unwrap(), "");
}

#[test]
fn truncation_and_padding_in_the_file_are_ignored() {
    let mut cutting = tokenizer();
    let truncation = tokenizers::TruncationParams { max_length: 4, ..Default::default() };
    cutting.with_truncation(Some(truncation)).unwrap();
    let padding =
        tokenizers::PaddingParams { strategy: tokenizers::PaddingStrategy::Fixed(64), ..Default::default() };
    cutting.with_padding(Some(padding));
    let file = saved(&cutting);
    assert_eq!(TextTokenizer::open(&file.path).unwrap().encode("ten letter").unwrap().len(), 10);
}

#[test]
fn a_broken_tokenizer_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    std::fs::write(&path, "{}").unwrap();
    assert_says(
        &TextTokenizer::open(&path).unwrap_err(),
        &["cannot load the tokenizer of", "tokenizer.json"],
    );
}

#[test]
fn a_bundle_gives_its_templates_by_name() {
    let tiny = TinyBundle::sealed();
    let bundle = baton_bundle::Bundle::open(tiny.path()).unwrap();
    let by_default = bundle.prompt_tokenizer(None).unwrap().encode("a").unwrap();
    assert_eq!(bundle.prompt_tokenizer(Some("default")).unwrap().encode("a").unwrap(), by_default);
    let error = bundle.prompt_tokenizer(Some("formal")).unwrap_err();
    assert_says(&error, &["no template `formal`", "there are: default"]);
}

/// The text that each token covers.
fn covered<'text>(text: &'text str, tokens: &SpannedTokens) -> Vec<&'text str> {
    tokens.spans.iter().map(|span| &text[span.clone()]).collect()
}

#[test]
fn a_token_covers_its_characters_and_a_part_of_a_character_covers_all_of_it() {
    let file = saved(&tokenizer());
    let tokenizer = TextTokenizer::open(&file.path).unwrap();
    let text = "aé 12€";
    let tokens = tokenizer.encode_with_spans(text).unwrap();
    assert_eq!(tokens.ids, tokenizer.encode(text).unwrap());
    assert_eq!(covered(text, &tokens), ["a", "é", "é", " 1", "2", "€", "€", "€"]);
}

#[test]
fn tokens_of_the_template_cover_nothing_even_where_they_are_plain_words() {
    let file = saved(&tokenizer());
    let prompt = PromptTokenizer::open(&file.path, "</s>a<|im_start|>b {text}2<|im_end|>c").unwrap();
    for text in ["1", "", "12 è"] {
        let tokens = prompt.encode_with_spans(text).unwrap();
        assert_eq!(tokens.ids, prompt.encode(text).unwrap());
        assert_eq!(
            covered(text, &tokens).concat().chars().filter(|c| *c == '1').count(),
            text.matches('1').count()
        );
    }
    // `Ġ1` is made of the template's space and the text's digit, `2` is the template's.
    let tokens = prompt.encode_with_spans("1").unwrap();
    assert_eq!(covered("1", &tokens), ["", "", "", "", "1", "", "", ""]);
}

/// As SentencePiece models in `tokenizer.json` are: normalized, spaces as "▁", one before the first word.
fn normalizing() -> tokenizers::Tokenizer {
    use tokenizers::models::unigram::Unigram;
    use tokenizers::normalizers::{NFKC, Replace, Sequence, replace::ReplacePattern};
    use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

    let pieces = ["<unk>", "▁", "▁fi", "nd", "...", ".", "f", "i", "x", "1", "km", "▁km"];
    let vocabulary = pieces.iter().zip(0..).map(|(piece, rank)| ((*piece).to_owned(), -f64::from(rank)));
    let mut tokenizer =
        tokenizers::Tokenizer::new(Unigram::from(vocabulary.collect(), Some(0), false).unwrap());
    let spaces = Replace::new(ReplacePattern::Regex(" {2,}".to_owned()), " ").unwrap();
    tokenizer.with_normalizer(Some(Sequence::new(vec![NFKC.into(), spaces.into()]))).unwrap();
    tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::Always, true)));
    tokenizer
}

#[test]
fn normalized_text_covers_its_original() {
    let file = saved(&normalizing());
    let tokenizer = TextTokenizer::open(&file.path).unwrap();
    // A ligature, an ellipsis and a unit of one character become several; of several spaces one is left.
    let text = "ﬁnd…   ㎞";
    let tokens = tokenizer.encode_with_spans(text).unwrap();
    let pieces: Vec<String> = tokens.ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
    assert_eq!(pieces, ["▁fi", "nd", "...", "▁km"]);
    assert_eq!(covered(text, &tokens), ["ﬁ", "nd", "…", " ㎞"]);
}

#[test]
fn a_part_of_a_character_that_was_normalized_covers_all_of_it() {
    let file = saved(&normalizing());
    let tokenizer = TextTokenizer::open(&file.path).unwrap();
    // "f" and "i" apart, as in "xﬁ", where no piece begins with a space.
    let text = "xﬁ";
    let tokens = tokenizer.encode_with_spans(text).unwrap();
    let covers = covered(text, &tokens);
    assert_eq!(covers[covers.len() - 2..], ["ﬁ", "ﬁ"], "{covers:?}");
}

proptest::proptest! {
    #[test]
    fn spans_are_whole_characters_of_any_text(text in "[ -~àé€ﬁ…㎞\u{1f600}\u{300}\n中]{0,40}") {
        for tokenizer in [tokenizer(), normalizing()] {
            let file = saved(&tokenizer);
            let tokens = TextTokenizer::open(&file.path).unwrap().encode_with_spans(&text).unwrap();
            proptest::prop_assert_eq!(tokens.ids.len(), tokens.spans.len());
            let covered = covered(&text, &tokens); // panics within a character
            proptest::prop_assert!(covered.iter().all(|piece| text.contains(piece)));
        }
        // Bytes leave nothing out.
        let file = saved(&tokenizer());
        let spans = TextTokenizer::open(&file.path).unwrap().encode_with_spans(&text).unwrap().spans;
        let is_covered = |at: usize| spans.iter().any(|span| span.contains(&at));
        proptest::prop_assert!((0..text.len()).all(is_covered));
    }
}
