//! Opening, sealing and verifying bundles.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::fs;

use baton_bundle::{
    Bundle, BundleError, BundleManifest, Fusion, LlmWriter, ModelConfig, ProjectorPart,
    PromptEmbeddingSource, arithmetic_of_llm, arithmetic_of_mode, summarize, verify, write_manifest,
};
use baton_job::Mode;
use serde_json::{Value, json};
use support::{
    TinyBundle, assert_says, config, llm, manifest, projector_tensors, tokenizer, write_checkpoint,
    write_tensors,
};
use tokenizers::AddedToken;

#[test]
fn a_sealed_bundle_opens_and_verifies_with_the_same_digest() {
    let tiny = TinyBundle::unsealed();
    let sealed = write_manifest(tiny.path(), manifest()).unwrap();
    let opened = Bundle::open(tiny.path()).unwrap();
    assert_eq!(opened.digest(), sealed.digest());
    assert_eq!(opened.manifest(), sealed.manifest());
    assert_eq!(verify(tiny.path()).unwrap().digest(), sealed.digest());
    assert_eq!(baton_bundle::sha256_of_file(&tiny.file("bundle.json")).unwrap(), sealed.digest());
}

#[test]
fn the_digest_covers_every_file() {
    let digest = |tiny: &TinyBundle| write_manifest(tiny.path(), manifest()).unwrap().digest().to_owned();
    let original = digest(&TinyBundle::unsealed());
    assert_eq!(digest(&TinyBundle::unsealed()), original);
    for name in manifest().file_names() {
        let tiny = TinyBundle::unsealed();
        let mut bytes = fs::read(tiny.file(name)).unwrap();
        bytes.push(b' ');
        fs::write(tiny.file(name), bytes).unwrap();
        assert_ne!(digest(&tiny), original, "{name}");
    }
}

#[test]
fn a_missing_file_is_named_with_the_way_to_get_it() {
    for (name, remedy) in [
        ("bundle.json", "name a directory that `baton train` or `baton bundle import-slm` wrote"),
        ("llm/model.safetensors", "baton bundle import-llm --from"),
        ("projector/model.safetensors", "copy"),
        ("slm/tokenizer.json", "origin: made by a test"),
    ] {
        let tiny = TinyBundle::sealed();
        fs::remove_file(tiny.file(name)).unwrap();
        assert_says(&Bundle::open(tiny.path()).unwrap_err(), &[name, "is missing", remedy]);
    }
}

#[test]
fn a_truncated_file_is_found_on_open_and_a_flipped_bit_on_verify() {
    for name in manifest().file_names() {
        if name.ends_with("config.json") {
            continue; // parsed on open; a broken one is caught as JSON
        }
        let tiny = TinyBundle::sealed();
        let bytes = fs::read(tiny.file(name)).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(tiny.file(name), flipped).unwrap();
        Bundle::open(tiny.path()).unwrap();
        assert_says(&verify(tiny.path()).unwrap_err(), &[name, "has sha256", "was made with"]);
        fs::write(tiny.file(name), &bytes[..bytes.len() - 1]).unwrap();
        assert_says(&Bundle::open(tiny.path()).unwrap_err(), &[name, "bytes, but the bundle was made with"]);
    }
}

fn projector(manifest: &mut BundleManifest) -> &mut ProjectorPart {
    manifest.projector.as_mut().unwrap()
}

fn writer(manifest: &mut BundleManifest) -> &mut LlmWriter {
    llm(manifest).writer.as_mut().unwrap()
}

