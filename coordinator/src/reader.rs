//! The thread that reads the corpus and cuts it into shards. Rows of shards that another partition does, or that are committed, are found
//! and counted, but not looked into.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use baton_job::{RecordReader, Shard, ShardCutter, ShardSet};
use baton_store::open_input;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::{CoordinatorError, PreparedJob};

/// Shards read ahead of the workers. One hides the reading; each costs up to `shard.max_bytes` of memory.
const SHARDS_READ_AHEAD: usize = 2;

/// Reads files in order, decompressing and parsing on a thread of its own, and waits while nobody takes the shards.
pub(crate) struct CorpusReader {
    shards: mpsc::Receiver<Result<ReadItem, CoordinatorError>>,
    sample: watch::Receiver<Sample>,
}

/// What the reader gives.
pub(crate) enum ReadItem {
    /// A shard to process.
    Shard(Shard),
    /// The end of all inputs.
    End {
        /// Shards of the whole job, of all partitions.
        num_shards: u32,
        /// Records of this partition, committed ones included.
        num_records: u64,
    },
}

/// How far the reader was when it last asked for bytes: then, all it had been given was parsed, so records and bytes go together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Records of this partition, committed ones included.
    pub(crate) records: u64,
    /// Bytes of the inputs they lay in, as stored.
    pub(crate) bytes: u64,
}

impl CorpusReader {
    /// Starts reading the shards of the job's partition that are not `committed`. Dropping the reader ends the thread.
    pub(crate) fn start(job: &PreparedJob, committed: ShardSet) -> Result<CorpusReader, CoordinatorError> {
        let (sender, shards) = mpsc::channel(SHARDS_READ_AHEAD);
        let (samples, sample) = watch::channel(Sample::default());
        let (spec, inputs, partition) = (job.spec.clone(), job.inputs.clone(), job.partition);
        let runtime = Handle::current();
        let read = move |shards: &mpsc::Sender<_>| -> Result<(), CoordinatorError> {
            let options = spec.reader_options();
            let is_wanted = |shard| partition.owns(shard) && !committed.contains(shard);
            let mut cutter = ShardCutter::new(spec.shard.clone(), is_wanted);
            let counts = Arc::<Counts>::default();
            for input in &inputs {
                let file = runtime.block_on(open_input(input))?;
                let failure = Arc::<OnceLock<io::Error>>::default();
                let counted = CountingReader {
                    file,
                    counts: Arc::clone(&counts),
                    samples: samples.clone(),
                    failure: Arc::clone(&failure),
                };
                let mut records = RecordReader::new(&input.uri, Box::new(counted), &options)?;
                while let Some(record) = records.find_next() {
                    if let Some(error) = failure.get() {
                        let source = io::Error::new(error.kind(), error.to_string());
                        return Err(CoordinatorError::Read { uri: input.uri.clone(), source });
                    }
                    let cut = cutter.push(record.num_bytes(), || record.read());
                    if partition.owns(cutter.current()) {
                        counts.records.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Some(shard) = cut
                        && shards.blocking_send(Ok(ReadItem::Shard(shard))).is_err()
                    {
                        return Ok(());
                    }
                }
            }
            let last = cutter.finish().map(ReadItem::Shard);
            let end = ReadItem::End {
                num_shards: cutter.num_shards(),
                num_records: counts.records.load(Ordering::Relaxed),
            };
            for item in last.into_iter().chain([end]) {
                let _ = shards.blocking_send(Ok(item)); // if nobody listens, the job has ended for another reason
            }
            Ok(())
        };
        let run = move || {
            if let Err(error) = read(&sender) {
                let _ = sender.blocking_send(Err(error)); // as above
            }
        };
        let thread = thread::Builder::new().name("corpus-reader".to_owned());
        thread.spawn(run).map_err(|source| CoordinatorError::Thread { source })?;
        Ok(CorpusReader { shards, sample })
    }

    /// The next shard, or the end; `None` after the end or an error. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<ReadItem, CoordinatorError>> {
        self.shards.recv().await
    }

    /// From what is read, how many records lie in how many bytes.
    pub(crate) fn sample(&self) -> Sample {
        *self.sample.borrow()
    }
}

#[derive(Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
}

/// Counts the bytes that pass and takes the samples, for the progress bar.
struct CountingReader {
    file: Box<dyn Read + Send>,
    counts: Arc<Counts>,
    samples: watch::Sender<Sample>,
    /// Why the file could not be read on. What a file holds may be broken and ends as an error row; what could not be read may be there
    /// the next time, and must not be missing in the output now.
    failure: Arc<OnceLock<io::Error>>,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Counts { records, bytes } = &*self.counts;
        self.samples.send_replace(Sample {
            records: records.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        });
        let num_bytes = self.file.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let _ = self.failure.set(io::Error::new(error.kind(), error.to_string()));
            }
        })?;
        bytes.fetch_add(num_bytes as u64, Ordering::Relaxed);
        Ok(num_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// Gives a line and then an error.
    struct BreakingOff {
        line: Option<&'static [u8]>,
        error: ErrorKind,
    }

    impl Read for BreakingOff {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let line = self.line.take().ok_or(self.error)?;
            buffer[..line.len()].copy_from_slice(line);
            Ok(line.len())
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_on_is_told_from_one_that_holds_broken_data() {
        let failure = Arc::<OnceLock<io::Error>>::default();
        let mut counted = CountingReader {
            file: Box::new(BreakingOff { line: Some(b"one\n"), error: ErrorKind::ConnectionReset }),
            counts: Arc::default(),
            samples: watch::channel(Sample::default()).0,
            failure: Arc::clone(&failure),
        };
        let mut buffer = [0; 16];
        assert_eq!(counted.read(&mut buffer).unwrap(), 4);
        assert!(failure.get().is_none());
        counted.read(&mut buffer).unwrap_err();
        assert_eq!(failure.get().map(io::Error::kind), Some(ErrorKind::ConnectionReset));
    }
}
