//! Coordinators, encoders and decoders as real processes, with proxies on every connection, or with a network
//! of namespaces between them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;

use crate::corpus::{self, Files};
use crate::envoy::{Envoy, Route};
use crate::link::Link;
use crate::namespaces::Network;
use crate::ports::free_port;
use crate::process::{Description, Supervised};
use crate::schedule::{Links, NUM_DECODERS, NUM_ENCODERS, Plan, Process, World};
use crate::storage::Storage;

const GRPC_PORT: u16 = 7000;
const HTTP_PORT: u16 = 9464;

/// About a third of the records go on to the second tier.
const CASCADE_THRESHOLD: &str = "-2.5";

const START_DEADLINE: Duration = Duration::from_secs(300);

/// How fast the coordinators notice and forgive: the defaults are for machines that fail once a week.
const COORDINATOR_FLAGS: [&str; 6] =
    ["--lease-ttl-s", "3", "--grace-period-s", "10", "--log", "info,baton_coordinator=debug"];
/// Makes a program end with the suite, however that ends.
const MORTAL: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];
const WORKER_FLAGS: [&str; 4] = ["--grace-period-s", "10", "--log", "info"];

/// The common parts of all runs.
pub(crate) struct Site {
    pub(crate) bundle: PathBuf,
    pub(crate) storage: Arc<Storage>,
    pub(crate) files: Files,
    pub(crate) cascade: bool,
}

/// All processes of one run. They end when it is dropped.
pub(crate) struct Cluster {
    pub(crate) processes: Vec<Supervised>,
    pub(crate) links: Vec<(Links, Link)>,
    pub(crate) envoy: Option<Envoy>,
    pub(crate) network: Option<Network>,
    plan: Plan,
    layout: Layout,
    _runtime: Runtime,
}

/// Where everything is: enough to write any process's command line.
#[derive(Clone)]
struct Layout {
    directory: PathBuf,
    bundle: PathBuf,
    job_flags: Vec<String>,
    environment: Vec<(&'static str, String)>,
    foreign_variables: &'static [&'static str],
    /// The encoders that coordinators are told.
    encoders: Vec<SocketAddr>,
    decoders: Vec<SocketAddr>,
    /// The encoder that the others dial, if the LLM is split.
    reader: Option<SocketAddr>,
    workers: Vec<Place>,
}

