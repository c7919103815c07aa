//! Weights in two files (published ones and the changes of training), and matrices in int8 with scales.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::fs;
use std::path::Path;

use baton_bundle::{
    Bundle, BundleError, CompactBase, CompactOptions, ModelConfig, SLM_CHANGES, SafetensorsFile,
    StoredWeights, WeightDtype, compact, summarize, verify, write_manifest, write_safetensors,
};
use support::{TinyBundle, assert_says, config, manifest, values};

const SLM_WEIGHTS: &str = "slm/model.safetensors";

/// The addition of training to number `i` of a tensor: up to 0.3, and never the same in a row.
fn change(i: usize) -> f32 {
    0.25 + (i % 7) as f32 / 128.0
}

fn is_changed(name: &str) -> bool {
    !name.contains("embed_tokens")
}

/// The weights of the tiny bundles after training: all but the embeddings have changed.
fn trained_values(number: usize, name: &str, shape: &[usize]) -> Vec<f32> {
    let changed = |(i, value): (usize, f32)| if is_changed(name) { value + change(i) } else { value };
    values(number, shape).into_iter().enumerate().map(changed).collect()
}

fn trained() -> TinyBundle {
    let tiny = TinyBundle::unsealed();
    let shapes = config().tensor_shapes();
    let number = |name: &str| shapes.iter().position(|(known, _)| known == name).unwrap();
    let values =
        |name: &str| Ok::<_, BundleError>(trained_values(number(name), name, &shapes[number(name)].1));
    write_safetensors(&tiny.file(SLM_WEIGHTS), &shapes, WeightDtype::F32, values).unwrap();
    write_manifest(tiny.path(), manifest()).unwrap();
    tiny
}

fn compacted(bundle: &Path, base: Option<&Path>, out: &Path) -> Bundle {
    let base = base.map(|base| CompactBase { bundle: base.to_owned(), rank: None, share: 1.0 });
    compact(&CompactOptions { bundle: bundle.to_owned(), base, out: out.to_owned() }).unwrap()
}

fn read(bundle: &Path, name: &str) -> Vec<f32> {
    StoredWeights::open(&bundle.join(SLM_WEIGHTS)).unwrap().read(name).unwrap().to_f32()
}

