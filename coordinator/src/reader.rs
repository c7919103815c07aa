//! The thread that reads the corpus and cuts it into shards.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use baton_job::{JobSpec, RecordReader, Shard, ShardCutter};
use baton_store::{InputFile, open_input};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::CoordinatorError;

/// Shards read ahead of the workers. One hides the reading; each costs up to `shard.max_bytes` of memory.
const SHARDS_READ_AHEAD: usize = 2;

/// Reads files in order, decompressing and parsing on a thread of its own, and waits while nobody takes the shards.
pub(crate) struct CorpusReader {
    shards: mpsc::Receiver<Result<Shard, CoordinatorError>>,
    sample: watch::Receiver<Sample>,
}

/// How far the reader was when it last asked for bytes: then, all it had been given was parsed, so records and bytes go together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Records read.
    pub(crate) records: u64,
    /// Bytes of the inputs they lay in, as stored.
    pub(crate) bytes: u64,
}

impl CorpusReader {
    /// Starts reading. Dropping the reader ends the thread.
    pub(crate) fn start(spec: &JobSpec, inputs: Vec<InputFile>) -> Result<CorpusReader, CoordinatorError> {
        let (sender, shards) = mpsc::channel(SHARDS_READ_AHEAD);
        let (samples, sample) = watch::channel(Sample::default());
        let work = ReadWork {
            options: spec.reader_options(),
            cutter: ShardCutter::new(spec.shard.clone()),
            inputs,
            counts: Arc::default(),
            samples,
            runtime: Handle::current(),
        };
        thread::Builder::new()
            .name("corpus-reader".to_owned())
            .spawn(move || {
                if let Err(error) = work.run(&sender) {
                    // Nobody listens any more: the job has ended for another reason.
                    let _ = sender.blocking_send(Err(error));
                }
            })
            .map_err(|source| CoordinatorError::Thread { source })?;
        Ok(CorpusReader { shards, sample })
    }

    /// The next shard; `None` when all inputs are read. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Shard, CoordinatorError>> {
        self.shards.recv().await
    }

    /// From what is read, how many records lie in how many bytes.
    pub(crate) fn sample(&self) -> Sample {
        *self.sample.borrow()
    }
}

struct ReadWork {
    options: baton_job::ReaderOptions,
    cutter: ShardCutter,
    inputs: Vec<InputFile>,
    counts: Arc<Counts>,
    samples: watch::Sender<Sample>,
    runtime: Handle,
}

#[derive(Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl ReadWork {
    fn run(mut self, shards: &mpsc::Sender<Result<Shard, CoordinatorError>>) -> Result<(), CoordinatorError> {
        for input in &self.inputs {
            let file = self.runtime.block_on(open_input(input))?;
            let (counts, samples) = (Arc::clone(&self.counts), self.samples.clone());
            let counted = CountingReader { file, counts, samples };
            for item in RecordReader::new(&input.uri, Box::new(counted), &self.options)? {
                self.counts.records.fetch_add(1, Ordering::Relaxed);
                if let Some(shard) = self.cutter.push(item)
                    && shards.blocking_send(Ok(shard)).is_err()
                {
                    return Ok(());
                }
            }
        }
        if let Some(shard) = self.cutter.finish() {
            let _ = shards.blocking_send(Ok(shard)); // as above
        }
        Ok(())
    }
}

/// Counts the bytes that pass and takes the samples, for the progress bar.
struct CountingReader {
    file: Box<dyn Read + Send>,
    counts: Arc<Counts>,
    samples: watch::Sender<Sample>,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Counts { records, bytes } = &*self.counts;
        self.samples.send_replace(Sample {
            records: records.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        });
        let num_bytes = self.file.read(buffer)?;
        bytes.fetch_add(num_bytes as u64, Ordering::Relaxed);
        Ok(num_bytes)
    }
}
