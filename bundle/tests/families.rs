//! The families that a bundle's models may have, each in its place, and refusals.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::fs;

use baton_bundle::{
    Bundle, BundleManifest, DecoderConfig, Family, FamilyConfig, Gpt2Config, ModelConfig, PromptAttention,
    T5Config, T5FeedForward, arithmetic_of_mode, verify, write_manifest,
};
use baton_job::Mode;
use support::{TinyBundle, assert_says, config, llm, manifest, write_checkpoint, write_tensors};

fn t5() -> ModelConfig {
    let constants = T5Config {
        num_decoder_layers: 1,
        layer_norm_epsilon: 1e-6,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 20,
        feed_forward_proj: T5FeedForward::GatedGelu,
        scale_decoder_outputs: false,
    };
    ModelConfig {
        num_key_value_heads: 2,
        tie_word_embeddings: false,
        family: FamilyConfig::T5(constants),
        ..config()
    }
}

/// `manifest` for a bundle whose parts are of these families.
fn of_families(llm: Family, slm: Family) -> BundleManifest {
    let mut manifest = manifest();
    manifest.llm.as_mut().unwrap().family = llm;
    manifest.slm.as_mut().unwrap().family = slm;
    manifest
}

#[test]
fn a_part_of_another_family_than_the_manifest_says_is_refused() {
    let tiny = TinyBundle::unsealed();
    let qwen = DecoderConfig::qwen2(1e-6, 1e4);
    write_checkpoint(&tiny.file("llm"), &ModelConfig { family: FamilyConfig::Decoder(qwen), ..config() });
    let error = write_manifest(tiny.path(), manifest()).unwrap_err();
    assert_says(&error, &["`llm.family`", "`llama`", "llm/config.json", "`qwen2`"]);
    write_manifest(tiny.path(), of_families(Family::Qwen2, Family::Llama)).unwrap();
    verify(tiny.path()).unwrap();
}

#[test]
fn limits_beyond_a_table_of_positions_are_refused() {
    let family = FamilyConfig::Gpt2(Gpt2Config { layer_norm_epsilon: 1e-5 });
    let with_positions = |max_position_embeddings| ModelConfig {
        num_key_value_heads: config().num_attention_heads,
        max_position_embeddings,
        family: family.clone(),
        ..config()
    };
    // Prompts of 32 tokens, and as many to write, or 48 where the LLM does.
    for (part, positions, problem) in [
        ("llm", 31, Some(["limits` allows 32 tokens (max_prompt_tokens)", "llm/ has only 31 positions"])),
        ("llm", 79, Some(["80 tokens (max_prompt_tokens + llm.writer.max_new_tokens)", "only 79 positions"])),
        ("slm", 63, Some(["64 tokens (max_prompt_tokens + max_new_tokens)", "slm/ has only 63 positions"])),
        ("llm", 80, None),
        ("slm", 64, None),
    ] {
        let tiny = TinyBundle::unsealed();
        write_checkpoint(&tiny.file(part), &with_positions(positions));
        let manifest = match part {
            "llm" => of_families(Family::Gpt2, Family::Llama),
            _ => of_families(Family::Llama, Family::Gpt2),
        };
        match (write_manifest(tiny.path(), manifest), problem) {
            (Ok(_), None) => drop(verify(tiny.path()).unwrap()),
            (Err(error), Some(pieces)) => assert_says(&error, &pieces),
            (result, problem) => panic!("{result:?}, expected {problem:?}"),
        }
    }
}

/// A bundle whose LLM and SLM are T5s.
fn t5_bundle() -> (TinyBundle, BundleManifest) {
    let tiny = TinyBundle::unsealed();
    for part in ["llm", "slm"] {
        write_checkpoint(&tiny.file(part), &t5());
    }
    let mut manifest = of_families(Family::T5, Family::T5);
    llm(&mut manifest).layers = 2;
    llm(&mut manifest).writer.as_mut().unwrap().prompt_end = "<|im_end|><|im_start|>".to_owned();
    (tiny, manifest)
}

#[test]
fn a_bundle_of_two_encoder_decoders_verifies() {
    let (tiny, manifest) = t5_bundle();
    write_manifest(tiny.path(), manifest).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    assert_eq!(bundle.prompt_end_ids().unwrap(), [1, 0]);
    assert!(!bundle.llm().unwrap().1.tie_word_embeddings);
    let arithmetic = arithmetic_of_mode(&bundle, Mode::Hybrid).unwrap();
    let attentions: Vec<PromptAttention> = arithmetic.prompt.iter().map(|stage| stage.1).collect();
    assert_eq!(attentions, [PromptAttention::Bidirectional; 2]);
}

#[test]
fn an_encoder_is_read_after_its_last_layer_and_sees_the_whole_prompt() {
    type Spoil = fn(&mut BundleManifest);
    let cases: [(Spoil, [&str; 2]); 2] = [
        (|m| llm(m).layers = 1, ["`llm.layers` is 1", "an encoder is read after its last layer, 2"]),
        (
            |m| m.slm.as_mut().unwrap().prompt_attention = PromptAttention::Causal,
            ["`slm.prompt_attention` is `causal`", "`bidirectional`"],
        ),
    ];
    for (spoil, pieces) in cases {
        let (tiny, mut manifest) = t5_bundle();
        spoil(&mut manifest);
        assert_says(&write_manifest(tiny.path(), manifest).unwrap_err(), &pieces);
    }
}

#[test]
fn outputs_of_an_encoder_decoder_begin_with_its_start_token() {
    let (tiny, mut manifest) = t5_bundle();
    llm(&mut manifest).writer.as_mut().unwrap().prompt_end = "<|im_end|>".to_owned();
    write_manifest(tiny.path(), manifest).unwrap();
    let pieces = ["`llm.writer.prompt_end` ends with token Some(1)", "`decoder_start_token_id`", "Some(0)"];
    assert_says(&verify(tiny.path()).unwrap_err(), &pieces);
}

/// Releases of transformers write different values about T5's head; the weights tell.
#[test]
fn the_weights_decide_whether_a_t5_has_a_head_of_its_own() {
    let (tiny, manifest) = t5_bundle();
    let slm = tiny.file("slm");
    let says_tied = t5().to_json().replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    assert_ne!(says_tied, t5().to_json());
    fs::write(slm.join("config.json"), says_tied).unwrap();
    write_manifest(tiny.path(), manifest.clone()).unwrap();
    let slm_config = |tiny: &TinyBundle| Bundle::open(tiny.path()).unwrap().small_model().unwrap().1.clone();
    assert!(!slm_config(&tiny).tie_word_embeddings);

    let shapes = t5().tensor_shapes();
    write_tensors(&slm.join("model.safetensors"), &shapes[..shapes.len() - 1]);
    fs::write(slm.join("config.json"), t5().to_json()).unwrap();
    write_manifest(tiny.path(), manifest).unwrap();
    assert!(slm_config(&tiny).tie_word_embeddings);
    verify(tiny.path()).unwrap();
}
