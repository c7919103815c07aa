//! Starts Baton's commands as real processes on this machine and watches them: their logs, their HTTP pages,
//! their exit codes.
//!
//! The binaries are those in the build directory beside the test: `cargo build --workspace --bins` makes
//! them, as `make test` does.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a helper that fails is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No wait in these tests is longer; a machine that needs more is broken.
pub const DEADLINE: Duration = Duration::from_secs(120);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Where one of Baton's programs lies.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let build_directory =
        test.parent().and_then(Path::parent).expect("tests lie in deps/ of the build directory");
    let binary = build_directory.join(name);
    assert!(binary.exists(), "{} is missing: run cargo build --workspace --bins", binary.display());
    binary
}

/// One of Baton's commands, not started yet. Its environment excludes settings of the tester's shell.
#[must_use]
pub fn command(name: &str) -> Command {
    command_of(&program(name))
}

/// The same of a program that lies elsewhere.
#[must_use]
pub fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if ["BATON_", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Waits until `condition` gives something.
///
/// # Panics
/// It does not in time.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(POLL_INTERVAL);
    }
}

/// A running process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none if a signal killed it.
    pub code: Option<i32>,
    /// Its lines on stderr.
    pub log: Vec<String>,
}

impl Process {
    /// Starts a command, whose stderr is collected.
    #[must_use]
    pub fn start(mut command: Command) -> Process {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in stderr.lines() {
                lines.lock().unwrap().push(line.unwrap());
            }
        });
        Process { child, log, reader: Some(reader) }
    }

    /// The lines on stderr so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a log line in JSON from which `find` gives something.
    pub fn wait_for_log<T>(&mut self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        wait_for(what, || {
            let exit = self.child.try_wait().unwrap();
            let lines = self.log();
            let found = lines.iter().find_map(|line| find(&serde_json::from_str(line).ok()?));
            assert!(found.is_some() || exit.is_none(), "{what}: the process has ended: {lines:#?}");
            found
        })
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let status = kill.arg(format!("-{signal}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success(), "the process is gone already");
    }

    /// Kills it, as the power does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    #[must_use]
    pub fn wait(mut self) -> Ended {
        let status: ExitStatus = wait_for("the end of a process", || self.child.try_wait().unwrap());
        self.reader.take().expect("waited for once").join().unwrap();
        Ended { code: status.code(), log: self.log() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An encoder or a decoder that serves.
#[derive(Debug)]
pub struct Worker {
    /// Its process.
    pub process: Process,
    /// Address of its gRPC port.
    pub grpc: SocketAddr,
    /// Address of its HTTP port.
    pub http: SocketAddr,
}

impl Worker {
    /// Starts `baton-encoder` or `baton-decoder` on free ports and waits until it serves.
    #[must_use]
    pub fn start(name: &str, bundle: &Path, flags: &[&str]) -> Worker {
        Worker::start_by(command(name), bundle, flags)
    }

    /// The same by a command that has no arguments yet.
    #[must_use]
    pub fn start_by(command: Command, bundle: &Path, flags: &[&str]) -> Worker {
        Self::start_at(command, bundle, "127.0.0.1:0", flags)
    }

    /// The same with a gRPC port that is known.
    #[must_use]
    pub fn start_at(mut command: Command, bundle: &Path, listen: &str, flags: &[&str]) -> Worker {
        command.arg("--bundle").arg(bundle).args(["--listen", listen, "--http-listen", "127.0.0.1:0"]);
        command.args(["--log-format", "json"]).args(flags);
        let mut process = Process::start(command);
        let mut address = |message: &str| {
            process.wait_for_log(message, |line| {
                (line["message"] == message).then(|| line["address"].as_str().unwrap().parse().unwrap())
            })
        };
        let (http, grpc) = (address("serving HTTP"), address("serving gRPC"));
        Worker { process, grpc, http }
    }

    /// Its endpoint without TLS.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Its endpoint with TLS, by a name that certificates of these tests have.
    #[must_use]
    pub fn tls_endpoint(&self) -> String {
        format!("https://localhost:{}", self.grpc.port())
    }

    /// The value of a metric without labels.
    ///
    /// # Panics
    /// No metric has that name.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let page = page(self.http, "/metrics").1;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        wait_for(name, || (self.metric(name) == value).then_some(()));
    }
}

/// Status code and body of a page.
#[must_use]
pub fn page(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
