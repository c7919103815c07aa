//! A real S3 server for tests: SeaweedFS, on free ports of this machine, in a temporary directory, killed
//! when the last test that holds it ends, by a panic or not.
//!
//! Needs the environment variable `BATON_WEED`, the path of the `weed` binary. `make test` fetches the pinned
//! binary (`scripts/setup.py tools`) and sets the variable. Contains no S3 client: buckets and files are made
//! and read through the server's own file interface, so that the tested code does not check itself.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) const ACCESS_KEY: &str = "test-key";
pub(crate) const SECRET_KEY: &str = "test-secret";

/// It takes a few seconds on an idle machine.
const START_DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// For each of its ports, the server also opens that port plus this number.
const GRPC_PORT_OFFSET: u16 = 10_000;

/// A running server.
pub(crate) struct Seaweed {
    process: Child,
    directory: TempDir,
    s3_port: u16,
    filer_port: u16,
}

impl Seaweed {
    /// The server that all tests of this process share.
    pub(crate) fn shared() -> Arc<Seaweed> {
        static RUNNING: Mutex<Weak<Seaweed>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Seaweed::start());
            *running = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Seaweed {
        let weed = std::env::var_os("BATON_WEED").expect(
            "BATON_WEED is not set: run the tests with `make test`, which fetches SeaweedFS and sets it to \
             the binary",
        );
        let directory = tempfile::tempdir().unwrap();
        let credentials = format!(r#"[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}]"#);
        let config = format!(
            r#"{{"identities":[{{"name":"test","credentials":{credentials},"actions":["Admin"]}}]}}"#
        );
        fs::write(directory.path().join("s3.json"), config).unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        // Each bucket takes several volumes, so the limit is high.
        let [master, volume, filer_port, s3_port] = free_ports();
        let process = Command::new(&weed)
            .current_dir(directory.path())
            .args(["-logtostderr=true", "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .args([format!("-master.port={master}"), format!("-volume.port={volume}")])
            .args(["-master.volumeSizeLimitMB=64", "-volume.max=1000", "-master.telemetry=false"])
            .args(["-filer".to_owned(), format!("-filer.port={filer_port}")])
            .args(["-s3".to_owned(), format!("-s3.port={s3_port}"), "-s3.config=s3.json".to_owned()])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}; run `make test`", weed.display()));
        let mut server = Seaweed { process, directory, s3_port, filer_port };
        server.wait_until_ready();
        server
    }

    /// Where clients connect to.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3_port)
    }

    /// The port of the endpoint.
    pub(crate) fn s3_port(&self) -> u16 {
        self.s3_port
    }

    /// Makes an empty bucket.
    pub(crate) fn create_bucket(&self, name: &str) {
        let (status, _) = self.filer("POST", &format!("{name}/"), b"").unwrap();
        assert_eq!(status, 201, "bucket {name}");
    }

    /// Writes an object. `path` is `bucket/key`.
    pub(crate) fn put_file(&self, path: &str, bytes: &[u8]) {
        let (status, _) = self.filer("PUT", path, bytes).unwrap();
        assert_eq!(status, 201, "{path}");
    }

    /// Reads an object; `None` if it does not exist. `path` is `bucket/key`; a directory, `bucket/key/`, is
    /// read as its listing in JSON.
    pub(crate) fn get_file(&self, path: &str) -> Option<Vec<u8>> {
        let (status, body) = self.filer("GET", path, b"").unwrap();
        (status == 200).then_some(body)
    }

    fn filer(&self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        exchange(self.filer_port, method, &format!("/buckets/{path}"), body)
    }

    /// All parts of the server answer, and a file can be written.
    fn is_ready(&self) -> bool {
        let answers =
            |answer: io::Result<(u16, Vec<u8>)>, wanted| answer.is_ok_and(|(status, _)| status == wanted);
        answers(exchange(self.s3_port, "GET", "/healthz", b""), 200)
            && answers(self.filer("PUT", "ready/probe", b"probe"), 201)
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.is_ready() {
            let ended = self.process.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                let last_lines: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("SeaweedFS did not start ({ended:?}); last lines first: {last_lines:#?}");
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        // SIGKILL: there is nothing to save, and an orderly end takes it half a minute.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One HTTP request, the whole answer.
fn exchange(port: u16, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let length = body.len();
    write!(
        connection,
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\nContent-Length: \
         {length}\r\n\r\n"
    )?;
    connection.write_all(body)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(malformed)?;
    let head = String::from_utf8_lossy(&answer[..head_end]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, answer.split_off(head_end + 4)))
}

/// Ports that are free with their gRPC twins, below those that the system hands out by itself. Test processes
/// that run side by side begin to look in different places.
fn free_ports<const NUM_PORTS: usize>() -> [u16; NUM_PORTS] {
    const FIRST: u32 = 11_000;
    const NUM_CANDIDATES: u32 = 9_000;
    let start = std::process::id().wrapping_mul(97);
    let candidates = (0..NUM_CANDIDATES).map(|index| (FIRST + (start + index) % NUM_CANDIDATES) as u16);
    let is_free = |port: &u16| {
        [*port, port + GRPC_PORT_OFFSET]
            .iter()
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
    };
    let free: Vec<u16> = candidates.filter(is_free).take(NUM_PORTS).collect();
    free.try_into().expect("some of thousands of ports are free")
}
