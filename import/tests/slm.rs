//! Import of small models as bundles.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "../../bundle/tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use baton_bundle::{Bundle, FamilyConfig, ModelConfig, T5Config, T5FeedForward, Task, WeightDtype, verify};
use baton_import::{ImportError, SlmImportOptions, import_slm};
use baton_job::Mode;
use support::{assert_says, config, tokenizer, vocabulary, write_checkpoint};
use tokenizers::processors::template::TemplateProcessing;

fn t5() -> ModelConfig {
    ModelConfig {
        num_key_value_heads: 2,
        bos_token_id: Some(0),
        family: FamilyConfig::T5(T5Config {
            num_decoder_layers: 2,
            layer_norm_epsilon: 1e-6,
            relative_attention_num_buckets: 8,
            relative_attention_max_distance: 16,
            feed_forward_proj: T5FeedForward::GatedGelu,
            scale_decoder_outputs: true,
        }),
        ..config()
    }
}

/// A source whose tokenizer puts tokens around texts as `pattern` says.
fn write_source(directory: &Path, config: &ModelConfig, pattern: &str) {
    write_checkpoint(directory, config);
    let mut tokenizer = tokenizer();
    let special = |token: &str| (token.to_owned(), tokenizer.token_to_id(token).unwrap());
    let special: Vec<(String, u32)> = ["<|im_start|>", "</s>"].map(special).to_vec();
    let around = TemplateProcessing::builder().try_single(pattern).unwrap().special_tokens(special).build();
    tokenizer.with_post_processor(Some(around.unwrap()));
    tokenizer.save(directory.join("tokenizer.json"), false).unwrap();
}

fn options(directory: &Path) -> SlmImportOptions {
    SlmImportOptions {
        from: directory.join("small-model"),
        out: directory.join("bundle"),
        name: None,
        task: Task::Translation { source: "en".to_owned(), target: "it".to_owned() },
        template: None,
        eos_token: None,
        max_prompt_tokens: None,
        max_new_tokens: Some(8),
        dtype: None,
        licence: None,
        origin: None,
    }
}

fn template(bundle: &Bundle) -> &str {
    &bundle.manifest().slm.as_ref().unwrap().templates["default"]
}

fn tokens(bundle: &Bundle, text: &str) -> Vec<String> {
    let reading = bundle.prompt_reader(Mode::Slm, None).unwrap().read(text).unwrap();
    reading.segments[0].tokens.iter().map(|id| vocabulary()[*id as usize].clone()).collect()
}

#[test]
fn an_encoder_decoder_becomes_a_bundle_that_reads_its_own_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("small-model");
    write_source(&source, &t5(), "$A </s>");
    let generation =
        r#"{"num_beams": 4, "length_penalty": 0.6, "no_repeat_ngram_size": 0, "pad_token_id": 0}"#;
    fs::write(source.join("generation_config.json"), generation).unwrap();
    import_slm(&options(directory.path())).unwrap();
    let bundle = verify(&directory.path().join("bundle")).unwrap();
    let manifest = bundle.manifest();
    assert_eq!((manifest.name.as_str(), &manifest.modes[..]), ("small-model", &[Mode::Slm][..]));
    assert_eq!(template(&bundle), "{text}</s>");
    assert_eq!(tokens(&bundle, "a 1"), ["a", "Ġ1", "</s>"]);
    let slm = manifest.slm.as_ref().unwrap();
    assert_eq!((slm.bos_token.as_str(), slm.eos_token.as_str()), ("<|im_start|>", "<|im_end|>"));
    let proposed = serde_json::to_value(&manifest.generation[&Mode::Slm]).unwrap();
    assert_eq!((&proposed["beams"], &proposed["length_penalty"]), (&4.into(), &0.6.into()));
    let digests = |path: &Path| baton_bundle::sha256_of_file(path).unwrap();
    assert_eq!(bundle.small_model().unwrap().1.dtype, WeightDtype::F32, "as the source has it");
    let tokenizer = "tokenizer.json";
    let untouched = digests(&source.join(tokenizer));
    assert_eq!(manifest.files[&format!("slm/{tokenizer}")].sha256, untouched);
}

#[test]
fn a_template_takes_the_tokenizers_special_tokens_unless_it_has_them() {
    for (given, expected) in [
        ("1 {text}", "<|im_start|>1 {text}</s>"),
        ("<|im_start|>1{text}2", "<|im_start|>1{text}2</s>"),
        ("{text}</s>", "<|im_start|>{text}</s>"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        write_source(&directory.path().join("small-model"), &t5(), "<|im_start|> $A </s>");
        let options = SlmImportOptions { template: Some(given.to_owned()), ..options(directory.path()) };
        assert_eq!(template(&import_slm(&options).unwrap()), expected, "{given}");
    }
}

#[test]
fn a_decoder_only_model_begins_its_output_with_the_templates_last_token() {
    let directory = tempfile::tempdir().unwrap();
    write_source(&directory.path().join("small-model"), &config(), "<|im_start|> $A");
    let template_with_end = Some("1 {text}<|im_end|>ab".to_owned());
    let options = SlmImportOptions { template: template_with_end, ..options(directory.path()) };
    import_slm(&options).unwrap();
    let bundle = verify(&options.out).unwrap();
    assert_eq!(template(&bundle), "<|im_start|>1 {text}<|im_end|>a");
    assert_eq!(bundle.manifest().slm.as_ref().unwrap().bos_token, "b");
    assert_eq!(tokens(&bundle, "2"), ["<|im_start|>", "1", "Ġ", "2", "<|im_end|>", "a"]);
}

#[test]
fn missing_settings_are_asked_for_and_nothing_is_written() {
    type Spoil = fn(&mut ModelConfig, &mut SlmImportOptions);
    let cases: [(Spoil, &[&str]); 5] = [
        (|_, options| options.template = Some("no text".to_owned()), &["\"no text\"", "has no {text}"]),
        (|config, _| config.eos_token_ids = vec![1, 2], &["2 tokens that end an output", "--eos-token"]),
        (|_, options| options.eos_token = Some("<end>".to_owned()), &["no token `<end>`"]),
        (|config, _| *config = support::config(), &["it has no encoder", "--template"]),
        (|config, _| config.bos_token_id = None, &["no `decoder_start_token_id`"]),
    ];
    for (spoil, pieces) in cases {
        let directory = tempfile::tempdir().unwrap();
        let (mut config, mut options) = (t5(), options(directory.path()));
        spoil(&mut config, &mut options);
        write_source(&options.from, &config, "$A </s>");
        let error: ImportError = import_slm(&options).unwrap_err();
        assert_says(&error, pieces);
        assert!(!options.out.exists());
    }
}
