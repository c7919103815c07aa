//! The recipes under `docs/how-to/recipes/`: each page's config is one that a run accepts, and its numbers
//! are those of the accounting, from the shapes of the named models alone.

use std::{fs, path::Path};

use baton_bundle::{Arithmetic, ModelConfig, ModelMemory, TokenFlops, WeightDtype, WeightFormat};
use baton_trainer::TrainConfig;
use serde_json::{Value, json};

/// A page, and the `config.json` of its two models as published.
struct Recipe {
    page: &'static str,
    reader: &'static str,
    small_model: Value,
}

const PASS_TOKENS: usize = 4096;
const ROWS: u64 = 64;
const ROW_TOKENS: u64 = 256;
const SENTENCE_TOKENS: u64 = 40;
const OPERATIONS_PER_SECOND: f64 = 100e12;

fn recipes() -> [Recipe; 3] {
    let nllb = json!({
        "model_type": "m2m_100", "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12,
        "encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "vocab_size": 256_206,
        "activation_function": "relu", "scale_embedding": true
    });
    let opus = json!({
        "model_type": "marian", "d_model": 512, "encoder_layers": 6, "decoder_layers": 6,
        "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "vocab_size": 58_101, "pad_token_id": 58_100,
        "activation_function": "swish", "scale_embedding": true
    });
    let flan = json!({
        "model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
        "vocab_size": 32_128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false
    });
    [
        Recipe { page: "qwen3-8b-nllb.md", reader: "Qwen/Qwen3-8B", small_model: nllb },
        Recipe { page: "gemma3-12b-opus-mt.md", reader: "google/gemma-3-12b-pt", small_model: opus },
        Recipe { page: "flan-t5.md", reader: "google/flan-t5-xl", small_model: flan },
    ]
}

fn read(config: &Value) -> ModelConfig {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    ModelConfig::read(&path).unwrap()
}

fn public_reader(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundle/tests/fixtures/readers.json");
    let models: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    read(&models.iter().find(|model| model["name"] == name).unwrap()["config"])
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// The lines of a page's tables.
fn rows(reader: &ModelConfig, layers: usize, small_model: &ModelConfig) -> Vec<String> {
    let formats = [WeightFormat::Int8, WeightFormat::Bf16];
    let row = |what: &str, bytes: &dyn Fn(WeightFormat) -> u64| {
        format!("| {what} | {} |", formats.map(|format| gib(bytes(format))).join(" | "))
    };
    let reading = |format| ModelMemory::of_reader(reader, layers, format);
    let writing = |format| ModelMemory::of_writer(small_model, format);
    let total = reader.num_hidden_layers;
    let arithmetic = Arithmetic {
        parameters: 0,
        prompt: vec![(TokenFlops::of_blocks(reader, layers), reader.prompt_attention())],
        generated: Vec::new(),
    };
    let flops = arithmetic.flops_per_record(SENTENCE_TOKENS, 0);
    let hours = flops as f64 * 1e6 / OPERATIONS_PER_SECOND / 3600.0;
    vec![
        row(&format!("reader: weights of {layers} of {total} blocks"), &|format| reading(format).weights),
        row("reader: at its most, with passes of 4,096 tokens", &|format| {
            reading(format).of_engines(1, PASS_TOKENS)
        }),
        row("small model: weights", &|format| writing(format).weights),
        row("small model: 64 rows of 256 tokens", &|format| {
            writing(format).weights + writing(format).cache_per_token * ROWS * ROW_TOKENS
        }),
        format!("| reading a sentence of 40 tokens | {:.2} TFLOP |", flops as f64 / 1e12),
        format!("| reading a million such sentences at 100 TFLOP/s | {hours:.1} h |"),
        format!(
            "| states on disk, a million such sentences | {} |",
            gib(2 * reader.hidden_size as u64 * SENTENCE_TOKENS * 1_000_000)
        ),
    ]
}

#[test]
fn every_recipe_has_a_config_that_a_run_accepts_and_the_numbers_of_the_accounting() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/recipes");
    for Recipe { page, reader, small_model } in recipes() {
        let text = fs::read_to_string(directory.join(page)).unwrap();
        let toml = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let config: TrainConfig = toml::from_str(toml.expect("a page has a config")).unwrap();
        config.validate().unwrap_or_else(|error| panic!("{page}: {error:?}"));
        let reader = ModelConfig { dtype: WeightDtype::Bf16, ..public_reader(reader) }; // as imported
        assert!((1..=reader.num_hidden_layers).contains(&config.llm_layer), "{page}");
        if reader.encoder_decoder().is_some() {
            assert_eq!(config.llm_layer, reader.num_hidden_layers, "{page}: an encoder is read at its end");
        }
        let missing: Vec<String> = rows(&reader, config.llm_layer, &read(&small_model))
            .into_iter()
            .filter(|row| !text.contains(row))
            .collect();
        assert!(missing.is_empty(), "{page} lacks\n{}", missing.join("\n"));
    }
}
