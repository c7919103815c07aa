//! Whole jobs through a coordinator, encoders and decoders in processes of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use baton_cluster_tests::{Ended, Process, Worker, command, wait_for};
use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::shared_bundle;
use crate::certificates::Certificates;

pub(crate) const NUM_RECORDS: usize = 240;
const RECORDS_PER_SHARD: &str = "8";

/// A word that every record has, and nothing else.
pub(crate) const SECRET_WORD: &str = "xylophone";

/// A corpus, and a directory for outputs.
pub(crate) struct Job {
    directory: TempDir,
    bundle: PathBuf,
    flags: Vec<String>,
}

impl Job {
    pub(crate) fn new() -> Job {
        let line = |index: usize| {
            let words = ["small tools", "of mail", "and logs", "read quickly"][index % 4];
            format!("{{\"id\":\"r{index}\",\"text\":\"{SECRET_WORD} {words} {index}\"}}\n")
        };
        let corpus = (0..NUM_RECORDS).map(line).collect::<String>();
        Job::of(shared_bundle(), &corpus, &["--records-per-shard", RECORDS_PER_SHARD])
    }

    /// Of this corpus in JSONL, run with this bundle and these flags.
    pub(crate) fn of(bundle: &Path, corpus: &str, flags: &[&str]) -> Job {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("corpus.jsonl"), corpus).unwrap();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Job { directory, bundle: bundle.to_owned(), flags }
    }

    fn with_flags(mut self, flags: &[&str]) -> Job {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs all roles in one process; a cluster's output must equal this one.
    pub(crate) fn run_in_one_process(&self) -> BTreeMap<String, Vec<u8>> {
        let ended = self.run("reference", &[]);
        assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
        self.contents("reference")
    }

    /// Runs all roles in one process, with these flags.
    pub(crate) fn run(&self, output: &str, flags: &[&str]) -> Ended {
        let mut baton = command("baton");
        baton.arg("run");
        self.add_flags(&mut baton, output);
        baton.args(flags);
        Process::start(baton).wait()
    }

    /// Starts a coordinator.
    pub(crate) fn coordinate(
        &self,
        output: &str,
        encoders: &[String],
        decoders: &[String],
        flags: &[&str],
    ) -> Process {
        let mut coordinator = command("baton-coordinator");
        self.add_coordinator_flags(&mut coordinator, output, encoders, decoders);
        coordinator.args(flags);
        Process::start(coordinator)
    }

    pub(crate) fn add_coordinator_flags(
        &self,
        command: &mut Command,
        output: &str,
        encoders: &[String],
        decoders: &[String],
    ) {
        self.add_flags(command, output);
        command.args(["--encoders", &encoders.join(","), "--decoders", &decoders.join(",")]);
        command.args(["--http-listen", "127.0.0.1:0", "--log-format", "json"]);
    }

    fn add_flags(&self, command: &mut Command, output: &str) {
        command.arg("--bundle").arg(&self.bundle).args(&self.flags);
        command.arg("--input").arg(self.directory.path().join("corpus.jsonl"));
        command.arg("--output").arg(self.output(output));
    }

    pub(crate) fn num_parts(&self, output: &str) -> usize {
        self.contents(output).keys().filter(|name| name.starts_with("part-")).count()
    }

    /// Parts, error rows, verdicts and results of tiers by name.
    pub(crate) fn contents(&self, output: &str) -> BTreeMap<String, Vec<u8>> {
        let mut contents = BTreeMap::new();
        for directory in ["", "errors", "_baton/shards", "_baton/tiers/0", "_baton/tiers/1"] {
            let Ok(entries) = fs::read_dir(self.output(output).join(directory)) else { continue };
            for entry in entries {
                let entry = entry.unwrap();
                let name = entry.file_name().to_str().unwrap().to_owned();
                let is_object = entry.file_type().unwrap().is_file() && !name.starts_with(['.', '_']);
                if is_object {
                    // A temporary object may be gone again.
                    let Ok(bytes) = fs::read(entry.path()) else { continue };
                    contents.insert(Path::new(directory).join(name).to_str().unwrap().to_owned(), bytes);
                }
            }
        }
        contents
    }

    pub(crate) fn check(&self, output: &str, ended: &Ended, reference: &BTreeMap<String, Vec<u8>>) {
        assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
        assert!(self.output(output).join("_SUCCESS").exists());
        let contents = self.contents(output);
        assert_eq!(contents.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
        assert!(contents == *reference, "bytes differ from those of one process");
    }
}

fn start(name: &str, flags: &[&str]) -> Worker {
    Worker::start(name, shared_bundle(), flags)
}

#[test]
fn a_cluster_makes_the_bytes_of_one_process_and_one_trace_leads_through_its_logs() {
    let job = Job::new();
    let reference = job.run_in_one_process();
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &[]));
    // The coordinator tells each lease at debug.
    let log = ["--log", "info,baton_coordinator=debug"];
    let ended = job.coordinate("cluster", &[encoder.endpoint()], &[decoder.endpoint()], &log).wait();
    job.check("cluster", &ended, &reference);

    assert!(encoder.metric("baton_encoder_prompt_tokens_total") > 0.0);
    assert!(decoder.metric("baton_decoder_output_tokens_total") > 0.0);
    assert_eq!(decoder.metric("baton_commit_seconds_count"), (NUM_RECORDS / 8) as f64);
    let part_num_bytes: usize =
        reference.iter().filter(|(name, _)| name.starts_with("part-")).map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(decoder.metric("baton_committed_bytes_total"), part_num_bytes as f64);

    let is_commit = |line: &Value| {
        let trace_id = line["span"]["trace_id"].as_str()?;
        (line["message"] == "shard is committed").then(|| trace_id.to_owned())
    };
    let (mut encoder, mut decoder) = (encoder.process, decoder.process);
    let trace_id = decoder.wait_for_log("a commit", is_commit);
    let of_the_trace = |line: &Value| (line["span"]["trace_id"] == *trace_id).then_some(());
    encoder.wait_for_log("the encoder's part of the trace", of_the_trace);
    assert!(ended.log.iter().any(|line| line.contains(&trace_id)), "{trace_id} is not in {:#?}", ended.log);
    for (log, role) in [(ended.log, "coordinator"), (encoder.log(), "encoder"), (decoder.log(), "decoder")] {
        assert!(!log.join("\n").contains(SECRET_WORD), "record text in the {role}'s log");
    }
}