fn propose(manifest: &mut BundleManifest, mode: Mode, options: &str) {
    manifest.generation.insert(mode, serde_json::from_str(options).unwrap());
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused_and_not_written() {
    type Spoil = fn(&mut BundleManifest);
    let cases: [(Spoil, &str); 20] = [
        (|m| m.format = 2, "`format` is 2, not 1"),
        (|m| m.modes.clear(), "`modes` is empty"),
        (|m| projector(m).d_llm = 9, "`projector.d_llm` is 9, but `llm.d_model` is 8"),
        (|m| projector(m).d_slm = 9, "`projector.d_slm` is 9, but `slm.d_model` is 8"),
        (|m| projector(m).depth = 0, "`projector.depth` is 0"),
        (|m| llm(m).layers = 0, "`llm.layers` is 0"),
        (|m| llm(m).layers = 3, "`llm.layers` is 3, but llm/config.json has only 2 layers"),
        (|m| llm(m).vocab_size = 7, "`llm.vocab_size` is 7, but llm/config.json has `vocab_size` 261"),
        (|m| projector(m).prompt_embedding = PromptEmbeddingSource::None, "`fusion` is `add`"),
        (
            |m| {
                m.fusion = Some(Fusion::Replace);
                projector(m).prompt_embedding = PromptEmbeddingSource::None;
                m.modes.push(Mode::Slm);
            },
            "`modes` has `slm`",
        ),
        (|m| m.templates.clear(), "no `default`"),
        (
            |m| {
                m.templates.insert("x".to_owned(), "no text".to_owned());
            },
            "`templates.x` has no {text}",
        ),
        (|m| m.limits.max_new_tokens = 0, "a number in `limits` is 0"),
        (|m| m.fusion = None, "a small model needs all of `projector`, `slm` and `fusion`"),
        (|m| m.modes = vec![Mode::Llm, Mode::Verified], "`modes` has `verified`, but not `hybrid`"),
        (|m| llm(m).writer = None, "`modes` has `llm` or `verified`, but there is no `llm.writer`"),
        (|m| writer(m).prompt_end.clear(), "`llm.writer.prompt_end` is empty"),
        (|m| writer(m).max_new_tokens = 0, "`llm.writer.max_new_tokens` is 0"),
        (|m| propose(m, Mode::Slm, "{}"), "`generation` has mode `slm`, but `modes` has not"),
        (|m| propose(m, Mode::Hybrid, r#"{"beams": 4, "top_k": 5}"#), "`generation.hybrid` cannot be: "),
    ];
    for (spoil, problem) in cases {
        let tiny = TinyBundle::unsealed();
        let mut spoiled = manifest();
        spoil(&mut spoiled);
        assert_says(&write_manifest(tiny.path(), spoiled).unwrap_err(), &["bundle.json", problem]);
        assert!(!tiny.file("bundle.json").exists());
    }
}

#[test]
fn an_unknown_field_and_a_missing_hash_are_refused() {
    let tiny = TinyBundle::sealed();
    let original: Value = serde_json::from_slice(&fs::read(tiny.file("bundle.json")).unwrap()).unwrap();
    let open_with = |change: fn(&mut Value)| -> BundleError {
        let mut changed = original.clone();
        change(&mut changed);
        fs::write(tiny.file("bundle.json"), changed.to_string()).unwrap();
        Bundle::open(tiny.path()).unwrap_err()
    };
    assert_says(&open_with(|json| json["fusoin"] = json!("add")), &["unknown field `fusoin`"]);
    let error = open_with(|json| {
        json["files"].as_object_mut().unwrap().remove("slm/tokenizer.json");
    });
    assert_says(&error, &["`files` has no `slm/tokenizer.json`"]);
}

#[test]
fn swapped_parts_are_found_by_their_dimensions() {
    let tiny = TinyBundle::sealed();
    let wider = ModelConfig { hidden_size: 16, ..config() };
    write_checkpoint(&tiny.file("slm"), &wider);
    let error = Bundle::open(tiny.path()).unwrap_err();
    assert_says(&error, &["`slm.d_model` is 8", "`hidden_size` 16", "another checkpoint"]);
}

#[test]
fn tensors_that_do_not_fit_are_found_by_verify() {
    type Spoil = fn(&TinyBundle);
    let cases: [(Spoil, &[&str]); 3] = [
        (
            |tiny| write_tensors(&tiny.file("projector/model.safetensors"), &projector_tensors(8, 4)),
            &["projector/model.safetensors", "`projector.input.weight` has shape [4, 8]", "[8, 8]"],
        ),
        (
            |tiny| {
                let shapes = config().tensor_shapes();
                write_tensors(&tiny.file("slm/model.safetensors"), &shapes[..shapes.len() - 1]);
            },
            &["slm/model.safetensors", "`model.norm.weight` is missing"],
        ),
        (
            |tiny| {
                let bf16 = ModelConfig { dtype: baton_bundle::WeightDtype::Bf16, ..config() };
                fs::write(tiny.file("slm/config.json"), bf16.to_json()).unwrap();
            },
            &["slm/model.safetensors", "is F32, but should be BF16"],
        ),
    ];
    for (spoil, pieces) in cases {
        let tiny = TinyBundle::unsealed();
        spoil(&tiny);
        write_manifest(tiny.path(), manifest()).unwrap();
        assert_says(&verify(tiny.path()).unwrap_err(), pieces);
    }
}

#[test]
fn a_tokenizer_of_another_model_is_found_by_verify() {
    let tiny = TinyBundle::unsealed();
    let mut larger = support::tokenizer();
    larger.add_tokens([AddedToken::from("<one more>", false)]).unwrap();
    larger.save(tiny.file("llm/tokenizer.json"), false).unwrap();
    write_manifest(tiny.path(), manifest()).unwrap();
    let error = verify(tiny.path()).unwrap_err();
    assert_says(&error, &["llm/tokenizer.json has 262 ids", "261 rows", "copy the tokenizer.json"]);
}

#[test]
fn begin_and_end_tokens_must_mean_the_same_everywhere() {
    let verify_with = |spoil: fn(&mut BundleManifest)| {
        let tiny = TinyBundle::unsealed();
        let mut spoiled = manifest();
        spoil(&mut spoiled);
        write_manifest(tiny.path(), spoiled).unwrap();
        verify(tiny.path()).unwrap_err()
    };
    let absent = verify_with(|m| m.slm.as_mut().unwrap().eos_token = "<end>".to_owned());
    assert_says(&absent, &["slm/tokenizer.json has no token `<end>`", "`slm.eos_token`"]);
    let other = verify_with(|m| m.slm.as_mut().unwrap().eos_token = "</s>".to_owned());
    assert_says(&other, &["`slm.eos_token` is `</s>`, id 2", "`eos_token_id` [1]"]);
    let of_llm = verify_with(|m| writer(m).eos_token = "<end>".to_owned());
    assert_says(&of_llm, &["llm/tokenizer.json has no token `<end>`", "`llm.writer.eos_token`"]);
}

#[test]
fn a_template_must_leave_room_for_text() {
    let tiny = TinyBundle::unsealed();
    let mut spoiled = manifest();
    spoiled.limits.max_prompt_tokens = 2;
    write_manifest(tiny.path(), spoiled).unwrap();
    assert_says(&verify(tiny.path()).unwrap_err(), &["leaves no room for a text"]);
}

#[test]
fn a_baseline_without_the_llm_needs_no_projector() {
    let tiny = TinyBundle::unsealed();
    write_tensors(&tiny.file("projector/model.safetensors"), &projector_tensors(8, 8)[4..]);
    let baseline = BundleManifest { modes: vec![Mode::Slm], ..manifest() };
    write_manifest(tiny.path(), baseline).unwrap();
    verify(tiny.path()).unwrap();
}

#[test]
fn a_bundle_whose_models_write_other_tokens_cannot_verify() {
    let verified = BundleManifest { modes: vec![Mode::Hybrid, Mode::Verified], ..manifest() };
    let tiny = TinyBundle::unsealed();
    write_manifest(tiny.path(), verified.clone()).unwrap();
    verify(tiny.path()).unwrap();

    let other = tokenizer().to_string(false).unwrap().replace("</s>", "<other>");
    fs::write(tiny.file("slm/tokenizer.json"), other).unwrap();
    write_manifest(tiny.path(), verified).unwrap();
    let pieces = ["slm/tokenizer.json", "other tokens than llm/tokenizer.json", "mode `verified`"];
    assert_says(&verify(tiny.path()).unwrap_err(), &pieces);
}

#[test]
fn an_llm_alone_needs_no_other_part() {
    let tiny = TinyBundle::unsealed();
    for part in ["projector", "slm"] {
        fs::remove_dir_all(tiny.file(part)).unwrap();
    }
    let (projector, slm, fusion, modes) = (None, None, None, vec![Mode::Llm]);
    write_manifest(tiny.path(), BundleManifest { projector, slm, fusion, modes, ..manifest() }).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    assert_eq!(bundle.manifest().files.len(), 3);
    assert_eq!(summarize(&bundle).unwrap().len(), 1);
    assert_eq!(arithmetic_of_mode(&bundle, Mode::Llm).unwrap(), arithmetic_of_llm(&bundle).unwrap());
    assert_says(&bundle.small_model().unwrap_err(), &["no small model", "only mode llm"]);
}

#[test]
fn a_summary_counts_parameters_from_headers() {
    let tiny = TinyBundle::sealed();
    let parts = summarize(&Bundle::open(tiny.path()).unwrap()).unwrap();
    let described: Vec<_> =
        parts.iter().map(|part| (part.path, part.num_parameters, part.dtypes.join(", "))).collect();
    assert_eq!(described[1], ("projector", 3 * (8 * 8 + 8), "F32".to_owned()));
    assert_eq!(described[0].1, described[2].1);
    let expected: usize = config().tensor_shapes().iter().map(|(_, s)| s.iter().product::<usize>()).sum();
    assert_eq!(described[0].1, expected as u64);
}
