//! The faults of a run, and their times: a pure function of the seed.
//!
//! Time is counted in committed parts, not in seconds, so a slow machine sees the same schedule as a fast
//! one. A fault that a fast job outruns begins in the next job: `run.rs`.

use std::fmt;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::corpus::Files;

pub(crate) const NUM_ENCODERS: usize = 2;
pub(crate) const NUM_DECODERS: usize = 3;
/// The decoder that may join late; nothing else happens to it.
const LATE_DECODER: usize = NUM_DECODERS - 1;

/// Faults in one run.
const NUM_FAULTS: usize = 7;
/// The first fault comes when this share of the parts is committed, the last before that one: the job must
/// still have work to disturb.
const FIRST_SHARE: f64 = 0.03;
const LAST_SHARE: f64 = 0.70;
/// No fault begins when more than this share of a job's parts is committed: it waits for the next job.
pub(crate) const LATEST_SHARE: f64 = 0.85;

/// The place of the processes, and the connections between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// Loopback, proxies on every connection, output in a local directory.
    Local,
    /// Loopback, proxies on every connection, corpus and output in S3.
    S3,
    /// A network namespace for each process, output in a local directory. Needs root.
    Namespaces,
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Coordinator(usize),
    Encoder(usize),
    /// The encoder that runs the later blocks of a split LLM for the others.
    Reader,
    Decoder(usize),
}

/// The connections that lead to one role; a reader is an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Encoders,
    Decoders,
    Storage,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// SIGKILL to a process that is at work; it is started again.
    Kill(Process),
    /// SIGSTOP, and later SIGCONT.
    Stop(Process, Duration),
    /// SIGTERM to a process that is at work; it must drain and end well, and is started again.
    Terminate(Process),
    /// A decoder that was not there at the beginning.
    Join(Process),
    /// A second coordinator of the same partition, by mistake.
    Duplicate(usize),
    /// Calls are answered with UNAVAILABLE by a proxy.
    AbortCalls(Links),
    /// Calls are held by a proxy before they are passed on.
    DelayCalls(Links),
    /// Connections are reset, and new ones too.
    Reset(Links, Duration),
    /// Bytes are accepted and passed on no more, without a word; then the connections are reset.
    Silence(Links, Duration),
    /// Bytes trickle.
    Slow(Links, Duration),
    /// Requests are answered with 503 SlowDown.
    StorageErrors(Duration),
    /// A process is cut off from all others.
    Partition(Process, Duration),
}

/// A fault, and when it comes: in shares of a job's parts that are committed, over all jobs of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PlannedFault {
    pub(crate) after_share: f64,
    pub(crate) fault: Fault,
}

/// Everything that distinguishes one run from another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) world: World,
    /// One run in four reads and writes Parquet, in turn in each world.
    pub(crate) files: Files,
    /// One run in four has a cache of outputs, in turn in each world: half of the corpus is in it.
    pub(crate) has_cache: bool,
    /// One run in five is a cascade.
    pub(crate) cascade: bool,
    /// Whether the LLM is split: no seed's, but that of a run of its own.
    pub(crate) has_reader: bool,
    pub(crate) num_coordinators: usize,
    /// How long a process that has ended stays away.
    pub(crate) restart_delay: Duration,
    pub(crate) faults: Vec<PlannedFault>,
}

impl Plan {
    /// Seeds take turns between the worlds. Each draws its faults from those possible there, none twice.
    pub(crate) fn of_seed(seed: u64) -> Plan {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let world = match seed % 3 {
            0 => World::Namespaces,
            1 => World::Local,
            _ => World::S3,
        };
        let num_coordinators = random.random_range(1..=2);
        let mut faults = possible_faults(world, num_coordinators, &mut random);
        faults.shuffle(&mut random);
        faults.truncate(NUM_FAULTS);
        // A worker that joins has to be found: coordinators look for an absent one ever more rarely.
        faults.sort_by_key(|fault| !matches!(fault, Fault::Join(_)));
        end_workers_last(&mut faults);
        let step = (LAST_SHARE - FIRST_SHARE) / faults.len() as f64;
        let planned = faults.into_iter().enumerate().map(|(index, fault)| {
            let after_share = FIRST_SHARE + step * (index as f64 + random.random_range(0.0..1.0));
            PlannedFault { after_share, fault }
        });
        let faults = planned.collect();
        let restart_delay = milliseconds(&mut random, 50..1_000);
        let files = if seed % 4 == 2 { Files::Parquet } else { Files::Jsonl };
        let has_cache = seed % 4 == 1;
        let cascade = seed % 5 == 4;
        let has_reader = false;
        Plan { seed, world, files, has_cache, cascade, has_reader, num_coordinators, restart_delay, faults }
    }

    /// A run with a split LLM, whose later part is disturbed most.
    pub(crate) fn of_split_llm() -> Plan {
        let faults = [
            Fault::Kill(Process::Reader),
            Fault::Reset(Links::Encoders, Duration::from_millis(300)),
            Fault::Stop(Process::Reader, Duration::from_millis(1_500)),
            Fault::AbortCalls(Links::Encoders),
            Fault::Kill(Process::Encoder(0)),
            Fault::Terminate(Process::Reader),
        ];
        let at = |(index, fault)| PlannedFault { after_share: 0.05 + 0.1 * index as f64, fault };
        let faults = faults.into_iter().enumerate().map(at).collect();
        let plan = Plan { has_reader: true, has_cache: false, cascade: false, ..Self::of_seed(1) };
        Plan { seed: 1_000_001, num_coordinators: 1, faults, ..plan }
    }
}

