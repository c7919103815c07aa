//! Adapters against PEFT: merged while loading, and beside frozen matrices in training.
//!
//! Adapters and expected values are made by `scripts/adapter_fixtures.py`.

use std::path::{Path, PathBuf};

use baton_bundle::{LoraAdapter, StoredTensor};
use baton_model::{
    Compute, LanguageModel, LlmWeights, LowRank, ModelError, ModelParts, PackedLayout, ResponsePass,
    TensorSource,
};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::{checkpoint, config, ids, relative_difference};

const FIXTURES: [&str; 6] = ["llama", "qwen2-rslora", "qwen3", "gemma3", "gpt2", "t5"];

#[derive(Deserialize)]
struct Expected {
    checkpoint: String,
    tokens: Vec<u32>,
    /// The decoder's input, if the model has an encoder.
    forced: Vec<u32>,
    logits: Vec<f64>,
    logits_without: Vec<f64>,
}

fn directory(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/adapters").join(fixture)
}

fn adapter(fixture: &str, checkpoint: &str) -> LoraAdapter {
    LoraAdapter::open(&directory(fixture), &config(checkpoint)).unwrap()
}

/// Logits after the last token.
fn logits(expected: &Expected, weights: &dyn TensorSource, compute: Compute) -> Tensor {
    let config = config(&expected.checkpoint);
    let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
    let model = LanguageModel::load(&config, weights, parts, compute).unwrap();
    // Of one sequence, the prompt is all that an encoder reads, or all tokens but the last.
    let (prompt, response) = match config.encoder_decoder() {
        Some(_) => (&expected.tokens[..], &expected.forced[..]),
        None => expected.tokens.split_at(expected.tokens.len() - 1),
    };
    let layout = PackedLayout::prompts_and_responses([(prompt.len(), response.len())]);
    let pass = ResponsePass { layout: &layout, prompt_attention: config.prompt_attention(), dropout: 0.0 };
    let logits = model.response_logits(model.embed(&ids(prompt)), &ids(response), pass);
    logits.get(-1)
}

#[test]
fn an_adapted_model_of_every_family_predicts_like_peft() {
    baton_model::set_num_threads(1);
    let compute = Compute::CPU_F32.differentiable();
    for fixture in FIXTURES {
        let expected = std::fs::read(directory(fixture).join("expected.json")).unwrap();
        let expected: Expected = serde_json::from_slice(&expected).unwrap();
        let adapter = || adapter(fixture, &expected.checkpoint);
        let checkpoint = || checkpoint(&expected.checkpoint);

        let merged = logits(&expected, &LlmWeights::merged(checkpoint(), Some(adapter())), compute);
        assert!(relative_difference(&merged, &expected.logits) < 1e-4, "{fixture}, merged");
        let beside = logits(&expected, &Beside { frozen: checkpoint(), adapter: adapter() }, compute);
        assert!(relative_difference(&beside, &expected.logits) < 1e-4, "{fixture}, beside");
        let without = logits(&expected, &LlmWeights::merged(checkpoint(), None), compute);
        assert!(relative_difference(&without, &expected.logits_without) < 1e-4, "{fixture}, without");
        assert!(
            relative_difference(&without, &expected.logits) > 1e-2,
            "{fixture}: the adapter does something"
        );
    }
}

/// A checkpoint with an adapter that is not merged.
struct Beside<T> {
    frozen: T,
    adapter: LoraAdapter,
}

impl<T: TensorSource> TensorSource for Beside<T> {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        self.frozen.tensor(name, shape)
    }

    fn low_rank(&self, name: &str) -> Option<LowRank> {
        let layer = self.adapter.layers().get(name)?;
        let [a, b] = self.adapter.read(layer).unwrap().map(|StoredTensor { shape, bytes, .. }| {
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            Tensor::from_data_size(&bytes, &shape, Kind::Float)
        });
        Some(LowRank { a, b, scale: self.adapter.shape().scale() })
    }
}
