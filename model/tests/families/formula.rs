//! Checkpoints whose weights are a formula, as `scripts/reader_fixtures.py` evaluates it.
//!
//! A number is eight bits from a hash of its tensor's name and its place, scaled by the tensor's width. All
//! steps are exact or rounded once, so that both sides have the same bits.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{LazyLock, Mutex},
};

use baton_bundle::{BundleError, Family, ModelConfig, WeightDtype, write_safetensors};
use serde::Deserialize;
use tempfile::TempDir;

use crate::committed;

/// The directories made so far, which live as long as the tests.
static MADE: LazyLock<Mutex<BTreeMap<String, TempDir>>> = LazyLock::new(Mutex::default);

/// The directory of such a fixture.
pub(crate) fn directory(fixture: &str) -> PathBuf {
    let mut made = MADE.lock().unwrap();
    let directory = made.entry(fixture.to_owned()).or_insert_with(|| make(fixture));
    directory.path().to_owned()
}

fn make(fixture: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let config_file = directory.path().join("config.json");
    std::fs::copy(committed(fixture).join("config.json"), &config_file).unwrap();
    let config = ModelConfig::read(&config_file).unwrap();
    let shapes = stored_shapes(fixture);
    let around_one = matches!(config.family(), Family::Gemma2 | Family::Gemma3);
    let of_tensor = |name: &str| {
        let shape = &shapes.iter().find(|(known, _)| known == name).expect("it is listed").1;
        Ok::<_, BundleError>(numbers(name, shape, around_one))
    };
    write_safetensors(&directory.path().join("model.safetensors"), &shapes, WeightDtype::F32, of_tensor)
        .unwrap();
    directory
}

/// The tensors that transformers stores.
fn stored_shapes(fixture: &str) -> Vec<(String, Vec<usize>)> {
    #[derive(Deserialize)]
    struct Stored {
        shapes: BTreeMap<String, Vec<usize>>,
    }
    let json = std::fs::read(committed(fixture).join("expected.json")).unwrap();
    serde_json::from_slice::<Stored>(&json).unwrap().shapes.into_iter().collect()
}

fn numbers(name: &str, shape: &[usize], norms_around_one: bool) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let width = shape.last().copied().unwrap_or(1) as f64;
    (0..shape.iter().product::<usize>() as u64)
        .map(|place| {
            let mixed = seed.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let mixed = mixed ^ (mixed >> 31);
            let uniform = ((mixed >> 56) as f32 - 127.5) / 128.0; // between -1 and 1
            match shape {
                [_] if name.ends_with(".bias") => uniform * 0.25,
                [_] => uniform * 0.5 + if norms_around_one { 0.0 } else { 1.0 },
                // A T5 does not scale its scores down.
                _ if name.ends_with(".q.weight") => uniform * (1.0 / width.sqrt()) as f32,
                _ => uniform * (2.0 / width.sqrt()) as f32,
            }
        })
        .collect()
}