#[test]
fn a_job_on_other_workers_takes_its_outputs_from_the_cache_and_no_model_runs() {
    let job = Job::new();
    let reference = job.run_in_one_process();
    let cache = job.output("cache");
    let allowed = ["--allow-output", job.directory.path().to_str().unwrap()];
    let flags = ["--cache", cache.to_str().unwrap()];
    for output in ["first", "second"] {
        let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &allowed));
        let ended = job.coordinate(output, &[encoder.endpoint()], &[decoder.endpoint()], &flags).wait();
        job.check(output, &ended, &reference);
        let num_cached = if output == "first" { 0.0 } else { NUM_RECORDS as f64 };
        if num_cached > 0.0 {
            assert_eq!(decoder.metric("baton_decoder_segments_total{origin=\"cached\"}"), num_cached);
            assert_eq!(encoder.metric("baton_encoder_prompt_tokens_total"), 0.0);
            assert_eq!(decoder.metric("baton_decoder_output_tokens_total"), 0.0);
        } else {
            assert_eq!(
                decoder.metric("baton_decoder_segments_total{origin=\"decoded\"}"),
                NUM_RECORDS as f64
            );
        }
    }

    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &allowed));
    let elsewhere = tempfile::tempdir().unwrap();
    let flags = ["--cache", elsewhere.path().to_str().unwrap()];
    let mut refused = job.coordinate("refused", &[encoder.endpoint()], &[decoder.endpoint()], &flags);
    wait_for("the refusal", || {
        let log = refused.log().join("\n");
        (log.contains("output or cache") && log.contains("--allow-output")).then_some(())
    });
    if refused.is_running() {
        refused.kill();
    }
    assert_eq!(job.num_parts("refused"), 0);
}

#[test]
fn mutual_tls_and_a_token_change_no_byte_and_a_coordinator_without_them_is_refused() {
    let job = Job::new();
    let reference = job.run_in_one_process();
    let certificates = Certificates::new();
    let flags = certificates.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (encoder, decoder) = (start("baton-encoder", &flags), start("baton-decoder", &flags));
    let (encoders, decoders) = ([encoder.tls_endpoint()], [decoder.tls_endpoint()]);
    let ended = job.coordinate("cluster", &encoders, &decoders, &flags).wait();
    job.check("cluster", &ended, &reference);

    let without_token: Vec<&str> = flags.iter().copied().take(flags.len() - 2).collect();
    let mut refused = job.coordinate("refused", &encoders, &decoders, &without_token);
    wait_for("the refusal", || {
        let log = refused.log().join("\n");
        (log.contains("bearer token") && log.contains("--auth-token-file")).then_some(())
    });
    if refused.is_running() {
        refused.kill();
    }
    assert_eq!(job.num_parts("refused"), 0);
}

#[test]
fn a_decoder_that_is_asked_to_stop_finishes_its_shards_and_another_one_does_the_rest() {
    let job = Job::new().with_flags(&["--retry-beams", "0"]);
    let reference = job.run_in_one_process();
    let encoder = start("baton-encoder", &[]);
    // One row at a time, so that the job lasts.
    let (leaving, staying) =
        (start("baton-decoder", &["--decode-slots", "1"]), start("baton-decoder", &["--decode-slots", "1"]));
    let decoders = [leaving.endpoint(), staying.endpoint()];
    let coordinator = job.coordinate("cluster", &[encoder.endpoint()], &decoders, &[]);
    wait_for("a commit of the decoder that will leave", || {
        (leaving.metric("baton_commit_seconds_count") >= 1.0).then_some(())
    });
    leaving.process.signal("TERM");
    let left = leaving.process.wait();
    assert_eq!(left.code, Some(0), "{:#?}", left.log);
    assert!(!left.log.iter().any(|line| line.contains("giving up shards")), "{:#?}", left.log);
    assert!(job.num_parts("cluster") < reference.len() / 2, "it left too late for this test to say anything");
    job.check("cluster", &coordinator.wait(), &reference);
    assert!(staying.metric("baton_commit_seconds_count") >= 1.0);
}

#[test]
fn a_job_runs_when_nobody_reads_its_output() {
    let job = Job::new();
    let mut baton = command("baton");
    baton.arg("run").args(["--log", "debug"]);
    job.add_flags(&mut baton, "out");
    let mut process = baton.stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stderr.take()); // whatever is written from now on fails
    let status = wait_for("the end of the job", || process.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(job.output("out").join("_SUCCESS").exists());
}