/// Where one worker listens.
#[derive(Clone, Copy)]
struct Place {
    process: Process,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Cluster {
    /// Starts everything that runs from the beginning. Logs and configurations are written into `directory`.
    pub(crate) fn start(plan: &Plan, directory: &Path, site: &Site, output: &str) -> anyhow::Result<Cluster> {
        let storage = &site.storage;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let workers = (0..NUM_ENCODERS).map(Process::Encoder).chain((0..NUM_DECODERS).map(Process::Decoder));
        let workers = workers.chain(plan.has_reader.then_some(Process::Reader));
        let (network, workers) = match plan.world {
            World::Namespaces => {
                let num_workers = NUM_ENCODERS + NUM_DECODERS + usize::from(plan.has_reader);
                let network = Network::create(plan.num_coordinators + num_workers)?;
                let place = |(index, process)| {
                    let address = IpAddr::V4(network.host(plan.num_coordinators + index).address());
                    let [grpc, http] = [GRPC_PORT, HTTP_PORT].map(|port| SocketAddr::new(address, port));
                    Place { process, grpc, http }
                };
                let workers: Vec<Place> = workers.enumerate().map(place).collect();
                (Some(network), workers)
            }
            World::Local | World::S3 => {
                let place =
                    |process| Place { process, grpc: free_loopback_port(), http: free_loopback_port() };
                (None, workers.map(place).collect())
            }
        };

        let mut links = Vec::new();
        let mut envoy = None;
        let mut dialled: Vec<SocketAddr> = workers.iter().map(|place| place.grpc).collect();
        let mut endpoint = storage.endpoint();
        if network.is_none() {
            let route = |place: &Place| Route {
                links: if matches!(place.process, Process::Encoder(_) | Process::Reader) {
                    Links::Encoders
                } else {
                    Links::Decoders
                },
                listen: free_loopback_port(),
                target: place.grpc,
            };
            let routes: Vec<Route> = workers.iter().map(route).collect();
            envoy = Some(Envoy::start(directory, free_port(), &routes)?);
            for (route, dialled) in routes.iter().zip(&mut dialled) {
                let link = runtime.block_on(Link::open(route.listen))?;
                *dialled = link.address();
                links.push((route.links, link));
            }
            if let Some(address) = &mut endpoint {
                let link = runtime.block_on(Link::open(*address))?;
                *address = link.address();
                links.push((Links::Storage, link));
            }
        }

        let (environment, foreign_variables) = storage.environment(endpoint);
        let layout = Layout {
            directory: directory.to_owned(),
            bundle: site.bundle.clone(),
            job_flags: site.flags_of(plan, output)?,
            environment,
            foreign_variables,
            encoders: dialled[..NUM_ENCODERS].to_vec(),
            decoders: dialled[NUM_ENCODERS..NUM_ENCODERS + NUM_DECODERS].to_vec(),
            reader: plan.has_reader.then(|| dialled[NUM_ENCODERS + NUM_DECODERS]),
            workers,
        };
        let mut cluster = Cluster {
            processes: Vec::new(),
            links,
            envoy,
            network,
            plan: plan.clone(),
            layout,
            _runtime: runtime,
        };
        cluster.add_all()?;
        Ok(cluster)
    }

    fn add_all(&mut self) -> anyhow::Result<()> {
        for place in self.layout.workers.clone() {
            let command = self.worker_command(&place);
            self.add(place.process, place.http, command, &place.process.to_string());
        }
        for index in 0..self.plan.num_coordinators {
            self.add_coordinator(index, "");
        }
        let plan = self.plan.clone();
        let (coordinators, workers): (Vec<_>, Vec<_>) =
            self.processes.iter_mut().partition(|process| process.is_coordinator());
        let mut workers: Vec<_> =
            workers.into_iter().filter(|worker| plan.starts_with(worker.process)).collect();
        workers.iter_mut().try_for_each(|worker| worker.start())?;
        // Faults are counted in work: a machine that takes a minute to load libtorch five times gets that
        // minute.
        let deadline = Instant::now() + START_DEADLINE;
        while let Some(late) = workers.iter().find(|worker| !worker.is_ready()) {
            ensure!(
                Instant::now() < deadline,
                "{} is not ready after {START_DEADLINE:?}; {}",
                late.process,
                late.last_words()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        coordinators.into_iter().try_for_each(Supervised::start)
    }

    /// Starts a coordinator of a partition that has one already.
    pub(crate) fn start_duplicate(&mut self, index: usize) -> anyhow::Result<()> {
        self.add_coordinator(index, "-duplicate");
        self.processes.last_mut().context("it was just added")?.start()
    }

    /// Starts the same job again, with another output, by new coordinators; the earlier coordinators must
    /// have ended.
    pub(crate) fn start_next_job(&mut self, site: &Site, output: &str, job: usize) -> anyhow::Result<()> {
        self.processes.retain(|process| !process.is_coordinator());
        self.layout.job_flags = site.flags_of(&self.plan, output)?;
        for index in 0..self.plan.num_coordinators {
            self.add_coordinator(index, &format!("-job-{job}"));
        }
        let mut coordinators = self.processes.iter_mut().filter(|process| process.is_coordinator());
        coordinators.try_for_each(Supervised::start)
    }

    fn add_coordinator(&mut self, index: usize, suffix: &str) {
        let http = match &self.network {
            Some(network) => SocketAddr::new(network.host(index).address().into(), HTTP_PORT),
            None => free_loopback_port(),
        };
        let process = Process::Coordinator(index);
        let command = self.coordinator_command(index, http);
        self.add(process, http, command, &format!("{process}{suffix}"));
    }

    fn add(&mut self, process: Process, metrics: SocketAddr, command: Box<dyn Fn() -> Command>, name: &str) {
        let log_prefix = self.layout.directory.join(name);
        let restart_delay = self.plan.restart_delay;
        self.processes.push(Supervised::new(Description {
            process,
            command,
            metrics,
            log_prefix,
            restart_delay,
        }));
    }

    fn worker_command(&self, place: &Place) -> Box<dyn Fn() -> Command> {
        let binary = match place.process {
            Process::Encoder(_) | Process::Reader => "baton-encoder",
            _ => "baton-decoder",
        };
        let (place, layout, program) = (*place, self.layout.clone(), self.program(place.process, binary));
        Box::new(move || {
            let mut command = program();
            layout.set_environment(&mut command);
            command.arg("--bundle").arg(&layout.bundle);
            command.args(["--listen", &place.grpc.to_string(), "--http-listen", &place.http.to_string()]);
            command.args(WORKER_FLAGS);
            match (place.process, layout.reader) {
                (Process::Reader, _) => {
                    command.args(["--blocks", "2/2"]);
                }
                (Process::Encoder(_), Some(reader)) => {
                    command.args(["--chain", &endpoints(&[reader])]);
                }
                _ => {}
            }
            command
        })
    }

    fn coordinator_command(&self, index: usize, http: SocketAddr) -> Box<dyn Fn() -> Command> {
        let program = self.program(Process::Coordinator(index), "baton-coordinator");
        let (layout, num_partitions) = (self.layout.clone(), self.plan.num_coordinators);
        Box::new(move || {
            let mut command = program();
            layout.set_environment(&mut command);
            command.args(&layout.job_flags);
            command.args([
                "--encoders",
                &endpoints(&layout.encoders),
                "--decoders",
                &endpoints(&layout.decoders),
            ]);
            command.args([
                "--partition",
                &format!("{index}/{num_partitions}"),
                "--http-listen",
                &http.to_string(),
            ]);
            command.args(COORDINATOR_FLAGS);
            command
        })
    }

    /// The command that runs a binary where `process` lives.
    fn program(&self, process: Process, binary: &str) -> Box<dyn Fn() -> Command> {
        let path = binary_path(binary);
        let host = self.network.as_ref().map(|network| network.host(self.host_index(process)).clone());
        Box::new(move || {
            let mut command = match &host {
                Some(host) => host.command(Path::new(MORTAL[0])),
                None => Command::new(MORTAL[0]),
            };
            command.args(&MORTAL[1..]).arg(&path);
            command
        })
    }

    /// The host of a process, where each has one.
    pub(crate) fn host_index(&self, process: Process) -> usize {
        match process {
            Process::Coordinator(index) => index,
            Process::Encoder(index) => self.plan.num_coordinators + index,
            Process::Decoder(index) => self.plan.num_coordinators + NUM_ENCODERS + index,
            Process::Reader => self.plan.num_coordinators + NUM_ENCODERS + NUM_DECODERS,
        }
    }

    /// The process of this role and index; of coordinators the first, not a duplicate.
    pub(crate) fn process(&mut self, process: Process) -> anyhow::Result<&mut Supervised> {
        let found = self.processes.iter_mut().find(|supervised| supervised.process == process);
        found.with_context(|| format!("there is no {process}"))
    }
}

impl Layout {
    fn set_environment(&self, command: &mut Command) {
        for variable in self.foreign_variables {
            command.env_remove(variable);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }
}

impl Site {
    /// The run that nothing disturbs: `baton run`, all roles in one process.
    pub(crate) fn run_undisturbed(&self, output: &str) -> anyhow::Result<()> {
        self.run(&self.job_flags(output))
    }

    /// The flags of a plan's job. If it has a cache, half of the corpus is put into it first.
    fn flags_of(&self, plan: &Plan, output: &str) -> anyhow::Result<Vec<String>> {
        if !plan.has_cache {
            return Ok(self.job_flags(output));
        }
        let cache = ["--cache".to_owned(), self.storage.location(&format!("cache-of-{output}"))];
        let half = ["--input".to_owned(), self.storage.half_of_corpus()];
        let mut of_half = self.job_flags(&format!("half-of-{output}"));
        let input = of_half.iter().position(|flag| flag == "--input").context("a job has an input")?;
        of_half.splice(input..input + 2, half);
        of_half.extend(cache.clone());
        self.run(&of_half)?;
        Ok(self.job_flags(output).into_iter().chain(cache).collect())
    }

    /// Runs a job in one process, in which some records fail.
    fn run(&self, job_flags: &[String]) -> anyhow::Result<()> {
        const SOME_RECORDS_FAILED: i32 = 3;
        let mut command = Command::new(binary_path("baton"));
        let (environment, foreign_variables) = self.storage.environment(self.storage.endpoint());
        for variable in foreign_variables {
            command.env_remove(variable);
        }
        let done = command.envs(environment).arg("run").args(job_flags).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        let is_right = done.status.code() == Some(SOME_RECORDS_FAILED);
        ensure!(is_right, "the undisturbed run ended with {}: {said}", done.status);
        Ok(())
    }

    fn job_flags(&self, output: &str) -> Vec<String> {
        let flags = [
            ("--bundle", self.bundle.display().to_string()),
            ("--input", self.storage.corpus(self.files)),
            ("--output", self.storage.location(output)),
            ("--records-per-shard", corpus::RECORDS_PER_SHARD.to_string()),
            ("--output-format", self.files.name().to_owned()),
            ("--keep-fields", (self.files == Files::Parquet).to_string()),
        ];
        let cascade = [("--cascade", "hybrid,hybrid:beams=2"), ("--escalate", CASCADE_THRESHOLD)];
        let cascade = cascade.into_iter().filter(|_| self.cascade);
        let flags = flags.into_iter().chain(cascade.map(|(flag, value)| (flag, value.to_owned())));
        flags.flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

fn endpoints(addresses: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    endpoints.join(",")
}

/// Names the first binary that is not there: cargo builds none for a test of another package.
pub(crate) fn check_binaries() -> anyhow::Result<()> {
    for name in ["baton", "baton-coordinator", "baton-encoder", "baton-decoder"] {
        let path = binary_path(name);
        ensure!(
            path.exists(),
            "{} is missing: run `cargo build --workspace --bins`, or `make chaos`",
            path.display()
        );
    }
    Ok(())
}

/// A binary of this build: the suite itself lies in the directory below theirs.
fn binary_path(name: &str) -> PathBuf {
    let suite = std::env::current_exe().expect("a running process has an executable");
    suite.ancestors().nth(2).expect("cargo puts tests into target/PROFILE/deps").join(name)
}

fn free_loopback_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}