fn is_matrix(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

#[test]
fn a_copy_with_a_base_keeps_the_base_and_reads_like_the_trained_weights() {
    let (base, trained, out) = (TinyBundle::sealed(), trained(), tempfile::tempdir().unwrap());
    let copy = out.path().join("copy");
    let bundle = compacted(trained.path(), Some(base.path()), &copy);
    verify(&copy).unwrap();
    assert_eq!(fs::read(copy.join(SLM_WEIGHTS)).unwrap(), fs::read(base.file(SLM_WEIGHTS)).unwrap());
    assert!(bundle.manifest().files.contains_key(SLM_CHANGES));
    assert_eq!(fs::read_link(copy.join("llm")).unwrap(), trained.file("llm").canonicalize().unwrap());
    for (number, (name, shape)) in config().tensor_shapes().into_iter().enumerate() {
        let expected = trained_values(number, &name, &shape);
        let half_a_step = if is_matrix(&name) { change(6) / 127.0 / 2.0 + 1e-5 } else { 0.0 };
        for (found, expected) in read(&copy, &name).into_iter().zip(expected) {
            assert!((found - expected).abs() <= half_a_step, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn a_share_of_the_differences_lies_between_base_and_trained_weights() {
    let (base, trained, out) = (TinyBundle::sealed(), trained(), tempfile::tempdir().unwrap());
    let copy = out.path().join("copy");
    let half = CompactBase { bundle: base.path().to_owned(), rank: None, share: 0.5 };
    compact(&CompactOptions { bundle: trained.path().to_owned(), base: Some(half), out: copy.clone() })
        .unwrap();
    for (number, (name, shape)) in config().tensor_shapes().into_iter().enumerate() {
        let before = values(number, &shape);
        let after = trained_values(number, &name, &shape);
        for (found, (before, after)) in read(&copy, &name).into_iter().zip(before.into_iter().zip(after)) {
            assert!((found - (before + after) / 2.0).abs() < 1e-3, "{name}: {found} {before} {after}");
        }
    }
}

#[test]
fn differences_of_a_low_rank_are_stored_as_two_factors_and_read_as_their_product() {
    let (base, trained, out) = (TinyBundle::sealed(), trained(), tempfile::tempdir().unwrap());
    let copy = out.path().join("copy");
    let low = CompactBase { bundle: base.path().to_owned(), rank: Some(1), share: 1.0 };
    compact(&CompactOptions { bundle: trained.path().to_owned(), base: Some(low), out: copy.clone() })
        .unwrap();
    verify(&copy).unwrap();
    let changes = SafetensorsFile::open(&copy.join(SLM_CHANGES)).unwrap();
    for (number, (name, shape)) in config().tensor_shapes().into_iter().enumerate() {
        let expected = trained_values(number, &name, &shape);
        let found = read(&copy, &name);
        if is_matrix(&name) {
            assert_eq!(changes.info(&format!("{name}.left")).unwrap().shape, [shape[0], 1], "{name}");
            assert_eq!(changes.info(&format!("{name}.right")).unwrap().shape, [1, shape[1]], "{name}");
            assert!(changes.info(&name).is_none(), "{name}");
        }
        // All changes are 0.25 and up to 0.05 more, so the first direction has nearly all of them.
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.05, "{name}: {found} {expected}");
        }
    }
    let name = "model.layers.0.mlp.up_proj.weight.left";
    let alone = [(name.to_owned(), changes.info(name).unwrap().shape.clone())];
    let factor = changes.read_f32(name).unwrap();
    let numbers = |_: &str| Ok::<_, BundleError>(factor.clone());
    write_safetensors(&copy.join(SLM_CHANGES), &alone, WeightDtype::F32, numbers).unwrap();
    let refused = StoredWeights::open(&copy.join(SLM_WEIGHTS)).unwrap_err();
    assert_says(&refused, &[name, "no such tensor", "these changes belong to other weights"]);
}

#[test]
fn differences_are_always_to_the_published_weights() {
    let (base, trained, out) = (TinyBundle::sealed(), trained(), tempfile::tempdir().unwrap());
    let [once, twice] = ["once", "twice"].map(|name| out.path().join(name));
    compacted(trained.path(), Some(base.path()), &once);
    compacted(trained.path(), Some(&once), &twice);
    for name in [SLM_WEIGHTS, SLM_CHANGES, "bundle.json"] {
        assert_eq!(fs::read(once.join(name)).unwrap(), fs::read(twice.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_tensor_that_was_only_rounded_when_it_was_stored_again_has_not_changed() {
    let (base, trained, out) = (TinyBundle::sealed(), TinyBundle::unsealed(), tempfile::tempdir().unwrap());
    let bf16 = ModelConfig { dtype: WeightDtype::Bf16, ..config() };
    fs::write(trained.file("slm/config.json"), bf16.to_json()).unwrap();
    let shapes = config().tensor_shapes();
    let learned = "model.norm.weight";
    let values = |name: &str| {
        let number = shapes.iter().position(|(known, _)| known == name).unwrap();
        let before = values(number, &shapes[number].1).into_iter();
        Ok::<_, BundleError>(before.map(|value| if name == learned { value + 1.0 } else { value }).collect())
    };
    write_safetensors(&trained.file(SLM_WEIGHTS), &shapes, WeightDtype::Bf16, values).unwrap();
    write_manifest(trained.path(), manifest()).unwrap();
    let copy = out.path().join("copy");
    compacted(trained.path(), Some(base.path()), &copy);
    assert_eq!(SafetensorsFile::open(&copy.join(SLM_CHANGES)).unwrap().names(), [learned]);
    verify(&copy).unwrap();
}

#[test]
fn a_copy_without_a_base_has_int8_matrices_and_the_rest_unchanged() {
    let (trained, out) = (trained(), tempfile::tempdir().unwrap());
    let [once, twice] = ["once", "twice"].map(|name| out.path().join(name));
    compacted(trained.path(), None, &once);
    compacted(&once, None, &twice);
    for copy in [&once, &twice] {
        verify(copy).unwrap();
        for (number, (name, shape)) in config().tensor_shapes().into_iter().enumerate() {
            let expected = trained_values(number, &name, &shape);
            let found = read(copy, &name);
            if !is_matrix(&name) {
                assert_eq!(found, expected, "{name}");
                continue;
            }
            for (found, expected) in found.chunks(shape[1]).zip(expected.chunks(shape[1])) {
                let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() <= largest / 127.0 / 2.0 + 1e-5,
                        "{name}: {found} {expected}"
                    );
                }
            }
        }
    }
    let size = |bundle: &Path| fs::metadata(bundle.join(SLM_WEIGHTS)).unwrap().len();
    assert!(size(&once) < size(trained.path()));
    let parameters =
        |bundle: &Path| summarize(&Bundle::open(bundle).unwrap()).unwrap().pop().unwrap().num_parameters;
    assert_eq!(parameters(&once), parameters(trained.path()), "scales are no parameters");
}

#[test]
fn changes_are_part_of_the_bundle_like_any_other_file() {
    let (base, trained, out) = (TinyBundle::sealed(), trained(), tempfile::tempdir().unwrap());
    let copy = out.path().join("copy");
    compacted(trained.path(), Some(base.path()), &copy);
    let changes = fs::read(copy.join(SLM_CHANGES)).unwrap();

    let mut flipped = changes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(copy.join(SLM_CHANGES), flipped).unwrap();
    assert_says(&verify(&copy).unwrap_err(), &[SLM_CHANGES, "has sha256"]);
    fs::remove_file(copy.join(SLM_CHANGES)).unwrap();
    assert_says(&Bundle::open(&copy).unwrap_err(), &[SLM_CHANGES, "is missing"]);
    fs::write(copy.join(SLM_CHANGES), &changes).unwrap();
    fs::write(copy.join(SLM_WEIGHTS), fs::read(trained.file(SLM_WEIGHTS)).unwrap()).unwrap();
    assert_says(&verify(&copy).unwrap_err(), &[SLM_WEIGHTS, "was made with"]);
    fs::remove_file(copy.join(SLM_WEIGHTS)).unwrap();
    let published = ["is missing", "published ones (origin: made by a test)", "make llm"];
    assert_says(&Bundle::open(&copy).unwrap_err(), &published);

    fs::write(base.file(SLM_CHANGES), &changes).unwrap();
    assert_says(
        &Bundle::open(base.path()).unwrap_err(),
        &[SLM_CHANGES, "lies beside the weights", "remove it"],
    );
}

#[test]
fn changes_of_other_weights_are_refused_by_their_names_and_shapes() {
    for (name, shape, problem) in
        [("model.norm.weight", 9, "has [8]"), ("model.mean.weight", 8, "has no such tensor")]
    {
        let tiny = TinyBundle::unsealed();
        let shapes = [(name.to_owned(), vec![shape])];
        let zeros = |_: &str| Ok::<_, BundleError>(vec![0.0; shape]);
        write_safetensors(&tiny.file(SLM_CHANGES), &shapes, WeightDtype::F32, zeros).unwrap();
        write_manifest(tiny.path(), manifest()).unwrap();
        assert_says(
            &verify(tiny.path()).unwrap_err(),
            &["changes.safetensors", name, problem, "these changes belong to other weights"],
        );
    }
}
