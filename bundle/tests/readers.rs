//! The settings of public checkpoints, as published: read, counted, and named in the documentation.
//!
//! `scripts/reader_fixtures.py` makes the fixture, with the numbers of parameters that transformers counts.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::path::Path;

use baton_bundle::{ModelConfig, RopeScaling};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct PublicModel {
    name: String,
    parameters: usize,
    config: Value,
}

impl PublicModel {
    fn read(&self) -> ModelConfig {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, self.config.to_string()).unwrap();
        ModelConfig::read(&path).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

fn public_models() -> Vec<PublicModel> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/readers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn named(name: &str) -> ModelConfig {
    public_models().into_iter().find(|model| model.name == name).expect("it is in the fixture").read()
}

#[test]
fn every_public_reader_has_the_parameters_that_transformers_counts() {
    for model in public_models() {
        let shapes = model.read().tensor_shapes();
        let parameters: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(parameters, model.parameters, "{}", model.name);
    }
}

#[test]
fn a_written_config_of_a_public_reader_reads_back_equal() {
    for model in public_models() {
        let config = model.read();
        let written = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(PublicModel { config: written, ..model }.read(), config);
    }
}

#[test]
fn what_distinguishes_a_public_reader_is_read_from_its_file() {
    let scaling = |name: &str| named(name).decoder().unwrap().rotary.scaling.clone();
    assert!(matches!(scaling("meta-llama/Llama-3.1-8B"), RopeScaling::Llama3 { .. }));
    assert_eq!(scaling("google/gemma-3-12b-pt"), RopeScaling::Linear { factor: 8.0 });
    assert!(matches!(scaling("mistralai/Ministral-3-8B-Base-2512"), RopeScaling::Yarn(_)));

    let windows = |name: &str| [0, 1, 5].map(|layer| named(name).window(layer));
    assert_eq!(windows("mistralai/Mistral-7B-v0.1"), [Some(4096); 3]);
    assert_eq!(windows("mistralai/Mistral-Nemo-Base-2407"), [None; 3]);
    assert_eq!(windows("google/gemma-2-2b"), [Some(4096), None, None]);
    assert_eq!(windows("google/gemma-3-12b-pt"), [Some(1024), Some(1024), None]);

    let mini = named("microsoft/Phi-4-mini-instruct");
    assert_eq!(mini.decoder().unwrap().rotary.rotated_channels(mini.head_dim), 96);
    assert_eq!(mini.longest_prompt(0), Some(4096));
    assert_eq!(named("mistralai/Ministral-3-8B-Base-2512").longest_prompt(0), Some(16_384));
    assert_eq!(named("meta-llama/Llama-3.1-8B").longest_prompt(0), None);

    let smollm = named("HuggingFaceTB/SmolLM3-3B");
    let rotates = |layer| smollm.decoder().unwrap().rotary_of(layer).is_some();
    assert_eq!([2, 3, 4, 35].map(rotates), [true, false, true, false]);
}

#[test]
fn the_documentation_names_every_public_reader() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/readers.md");
    let text = std::fs::read_to_string(path).unwrap();
    for model in public_models() {
        let (_, name) = model.name.split_once('/').unwrap();
        assert!(text.contains(name), "docs/reference/readers.md does not name {name}");
    }
}
