//! The `baton run` process under test, and the contents of its output directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::{shared_bundle, write_small_model};

/// No wait in these tests is longer; a machine that needs more is broken.
const DEADLINE: Duration = Duration::from_secs(120);

/// A corpus, an output directory, and the flags between them.
pub(crate) struct Job {
    directory: TempDir,
    bundle: PathBuf,
    flags: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

/// A bundle of a small model of random weights, from English to Italian, in a directory. It is made once.
pub(crate) fn imported_small_model(directory: &Path) -> PathBuf {
    let (source, bundle) = (directory.join("small-model"), directory.join("bundle"));
    if !bundle.exists() {
        write_small_model(&source, 3);
        let mut import = baton();
        import.args(["bundle", "import-slm", "--source-language", "en", "--target-language", "it", "--from"]);
        let imported = Ended::from(import.arg(&source).arg("--out").arg(&bundle).output().unwrap());
        assert_eq!(imported.code, Some(0), "{}", imported.stderr);
    }
    bundle
}

impl Job {
    /// A job without inputs yet, over the shared bundle.
    pub(crate) fn new() -> Self {
        Job { directory: tempfile::tempdir().unwrap(), bundle: shared_bundle().to_owned(), flags: Vec::new() }
    }

    /// A job over `num_records` short records, cut into shards of eight.
    pub(crate) fn of_records(num_records: usize) -> Self {
        Job::new().with_input("corpus.jsonl", corpus(num_records)).with_flags(&["--records-per-shard", "8"])
    }

    pub(crate) fn with_input(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        fs::create_dir_all(self.inputs()).unwrap();
        fs::write(self.inputs().join(name), contents).unwrap();
        self
    }

    pub(crate) fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    pub(crate) fn without_flags(mut self) -> Self {
        self.flags.clear();
        self
    }

    pub(crate) fn with_bundle(mut self, bundle: &Path) -> Self {
        self.bundle = bundle.to_owned();
        self
    }

    pub(crate) fn inputs(&self) -> PathBuf {
        self.directory.path().join("inputs")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    /// The command line that runs the job.
    pub(crate) fn command(&self) -> Command {
        self.command_to(&self.output())
    }

    /// The command line that runs the job with another output directory.
    pub(crate) fn command_to(&self, output: &Path) -> Command {
        let mut command = baton();
        let (bundle, inputs) = (&self.bundle, self.inputs());
        command.arg("run").arg("--bundle").arg(bundle).arg("--input").arg(inputs).arg("--output").arg(output);
        command.args(&self.flags);
        command
    }

    /// Runs the job to its end.
    pub(crate) fn run(&self) -> Ended {
        Ended::from(self.command().output().unwrap())
    }

    /// Runs the job and checks its exit code.
    pub(crate) fn run_expecting(&self, code: i32) -> Ended {
        let ended = self.run();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        ended
    }

    /// Starts the job and lets it run.
    pub(crate) fn start(&self) -> Child {
        self.command().stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until the running job has committed `num_parts` parts.
    pub(crate) fn wait_for_parts(&self, num_parts: usize, child: &mut Child) {
        let deadline = Instant::now() + DEADLINE;
        while self.num_parts() < num_parts {
            assert!(Instant::now() < deadline, "{num_parts} parts did not appear in time");
            assert_eq!(child.try_wait().unwrap(), None, "the job ended before it had {num_parts} parts");
            std::thread::yield_now();
        }
    }

    pub(crate) fn num_parts(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.output()) else { return 0 };
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("part-"))
            .count()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.output().join("_SUCCESS").exists()
    }

    /// Every visible file of the output directory by its relative path, but for the manifest's timings and
    /// the report, which tells of time. Hidden are the unfinished objects of runs that died, which the store
    /// removes in time.
    pub(crate) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let mut contents = BTreeMap::new();
        collect(&self.output(), "", &mut contents);
        if let Some(manifest) = contents.get_mut("_SUCCESS") {
            let mut json: Value = serde_json::from_slice(manifest).unwrap();
            json["timings"] = Value::Null;
            *manifest = json.to_string().into_bytes();
            for report in ["_REPORT.json", "_REPORT.html"] {
                assert!(contents.remove(report).is_some(), "a finished job has {report}");
            }
        }
        contents
    }

    /// All output rows, in part order.
    pub(crate) fn outputs(&self) -> Vec<Value> {
        self.rows("part-")
    }

    /// All error rows, in part order.
    pub(crate) fn errors(&self) -> Vec<Value> {
        self.rows("errors/part-")
    }

    fn rows(&self, prefix: &str) -> Vec<Value> {
        let contents = self.contents();
        let parts = contents.iter().filter(|(name, _)| name.starts_with(prefix));
        let lines = parts.flat_map(|(_, bytes)| std::str::from_utf8(bytes).unwrap().lines());
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Ended { code: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() }
    }
}

impl Ended {
    /// The one line that says why the run failed; it must say each of `pieces`.
    pub(crate) fn assert_error(&self, pieces: &[&str]) {
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one error line expected in: {}", self.stderr);
        assert!(
            self.stderr.ends_with(&format!("{}\n", errors[0])),
            "the error is the last line: {}",
            self.stderr
        );
        for piece in pieces {
            assert!(errors[0].contains(piece), "`{piece}` is not in: {}", errors[0]);
        }
    }
}

/// The command under test.
pub(crate) fn baton() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.stdin(Stdio::null());
    command
}

/// JSONL of `num_records` records with ids `r0`, `r1`, ... and texts of varied length.
pub(crate) fn corpus(num_records: usize) -> String {
    let words = ["archive", "of", "small", "tools", "reads", "mail", "and", "writes", "logs", "quickly"];
    let line = |index: usize| {
        let num_words = 1 + index * 7 % 9;
        let text: Vec<&str> = (0..num_words).map(|word| words[(index + word * word) % words.len()]).collect();
        format!("{{\"id\":\"r{index}\",\"text\":\"{} {index}\",\"lang\":\"en\"}}\n", text.join(" "))
    };
    (0..num_records).map(line).collect()
}

fn collect(directory: &Path, prefix: &str, contents: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file_name = path.file_name().unwrap().to_str().unwrap();
        let name = format!("{prefix}{file_name}");
        if file_name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, &format!("{name}/"), contents);
        } else {
            contents.insert(name, fs::read(&path).unwrap());
        }
    }
}
