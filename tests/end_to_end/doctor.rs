//! `baton doctor`, `baton completions` and `baton manual`.

use std::fs;

use crate::bundle::write_bundle;
use crate::command::baton;

#[test]
fn doctor_names_a_broken_file_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (bundle, store) = (directory.path().join("bundle"), directory.path().join("outputs"));
    write_bundle(&bundle, 1);
    let doctor = || {
        let mut command = baton();
        command.arg("doctor").arg("--bundle").arg(&bundle).arg("--store").arg(&store);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = doctor();
    assert_eq!(code, Some(0), "{said}");
    for subject in ["cpu", "device", "memory", "tmp", "clock", "bundle", "store"] {
        assert!(said.lines().any(|line| line.split_whitespace().nth(1) == Some(subject)), "{said}");
    }
    let weights = bundle.join("slm/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let (code, said) = doctor();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("FAIL bundle") && line.contains("model.safetensors")),
        "{said}"
    );
}

#[test]
fn completions_and_manual_pages_have_the_subcommands() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("pages");
    assert!(baton().arg("manual").arg(&pages).status().unwrap().success());
    for page in ["baton.1", "baton-run.1", "baton-bundle-import-slm.1", "baton-doctor.1"] {
        assert!(fs::read_to_string(pages.join(page)).unwrap().contains(".TH"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = baton().args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("import-slm"));
    }
}
