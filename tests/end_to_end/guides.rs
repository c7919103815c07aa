//! The guides under `docs/`. The test runs each command of a page, in a workspace with tiny bundles instead
//! of the real ones.
//!
//! Blocks marked `sh` run. Blocks marked `console` need a network, a cluster or hours and are shown only.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use baton_job::FailureCode;

use crate::bundle::{write_bundle, write_deep_bundle};
use crate::command::corpus;

/// The files that a page's commands expect, as in a clone of the repository after `make llm`.
struct Workspace {
    directory: tempfile::TempDir,
}

impl Workspace {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["en-pt", "en-it", "description-synopsis"] {
            write_guide_bundle(&directory.path().join("models").join(name), write_bundle);
        }
        write_guide_bundle(&directory.path().join("models/qwen3-8b-nllb"), write_deep_bundle);
        fs::write(directory.path().join("corpus.jsonl"), corpus(40)).unwrap();
        Workspace { directory }
    }

    /// Runs `script` with the built commands on the path; all processes that it started end with it.
    fn run(&self, page: &Path, script: &str) {
        let binaries = Path::new(env!("CARGO_BIN_EXE_baton")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", script]).current_dir(self.directory.path()).env("PATH", path);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON_"))
        {
            shell.env_remove(name);
        }
        shell.env("HOME", self.directory.path()).stdin(Stdio::null()).process_group(0);
        let log = self.directory.path().join("guide.log");
        let log_file = fs::File::create(&log).unwrap();
        shell.stdout(log_file.try_clone().unwrap()).stderr(log_file);
        let mut child = shell.spawn().unwrap();
        let status = child.wait().unwrap();
        let group = format!("-{}", child.id());
        // Ends the background processes of the guide.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let said = fs::read_to_string(&log).unwrap();
        assert!(status.success(), "{}: {status}\n{script}\n--- it said:\n{said}", page.display());
    }
}

/// Writes a bundle that reads texts of a line or two.
fn write_guide_bundle(directory: &Path, write: fn(&Path, u64)) {
    write(directory, 1);
    let path = directory.join("bundle.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["limits"]["max_prompt_tokens"] = 200.into();
    fs::write(path, manifest.to_string()).unwrap();
}

/// The `sh` blocks of a page, one after the other, as one script.
fn script_of(page: &str) -> String {
    let mut script = String::new();
    let mut in_block = false;
    for line in page.lines() {
        match (in_block, line.trim_start()) {
            (false, "```sh") => in_block = true,
            (true, "```") => in_block = false,
            (true, _) => {
                script.push_str(line);
                script.push('\n');
            }
            (false, _) => {}
        }
    }
    script
}

/// Fixed ports of a page's services become ports that are free here.
fn with_free_ports(script: &str) -> String {
    let mut script = script.to_owned();
    for port in ["7001", "7002", "7011", "9401", "9402", "9403", "9411", "9464"] {
        if script.contains(&format!("127.0.0.1:{port}")) {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            script = script.replace(&format!("127.0.0.1:{port}"), &free.to_string());
        }
    }
    script
}

fn guides() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let files =
        |directory: &str| fs::read_dir(docs.join(directory)).unwrap().map(|entry| entry.unwrap().path());
    let pages = files("how-to").chain(files("how-to/recipes"));
    let mut pages: Vec<PathBuf> = pages.filter(|path| path.is_file()).collect();
    pages.push(docs.join("get-started.md"));
    pages.push(docs.join("quality.md"));
    pages.sort();
    pages
}

#[test]
fn every_command_of_a_guide_runs() {
    let mut num_commands = 0;
    for page in guides() {
        let script = script_of(&fs::read_to_string(&page).unwrap());
        num_commands += script.lines().filter(|line| line.contains("baton")).count();
        if !script.is_empty() {
            Workspace::new().run(&page, &with_free_ports(&script));
        }
    }
    assert!(num_commands >= 20, "only {num_commands} commands were found: are blocks still marked `sh`?");
}

#[test]
fn every_link_between_pages_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    for folder in ["docs", "docs/how-to", "docs/reference", "docs/explanation", "docs/experiments"] {
        let entries = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let targets =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = page.parent().unwrap().join(target.split('#').next().unwrap());
            assert!(file.exists(), "{}: {target} leads nowhere", page.display());
        }
    }
}

#[test]
fn the_reference_explains_every_code_of_an_error_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/exit-codes.md");
    let text = fs::read_to_string(page).unwrap();
    for code in FailureCode::ALL {
        assert!(text.contains(&format!("| `{code}` | ")), "{code} is not explained");
    }
}
