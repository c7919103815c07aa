//! The tokenizers of public small models, with their languages, against Hugging Face transformers. Fixtures
//! by `scripts/import_fixtures.py`.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "../../bundle/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use baton_bundle::{Bundle, LanguageChoice, ModelConfig, Task, verify};
use baton_import::{ImportError, SlmImportOptions, import_slm};
use baton_job::Mode;
use serde::Deserialize;
use serde_json::json;
use support::{assert_says, write_tensors};

#[derive(Deserialize)]
struct Case {
    name: String,
    model_type: String,
    /// SentencePiece models by the names that the directory has for them.
    models: BTreeMap<String, String>,
    languages: [String; 2],
    pad: u32,
    end: u32,
    vocab_size: usize,
    /// The token of the language that is written.
    first: Option<u32>,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    /// As a prompt.
    ids: Vec<u32>,
    /// As an output.
    written: Vec<u32>,
    decoded: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn cases() -> Vec<Case> {
    let file = fs::File::open(fixtures().join("cases.json.gz")).unwrap();
    let cases = io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
    serde_json::from_str(&cases).unwrap()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

/// Writes the directory in a hub's form, with weights that are never read.
fn write_source(directory: &Path, case: &Case) {
    fs::create_dir(directory).unwrap();
    for entry in fs::read_dir(fixtures().join(&case.name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
    let models = fixtures().join("../../../bundle/tests/fixtures/sentencepiece");
    for (file, model) in &case.models {
        fs::copy(models.join(model), directory.join(file)).unwrap();
    }
    let begins_with_end = ["m2m_100", "mbart"].contains(&case.model_type.as_str());
    let begin = if begins_with_end { case.end } else { case.pad };
    let config = json!({
        "model_type": case.model_type, "d_model": 8, "encoder_attention_heads": 2, "encoder_ffn_dim": 8,
        "encoder_layers": 1, "decoder_layers": 1, "vocab_size": case.vocab_size, "pad_token_id": case.pad,
        "eos_token_id": case.end, "decoder_start_token_id": begin, "max_position_embeddings": 512,
        "max_length": 200, "num_beams": 5, "early_stopping": true,
        "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let shapes = ModelConfig::read(&directory.join("config.json")).unwrap().tensor_shapes();
    write_tensors(&directory.join("model.safetensors"), &shapes);
}

fn import(directory: &Path, [source, target]: &[String; 2]) -> Result<Bundle, ImportError> {
    import_slm(&SlmImportOptions {
        from: directory.join("source"),
        out: directory.join("bundle"),
        name: None,
        task: Task::Translation { source: source.clone(), target: target.clone() },
        template: None,
        eos_token: None,
        max_prompt_tokens: None,
        max_new_tokens: None,
        dtype: None,
        licence: None,
        origin: None,
    })
}

fn imported(case: &Case) -> (tempfile::TempDir, Bundle) {
    let directory = tempfile::tempdir().unwrap();
    write_source(&directory.path().join("source"), case);
    import(directory.path(), &case.languages).unwrap();
    let bundle = verify(&directory.path().join("bundle")).unwrap();
    (directory, bundle)
}

fn prompt(bundle: &Bundle, languages: &LanguageChoice, text: &str) -> Vec<u32> {
    let reader = bundle.prompt_reader_for(Mode::Slm, None, languages).unwrap();
    reader.read(text).unwrap().segments.remove(0).tokens
}

#[test]
fn prompts_and_outputs_have_the_tokens_of_transformers() {
    for case in cases() {
        let (_directory, bundle) = imported(&case);
        let (small_model, config) = bundle.small_model().unwrap();
        let tokenizer = bundle.text_tokenizer(Mode::Slm).unwrap();
        let own = LanguageChoice::default();
        let begins_with_language = case.name == "mbart";
        let first = bundle.first_token(&own, &tokenizer).unwrap();
        let (expected, begin) = match begins_with_language {
            true => (None, case.first),
            false => (case.first, config.bos_token_id),
        };
        assert_eq!((first, config.bos_token_id), (expected, begin), "{}", case.name);
        assert_eq!(small_model.slm.eos_token, tokenizer.token(case.end).unwrap());
        let reader = bundle.prompt_reader(Mode::Slm, None).unwrap();
        assert!(case.texts.len() > 30, "{}", case.name);
        for Text { text, ids, written, decoded } in &case.texts {
            let reading = reader.read(text).unwrap();
            assert_eq!(reading.segments[0].tokens, *ids, "{}: {text:?}", case.name);
            // An unknown piece, which transformers drops, is marked as one.
            let found = tokenizer.decode(written).unwrap().replace(" ⁇ ", "");
            assert_eq!(found.trim(), decoded.trim(), "{}: {text:?}", case.name);
        }
        let limits = bundle.manifest().limits;
        assert_eq!((limits.max_prompt_tokens, limits.max_new_tokens), (512, 199), "{}", case.name);
        let proposed = serde_json::to_value(&bundle.manifest().generation[&Mode::Slm]).unwrap();
        let mut expected = json!({ "beams": 5, "early_stopping": "at_once" });
        if case.model_type == "marian" {
            expected["by_sentence"] = true.into(); // trained on sentences
        }
        assert_eq!(proposed, expected, "{}", case.name);
    }
}

#[test]
fn tokens_that_marian_never_writes_are_never_written() {
    let case = case("marian");
    let (_directory, bundle) = imported(&case);
    let suppressed = &bundle.small_model().unwrap().1.output_rules.suppressed_token_ids;
    let tokenizer = bundle.text_tokenizer(Mode::Slm).unwrap();
    let tokens: Vec<String> = suppressed.iter().map(|&id| tokenizer.token(id).unwrap()).collect();
    assert_eq!(tokens, ["<unk>", "<pad>"]);
}

#[test]
fn a_job_can_choose_other_languages_of_the_model() {
    for (name, other, source_changes) in
        [("m2m_100", "de", true), ("nllb", "deu_Latn", true), ("marian", "por", false)]
    {
        let (_directory, bundle) = imported(&case(name));
        let tokenizer = bundle.text_tokenizer(Mode::Slm).unwrap();
        let own = LanguageChoice::default();
        let target = LanguageChoice { target: Some(other.to_owned()), ..own.clone() };
        let source = LanguageChoice { source: Some(other.to_owned()), ..own.clone() };
        let slm = bundle.small_model().unwrap().0.slm;
        let token = tokenizer.token_id(&slm.languages.as_ref().unwrap().tokens[other]).unwrap();
        let text = "uma cor";
        if source_changes {
            assert_eq!(prompt(&bundle, &target, text), prompt(&bundle, &own, text), "{name}");
            assert_eq!(bundle.first_token(&target, &tokenizer).unwrap(), Some(token), "{name}");
            assert_eq!(prompt(&bundle, &source, text)[0], token, "{name}");
        } else {
            assert_eq!(prompt(&bundle, &target, text)[0], token, "{name}");
            let problem = slm.language_problem(&slm.templates["default"], &source).unwrap();
            assert_eq!(
                problem,
                format!("its small model is not told the source language, so it cannot be `{other}`")
            );
        }
        let unknown = LanguageChoice { target: Some("xx".to_owned()), ..own };
        let problem = slm.language_problem(&slm.templates["default"], &unknown).unwrap();
        assert!(problem.starts_with("it has no language `xx`, but "), "{problem}");
    }
}

#[test]
fn a_language_that_the_model_does_not_have_is_refused_with_some_that_it_has() {
    let directory = tempfile::tempdir().unwrap();
    write_source(&directory.path().join("source"), &case("nllb"));
    let error = import(directory.path(), &["en".to_owned(), "fra_Latn".to_owned()]).unwrap_err();
    assert_says(&error, &["no language `en`, but 202", "eng_Latn", "--source-language"]);
    assert!(!directory.path().join("bundle").exists());
}

#[test]
fn a_directory_without_a_tokenizer_is_refused_with_the_missing_files() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &[&str]); 4] = [
        ("marian", |path| fs::remove_file(path.join("source.spm")).unwrap(), &["source.spm, target.spm"]),
        ("marian", |path| fs::remove_file(path.join("vocab.json")).unwrap(), &["vocab.json"]),
        (
            "marian",
            |path| {
                let separate = r#"{"separate_vocabs": true}"#;
                fs::write(path.join("tokenizer_config.json"), separate).unwrap();
            },
            &["`separate_vocabs` is true", "one vocabulary"],
        ),
        ("nllb", |path| fs::remove_file(path.join("tokenizer.json")).unwrap(), &["no tokenizer.json"]),
    ];
    for (name, spoil, pieces) in cases {
        let directory = tempfile::tempdir().unwrap();
        let (case, source) = (case(name), directory.path().join("source"));
        write_source(&source, &case);
        spoil(&source);
        assert_says(&import(directory.path(), &case.languages).unwrap_err(), pieces);
    }
}
