//! The two tokenizers of a bundle.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use baton_bundle::{PromptTokenizer, TextTokenizer};
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
fn what_tokens_spell_is_the_text_byte_for_byte() {
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
