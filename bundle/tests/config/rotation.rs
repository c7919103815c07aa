//! How positions rotate queries and keys, as files of all versions of transformers write it.

use baton_bundle::{RopeScaling, RotaryConfig};
use serde_json::{Value, json};

use crate::{read, read_json};

#[test]
fn the_rotary_base_is_found_wherever_a_version_of_transformers_writes_it() {
    for file in [
        json!({"rope_theta": 100000.0}),
        json!({"rope_theta": 100000, "rope_scaling": null}),
        json!({"rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}}),
        json!({"rope_scaling": {"rope_theta": 100000.0, "type": "default"}}),
    ] {
        for model_type in ["llama", "mistral", "qwen3", "phi3", "olmo2", "granite", "smollm3"] {
            let config = read(model_type, &file).unwrap();
            assert_eq!(config.decoder().unwrap().rotary, RotaryConfig::plain(100_000.0), "{file}");
        }
    }
    for file in [
        json!({"rope_theta": 2000.0, "rope_local_base_freq": 300.0}),
        json!({"rope_parameters": {
            "full_attention": {"rope_theta": 2000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 300.0, "rope_type": "default"}
        }}),
    ] {
        let config = read("gemma3_text", &file).unwrap();
        let decoder = config.decoder().unwrap();
        assert_eq!(decoder.rotary, RotaryConfig::plain(2000.0), "{file}");
        assert_eq!(decoder.local_rotary, Some(RotaryConfig::plain(300.0)), "{file}");
    }
}

#[test]
fn every_kind_of_scaled_rotation_is_read_and_written_in_both_spellings() {
    let positions = json!({"max_position_embeddings": 4096, "head_dim": 8});
    for (scaling, factor, max_positions) in [
        (json!({"type": "linear", "factor": 8.0}), 1.0, None),
        (
            json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 1024
            }),
            1.0,
            None,
        ),
        (json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}), 1.1386, None),
        (json!({"type": "yarn", "original_max_position_embeddings": 1024}), 1.1386, None),
        (
            json!({
                "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "mscale": 1.0,
                "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1, "max_position_embeddings": 4096
            }),
            1.0,
            Some(1024),
        ),
        (json!({"type": "yarn", "factor": 4.0, "attention_factor": 0.5, "truncate": false}), 0.5, None),
        (json!({"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0}), 1.0, None),
        (
            json!({
                "type": "longrope", "short_factor": [1.0, 1.5, 2.0, 4.0], "long_factor": [2, 3, 4, 5],
                "original_max_position_embeddings": 512
            }),
            1.1547,
            Some(512),
        ),
    ] {
        for field in ["rope_scaling", "rope_parameters"] {
            let mut file = positions.clone();
            file[field] = scaling.clone();
            let config = read("phi3", &file).unwrap();
            let rotary = &config.decoder().unwrap().rotary;
            assert_ne!(rotary.scaling, RopeScaling::None, "{scaling}");
            assert!((rotary.attention_factor() - factor).abs() < 1e-4, "{scaling}");
            assert_eq!((rotary.frequencies(8).len(), config.max_positions()), (4, max_positions));
            let written: Value = serde_json::from_str(&config.to_json()).unwrap();
            assert_eq!(read_json(&written).unwrap(), config, "{written}");
        }
    }
}