impl Plan {
    /// Whether `process` runs from the beginning.
    pub(crate) fn starts_with(&self, process: Process) -> bool {
        self.faults.iter().all(|planned| planned.fault != Fault::Join(process))
    }
}

/// All other faults of a worker come before its end: while it is away, the others may finish the job.
fn end_workers_last(faults: &mut [Fault]) {
    for index in 0..faults.len() {
        let (Fault::Kill(worker) | Fault::Terminate(worker)) = faults[index] else { continue };
        let last = faults.iter().rposition(|fault| fault.process() == Some(worker));
        if !matches!(worker, Process::Coordinator(_))
            && let Some(last) = last
        {
            faults.swap(index, last);
        }
    }
}

fn possible_faults(world: World, num_coordinators: usize, random: &mut ChaCha8Rng) -> Vec<Fault> {
    let coordinator = random.random_range(0..num_coordinators);
    let mut encoder = || Process::Encoder(random.random_range(0..NUM_ENCODERS));
    let (first_encoder, second_encoder) = (encoder(), encoder());
    let mut decoder = || Process::Decoder(random.random_range(0..LATE_DECODER));
    let (first_decoder, second_decoder) = (decoder(), decoder());
    // No worker is ended twice.
    let (third_encoder, third_decoder) = (other_worker(first_encoder), other_worker(first_decoder));
    let mut pause = |range| milliseconds(random, range);
    let mut faults = vec![
        Fault::Kill(Process::Coordinator(coordinator)),
        Fault::Kill(first_encoder),
        Fault::Kill(first_decoder),
        Fault::Stop(Process::Coordinator(coordinator), pause(200..3_000)),
        Fault::Stop(second_encoder, pause(200..4_000)),
        Fault::Stop(second_decoder, pause(200..4_000)),
        Fault::Join(Process::Decoder(LATE_DECODER)),
        Fault::Terminate(Process::Coordinator(coordinator)),
        Fault::Terminate(third_encoder),
        Fault::Terminate(third_decoder),
        Fault::Duplicate(coordinator),
    ];
    if world == World::Namespaces {
        faults.truncate(7); // partitions instead, of each kind of process
        faults.push(Fault::Partition(Process::Coordinator(coordinator), pause(500..4_000)));
        faults.push(Fault::Partition(third_encoder, pause(500..4_000)));
        faults.push(Fault::Partition(third_decoder, pause(500..4_000)));
        return faults;
    }
    for links in [Links::Encoders, Links::Decoders] {
        faults.extend([
            Fault::AbortCalls(links),
            Fault::DelayCalls(links),
            Fault::Reset(links, pause(50..800)),
            Fault::Silence(links, pause(500..3_000)),
            Fault::Slow(links, pause(300..2_000)),
        ]);
    }
    if world == World::S3 {
        faults.drain(..7); // storage is what this world adds
        faults.extend([
            Fault::StorageErrors(pause(200..1_500)),
            Fault::Reset(Links::Storage, pause(50..800)),
            Fault::Silence(Links::Storage, pause(500..2_500)),
            Fault::Slow(Links::Storage, pause(300..2_000)),
            Fault::Kill(first_decoder),
            Fault::Kill(Process::Coordinator(coordinator)),
        ]);
    }
    faults
}

fn other_worker(worker: Process) -> Process {
    match worker {
        Process::Encoder(index) => Process::Encoder((index + 1) % NUM_ENCODERS),
        Process::Decoder(index) => Process::Decoder((index + 1) % LATE_DECODER),
        Process::Coordinator(_) | Process::Reader => worker,
    }
}

fn milliseconds(random: &mut ChaCha8Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

impl Fault {
    /// The process that it is about.
    pub(crate) fn process(self) -> Option<Process> {
        match self {
            Fault::Kill(process)
            | Fault::Stop(process, _)
            | Fault::Terminate(process)
            | Fault::Join(process)
            | Fault::Partition(process, _) => Some(process),
            _ => None,
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Coordinator(index) => write!(f, "coordinator-{index}"),
            Process::Encoder(index) => write!(f, "encoder-{index}"),
            Process::Reader => write!(f, "reader"),
            Process::Decoder(index) => write!(f, "decoder-{index}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = |links: &Links| format!("{links:?}").to_lowercase();
        match self {
            Fault::Kill(process) => write!(f, "kill {process}"),
            Fault::Stop(process, pause) => write!(f, "stop {process} for {} ms", pause.as_millis()),
            Fault::Terminate(process) => write!(f, "terminate {process}"),
            Fault::Join(process) => write!(f, "{process} joins"),
            Fault::Duplicate(index) => write!(f, "a second coordinator-{index}"),
            Fault::AbortCalls(to) => write!(f, "abort calls to {}", links(to)),
            Fault::DelayCalls(to) => write!(f, "delay calls to {}", links(to)),
            Fault::Reset(to, pause) => {
                write!(f, "reset connections to {} for {} ms", links(to), pause.as_millis())
            }
            Fault::Silence(to, pause) => {
                write!(f, "silence connections to {} for {} ms", links(to), pause.as_millis())
            }
            Fault::Slow(to, pause) => {
                write!(f, "slow connections to {} for {} ms", links(to), pause.as_millis())
            }
            Fault::StorageErrors(pause) => write!(f, "storage answers 503 for {} ms", pause.as_millis()),
            Fault::Partition(process, pause) => write!(f, "cut off {process} for {} ms", pause.as_millis()),
        }
    }
}
