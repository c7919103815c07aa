//! Sequence-level distillation with commands alone: an LLM is fine-tuned and writes over a corpus, and a
//! small model learns from its outputs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::bundle::{MAX_PROMPT_TOKENS, shared_bundle};
use crate::command::{Job, baton};

const COLOURS: [(&str, &str); 4] =
    [("red", "rosso"), ("green", "verde"), ("blue", "blu"), ("white", "bianco")];

/// Runs a command to its end; returns its stdout.
fn expect_success(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn config(train: &Path, fields: [&str; 2], llm: &Path) -> String {
    let [source_field, target_field] = fields;
    format!(
        r#"
train = ["{train}"]
dev = "{train}"
source_field = "{source_field}"
target_field = "{target_field}"
llm = "{llm}"
llm_layer = 1
template = "<s>{{text}}</s>"
max_prompt_tokens = {MAX_PROMPT_TOKENS}
max_response_tokens = 24

[slm]
d_model = 32
blocks = 1
heads = 4
kv_heads = 2
intermediate = 64
vocab_size = 320
initialization = "random"

[hyperparameters]
steps = 3
batch_tokens = 256
learning_rate = 0.01
warmup_steps = 1
weight_decay = 0.0
label_smoothing = 0.0
dropout = 0.0
clip_norm = 1.0
seed = 1
validate_every = 50
validation_pairs = 20

[llm_training]
prompt_end = "<s>"
eos_token = "</s>"
max_new_tokens = 24
lora = {{ rank = 8, alpha = 16.0, targets = [
    "q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
] }}

[bundle]
name = "colours"
task = {{ kind = "translation", source = "en", target = "it" }}
licence = "CC0-1.0"
data_origin = "made by the test"
llm_origin = "random"
llm_licence = "CC0-1.0"
"#,
        train = train.display(),
        llm = llm.display(),
    )
}

#[test]
fn a_small_model_learns_from_the_outputs_of_a_fine_tuned_llm() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let llm = shared_bundle().join("llm");
    let train = |config: &str, out: &str, flags: &[&str]| {
        fs::write(at("train.toml"), config).unwrap();
        let mut command = baton();
        command
            .arg("train")
            .arg(at("train.toml"))
            .arg("--out")
            .arg(at(out))
            .args(["--threads", "1"])
            .args(flags);
        expect_success(&mut command);
        at(out).join("bundle")
    };

    // The LLM learns from references.
    let pairs: Vec<String> = (0..40)
        .map(|i| COLOURS[i % COLOURS.len()])
        .map(|(source, target)| json!({ "source": source, "target": target }).to_string())
        .collect();
    fs::write(at("pairs.jsonl"), pairs.join("\n")).unwrap();
    let references = config(&at("pairs.jsonl"), ["source", "target"], &llm);
    let tuned = train(&references, "tuned", &["--llm", "--steps", "300"]);
    // Here a right token has three quarters of the probability on average, so rounding decides nothing.
    let loss = last_validation_loss(&at("tuned"));
    assert!(loss < 0.35, "the LLM has learned its four pairs only to {loss} nats a token");

    // It writes over texts.
    let corpus = || COLOURS.map(|(text, _)| json!({ "text": text, "id": text }).to_string()).join("\n");
    let write = |bundle: &Path, flags: &[&str]| {
        let job = Job::new().with_bundle(bundle).with_input("corpus.jsonl", corpus()).with_flags(flags);
        job.run_expecting(0);
        job
    };
    let flags = ["--mode", "llm", "--weights", "f32", "--keep-fields"];
    let written = write(&tuned, &flags);
    let outputs: BTreeSet<_> =
        written.outputs().iter().map(|row| row["output"].as_str().unwrap().to_owned()).collect();
    assert!(COLOURS.iter().all(|(_, target)| outputs.contains(*target)), "{outputs:?}");

    // A small model learns from the output directory, unchanged.
    let distilled = config(&written.output(), ["fields.text", "output"], &llm);
    let small = train(&distilled, "small", &[]);
    assert_eq!(write(&small, &[]).outputs().len(), COLOURS.len());

    // One bundle serves both, and its LLM writes the same as alone.
    let mut command = baton();
    command.args(["bundle", "add-llm"]).arg(&small).arg("--from").arg(&tuned);
    assert!(expect_success(&mut command).contains("modes hybrid, llm, digest"));
    expect_success(baton().args(["bundle", "verify"]).arg(&small));
    assert_eq!(write(&small, &flags).outputs(), written.outputs());

    // If a small model writes the LLM's tokens, it drafts for the fine-tuned LLM and still reads the original
    // one.
    let drafting = reading_bundle(&at("drafting"));
    expect_success(
        baton().args(["bundle", "add-llm", "--verified"]).arg(&drafting).arg("--from").arg(&tuned),
    );
    let verified = write(&drafting, &["--mode", "verified", "--weights", "f32", "--keep-fields"]);
    assert_eq!(verified.outputs(), written.outputs());

    // The other small model has its own tokenizer, so it cannot draft.
    let refused = baton()
        .args(["bundle", "add-llm", "--verified"])
        .arg(&small)
        .arg("--from")
        .arg(&tuned)
        .output()
        .unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && message.contains("in mode `verified` the LLM checks the SLM's tokens"),
        "{message}"
    );
}

/// In nats a token.
fn last_validation_loss(run: &Path) -> f64 {
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut losses =
        events.filter(|event| event["event"] == "validation").map(|event| event["loss"].as_f64());
    losses.next_back().flatten().expect("a run validates at its end")
}

/// The shared bundle, built again with an LLM that does not write yet.
fn reading_bundle(directory: &Path) -> PathBuf {
    crate::bundle::write_bundle(directory, 1);
    let manifest = directory.join("bundle.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    json["modes"] = json!(["hybrid"]);
    json["generation"] = json!({});
    json["llm"].as_object_mut().unwrap().remove("writer");
    fs::write(&manifest, json.to_string()).unwrap();
    directory.to_owned()
}

#[test]
fn an_llm_becomes_a_writer_by_flags_alone() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = reading_bundle(&directory.path().join("bundle"));
    let manifest = bundle.join("bundle.json");

    let refused = baton().args(["bundle", "add-llm", "--prompt-end", "<s>"]).arg(&bundle).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    let flags = ["--prompt-end", "\\n<s>", "--eos-token", "</s>", "--max-new-tokens", "7", "--verified"];
    expect_success(baton().args(["bundle", "add-llm"]).args(flags).arg(&bundle));
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(json["modes"], json!(["hybrid", "llm", "verified"]));
    assert_eq!(
        json["llm"]["writer"],
        json!({ "prompt_end": "\n<s>", "eos_token": "</s>", "max_new_tokens": 7 })
    );
    let job = Job::new().with_bundle(&bundle).with_input("corpus.jsonl", crate::command::corpus(5));
    job.with_flags(&["--mode", "verified"]).run_expecting(0);
}
