//! The imported tokenizer of SmolLM2 against Hugging Face transformers; see `scripts/parity_fixtures.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use baton_bundle::{PromptTokenizer, TextTokenizer};
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

#[test]
fn prompts_have_the_token_ids_that_transformers_gives_them() {
    let directory = std::env::var_os("BATON_LLM_DIR").map(PathBuf::from);
    let directory =
        directory.expect("BATON_LLM_DIR names the imported SmolLM2; run `make test`, which sets it");
    let tokenizer = directory.join("tokenizer.json");
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
