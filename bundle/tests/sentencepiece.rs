//! SentencePiece models against the sentencepiece package: `scripts/sentencepiece_fixtures.py`.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use baton_bundle::{PromptTokenizer, TextTokenizer};
use serde::Deserialize;
use support::assert_says;

/// A line, and the package's result.
#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    spans: Vec<(usize, usize)>,
    decoded: String,
    other_ids: Vec<u32>,
    other_decoded: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentencepiece")
}

/// The models of a directory, each with its cases.
fn models(directory: &Path) -> Vec<(PathBuf, Vec<Case>)> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let models = files.filter(|path| path.extension().is_some_and(|extension| extension == "spm"));
    let with_cases = |path: PathBuf| {
        let file = fs::File::open(path.with_extension("jsonl.gz")).unwrap();
        let cases = io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
        let cases = cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (path, cases)
    };
    models.map(with_cases).collect()
}

fn all_models() -> Vec<(PathBuf, Vec<Case>)> {
    let more = std::env::var_os("BATON_SENTENCEPIECE_CASES");
    let directories = [Some(fixtures()), more.map(PathBuf::from)];
    directories.into_iter().flatten().flat_map(|directory| models(&directory)).collect()
}

#[test]
fn ids_and_spans_are_those_of_the_reference_in_every_script() {
    for (path, cases) in all_models() {
        let tokenizer = TextTokenizer::open(&path).unwrap();
        assert!(cases.len() >= 200, "{}: {} cases", path.display(), cases.len());
        for case in cases {
            let tokens = tokenizer.encode_with_spans(&case.text).unwrap();
            assert_eq!(tokens.ids, case.ids, "{}: {:?}", path.display(), case.text);
            let spans: Vec<(usize, usize)> = tokens.spans.iter().map(|span| (span.start, span.end)).collect();
            assert_eq!(spans, case.spans, "{}: {:?}", path.display(), case.text);
        }
    }
}

#[test]
fn decoded_texts_are_those_of_the_reference() {
    for (path, cases) in all_models() {
        let tokenizer = TextTokenizer::open(&path).unwrap();
        for case in cases {
            assert_eq!(tokenizer.decode(&case.ids).unwrap(), case.decoded, "{}", path.display());
            let found = tokenizer.decode(&case.other_ids).unwrap();
            assert_eq!(found, case.other_decoded, "{}: {:?}", path.display(), case.other_ids);
        }
    }
}

#[test]
fn tokens_spell_the_text_that_they_decode_to() {
    for (path, cases) in models(&fixtures()) {
        let tokenizer = TextTokenizer::open(&path).unwrap();
        let spellings = tokenizer.spellings();
        assert_eq!(spellings.len(), tokenizer.num_ids());
        for case in cases {
            let unknown = tokenizer.token_id("<unk>").unwrap();
            if case.ids.contains(&unknown) {
                continue;
            }
            let spelled: Vec<u8> = case.ids.iter().flat_map(|&id| spellings[id as usize].clone()).collect();
            let spelled = String::from_utf8(spelled).unwrap();
            assert_eq!(spelled.trim_start(), case.decoded.trim_start(), "{}", path.display());
        }
    }
}

#[test]
fn control_pieces_are_special_in_the_template_and_plain_in_the_text() {
    let path = fixtures().join("bpe-bytes.spm");
    let prompt = PromptTokenizer::open(&path, "<s>a {text}</s>").unwrap();
    let tokenizer = TextTokenizer::open(&path).unwrap();
    let [begin, end] = ["<s>", "</s>"].map(|token| tokenizer.token_id(token).unwrap());
    let ids = prompt.encode("b</s>").unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (begin, end));
    assert_eq!(ids[1..ids.len() - 1], tokenizer.encode("a b</s>").unwrap());
    assert_eq!(ids.iter().filter(|&&id| id == end).count(), 1);
}

#[test]
fn a_vocabulary_beside_the_model_gives_the_ids() {
    let directory = tempfile::tempdir().unwrap();
    let model = fixtures().join("bpe-plain.spm");
    let plain = TextTokenizer::open(&model).unwrap();
    let path = directory.path().join("source.spm");
    fs::copy(&model, &path).unwrap();
    let all = plain.encode("Portugal, Brasil").unwrap();
    let pieces: Vec<String> = all.iter().map(|&id| plain.token(id).unwrap()).collect();
    let known = &pieces[1..];
    let mut vocabulary: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
    for special in ["</s>", "<unk>"] {
        vocabulary.insert(special.to_owned(), vocabulary.len().into());
    }
    for piece in known {
        let next = vocabulary.len();
        vocabulary.entry(piece).or_insert(next.into());
    }
    vocabulary.insert("▁only-target".to_owned(), vocabulary.len().into());
    vocabulary.insert("<pad>".to_owned(), vocabulary.len().into());
    fs::write(directory.path().join("vocab.json"), serde_json::to_vec(&vocabulary).unwrap()).unwrap();

    let mapped = TextTokenizer::open(&path).unwrap();
    let id = |piece: &str| vocabulary[piece].as_u64().unwrap() as u32;
    let expected = std::iter::once(1).chain(known.iter().map(|piece| id(piece))); // the first is unknown
    assert_eq!(mapped.encode("Portugal, Brasil").unwrap(), expected.collect::<Vec<u32>>());
    let written = [id("▁only-target"), id(&known[0]), id("<pad>"), id("</s>")];
    let text = known[0].replace('▁', " ");
    assert_eq!(mapped.decode(&written).unwrap(), format!(" only-target{text}"));
    assert_eq!(mapped.num_ids(), vocabulary.len());
}

#[test]
fn a_broken_or_unknown_model_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(fixtures().join("unigram-bytes.spm")).unwrap();
    for (name, bytes) in [("cut.spm", &whole[..whole.len() / 2 + 1]), ("empty.spm", &[])] {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_says(&TextTokenizer::open(&path).unwrap_err(), &["cannot load the tokenizer of", name]);
    }
}
