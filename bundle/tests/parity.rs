//! The imported tokenizer of SmolLM2 against Hugging Face transformers; see `scripts/parity_fixtures.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use baton_bundle::{MANIFEST_FILE, PromptTokenizer, TextTokenizer, read_manifest, sha256_of_file};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    template: String,
    text: String,
    prompt_ids: Vec<u32>,
}

fn imported_llm() -> PathBuf {
    let directory = std::env::var_os("BATON_LLM_DIR").map(PathBuf::from);
    directory.expect("BATON_LLM_DIR names the imported SmolLM2; run `make test`, which sets it")
}

#[test]
fn the_llm_is_imported_as_the_released_bundles_know_it() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut num_bundles = 0;
    for model in std::fs::read_dir(models).unwrap() {
        let directory = model.unwrap().path();
        if !directory.join(MANIFEST_FILE).exists() {
            continue;
        }
        let (manifest, _) = read_manifest(&directory).unwrap();
        for (name, digest) in &manifest.files {
            if let Some(file) = name.strip_prefix("llm/") {
                let found = sha256_of_file(&imported_llm().join(file)).unwrap();
                assert_eq!(found, digest.sha256, "{}: {name}", directory.display());
            }
        }
        num_bundles += 1;
    }
    assert!(num_bundles > 0);
}

#[test]
fn prompts_have_the_token_ids_that_transformers_gives_them() {
    let tokenizer = imported_llm().join("tokenizer.json");
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/parity/smollm2.json");
    let fixtures: Fixtures = serde_json::from_slice(&std::fs::read(fixtures).unwrap()).unwrap();
    assert_eq!(fixtures.prompts.len(), 50);
    let plain = TextTokenizer::open(&tokenizer).unwrap();
    let mut by_template = BTreeMap::new();
    for prompt in fixtures.prompts {
        let ids = match prompt.template.as_str() {
            "{text}" => plain.encode(&prompt.text),
            template => by_template
                .entry(template.to_owned())
                .or_insert_with(|| PromptTokenizer::open(&tokenizer, template).unwrap())
                .encode(&prompt.text),
        };
        assert_eq!(ids.unwrap(), prompt.prompt_ids, "{:?}", prompt.text);
    }
}
