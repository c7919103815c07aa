//! The thread that reads the corpus and cuts it into shards. It finds and counts the rows of committed shards
//! and of shards of another share, but does not parse them.
//!
//! An input may turn out to be damaged, or change while it is read. Its records in the incomplete shard are
//! dropped, the break is recorded, and reading continues with the next input.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use baton_formats::{Format, IdCensus, InputFailure, InputFailureCause, RecordReader};
use baton_job::layout::broken_input_key;
use baton_job::{BrokenInput, BrokenKind, JobError, ReaderOptions, Shard, ShardCutter, ShardIndex};
use baton_store::{CreateOutcome, InputFile, Store, StoreError, is_input_changed};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::prepare::Committed;
use crate::share::Share;
use crate::source::open_source;
use crate::{CoordinatorError, PreparedJob};

/// Shards read ahead of the workers. One hides the reading; each costs up to `shard.max_bytes` of memory.
const SHARDS_READ_AHEAD: usize = 2;

/// Reads files in order, decompressing and parsing on its own thread, and waits while nobody takes the
/// shards.
pub(crate) struct CorpusReader {
    shards: mpsc::Receiver<Result<ReadItem, CoordinatorError>>,
    sample: watch::Receiver<Sample>,
}

/// An item of the reader.
pub(crate) enum ReadItem {
    /// A shard to process.
    Shard(Shard),
    /// The end of all inputs.
    End(EndOfInput),
}

/// The result of reading the inputs.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndOfInput {
    /// Shards of the whole job, of all partitions, as far as it was read.
    pub(crate) num_shards: u32,
    /// Records of this share, committed ones included.
    pub(crate) num_records: u64,
    /// Inputs that could not be read to their end.
    pub(crate) broken: Vec<BrokenInput>,
    /// Whether reading stopped at a broken input, because nobody can tell where the later shards begin.
    pub(crate) has_stopped: bool,
    /// Inputs after it that were left unread.
    pub(crate) num_unread: usize,
}

/// The reader's position at its last request for bytes. All earlier bytes were parsed then, so records and
/// bytes belong together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Records of this share, committed ones included.
    pub(crate) records: u64,
    /// Stored bytes of the inputs with these records.
    pub(crate) bytes: u64,
}

impl CorpusReader {
    /// Starts reading the shards of `share` that are not committed. Dropping the reader ends the thread.
    pub(crate) fn start(
        job: &PreparedJob,
        share: Share,
        found: &Committed,
    ) -> Result<CorpusReader, CoordinatorError> {
        let (sender, shards) = mpsc::channel(SHARDS_READ_AHEAD);
        let (samples, sample) = watch::channel(Sample::default());
        let (wanted, committed) = (share.clone(), found.shards.clone());
        let is_wanted = move |shard| wanted.has(shard) && !committed.contains(shard);
        let pass = CorpusPass {
            options: ReaderOptions { keep: job.parts.keep.clone(), ..job.spec.reader_options() },
            format: job.spec.format,
            inputs: job.inputs.clone(),
            spooled: job.spool.as_ref().map(|spool| spool.stored.clone()),
            ids: IdCensus::default(),
            known_breaks: found.broken.clone(),
            share,
            is_whole: job.partition.is_whole(),
            store: job.store.clone(),
            runtime: Handle::current(),
            cutter: ShardCutter::new(job.spec.shard.clone(), is_wanted),
            counts: Arc::default(),
            samples,
            shards: sender.clone(),
        };
        let run = move || {
            if let Err(error) = pass.run() {
                let _ = sender.blocking_send(Err(error)); // if nobody listens, the job has ended already
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

    /// A sample of the reading so far: records, and the bytes that hold them.
    pub(crate) fn sample(&self) -> Sample {
        *self.sample.borrow()
    }
}

/// One pass over all inputs, on the reader's thread.
struct CorpusPass<W> {
    options: ReaderOptions,
    format: Option<Format>,
    inputs: Vec<InputFile>,
    /// The stored bytes of standard input.
    spooled: Option<InputFile>,
    ids: IdCensus,
    /// Inputs that an earlier run found broken, by their place in the listing.
    known_breaks: BTreeMap<usize, BrokenInput>,
    share: Share,
    /// Whether no other coordinator works on the job.
    is_whole: bool,
    store: Store,
    runtime: Handle,
    cutter: ShardCutter<W>,
    counts: Arc<Counts>,
    samples: watch::Sender<Sample>,
    shards: mpsc::Sender<Result<ReadItem, CoordinatorError>>,
}

/// The end of reading an input.
enum InputEnd {
    Whole,
    Broken(BrokenInput),
    /// The job has ended for another reason.
    NobodyListens,
}

impl<W: Fn(ShardIndex) -> bool> CorpusPass<W> {
    fn run(mut self) -> Result<(), CoordinatorError> {
        let mut end = EndOfInput::default();
        for (place, input) in std::mem::take(&mut self.inputs).iter().enumerate() {
            if end.has_stopped {
                end.num_unread += 1;
                continue;
            }
            self.cutter.begin_input();
            let known = self.known_breaks.remove(&place);
            let goes_on = match (self.read_input(input, known.as_ref())?, known) {
                (InputEnd::NobodyListens, _) => return Ok(()),
                (InputEnd::Whole, None) => continue,
                (InputEnd::Whole, Some(known)) => {
                    end.broken.push(known);
                    false // it was longer before, and the shards after it began elsewhere
                }
                (InputEnd::Broken(mut broken), known) => {
                    let taken_back = u64::from(self.cutter.abandon_input());
                    broken.records_kept = broken.records_read - taken_back;
                    if self.share.has(self.cutter.current()) {
                        self.counts.records.fetch_sub(taken_back, Ordering::Relaxed);
                    }
                    tracing::warn!(input = broken.uri, reason = broken.reason, "an input is broken");
                    let goes_on = match known {
                        Some(known) => known.agrees_with(&broken),
                        None => self.record_break(place, &broken)?,
                    };
                    end.broken.push(broken);
                    goes_on
                }
            };
            end.has_stopped = !goes_on;
        }
        if let Some(report) = self.ids.report() {
            tracing::warn!("{report}");
        }
        let last = self.cutter.finish().map(ReadItem::Shard);
        end.num_shards = self.cutter.num_shards();
        end.num_records = self.counts.records.load(Ordering::Relaxed);
        for item in last.into_iter().chain([ReadItem::End(end)]) {
            let _ = self.shards.blocking_send(Ok(item)); // if nobody listens, the job has ended already
        }
        Ok(())
    }

    /// Reads an input to its end, to the place where it breaks, or to a known break.
    fn read_input(
        &mut self,
        input: &InputFile,
        known: Option<&BrokenInput>,
    ) -> Result<InputEnd, CoordinatorError> {
        let uri = &input.uri;
        let broken = |kind, records_read, reason: String| {
            Ok(InputEnd::Broken(BrokenInput {
                uri: uri.clone(),
                kind,
                records_read,
                records_kept: 0, // the caller knows
                reason,
            }))
        };
        let changed = |records_read, line| {
            let reason = format!("at line {line} it no longer matched the listing");
            broken(BrokenKind::Changed, records_read, reason)
        };
        let tally = Tally { counts: Arc::clone(&self.counts), samples: self.samples.clone() };
        let stored = self.spooled.as_ref().unwrap_or(input);
        let source = match self.runtime.block_on(open_source(uri, stored, self.format, tally)) {
            Err(CoordinatorError::Store(StoreError::InputChanged { .. })) => return changed(0, 1),
            source => source?,
        };
        let mut records = RecordReader::new(uri, source, &self.options).map_err(JobError::from)?;
        let mut num_records = 0;
        loop {
            if let Some(known) = known.filter(|known| known.records_read == num_records) {
                return Ok(InputEnd::Broken(known.clone()));
            }
            let found = match records.find_next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(InputFailure { line, cause: InputFailureCause::Content(message), .. }) => {
                    return broken(BrokenKind::Damaged, num_records, format!("line {line}: {message}"));
                }
                Err(InputFailure { line, cause: InputFailureCause::Source(error), .. })
                    if is_input_changed(&error) =>
                {
                    return changed(num_records, line);
                }
                Err(failure) => return Err(failure.into()),
            };
            let num_bytes = found.num_bytes();
            let ids = &mut self.ids;
            let cut = self.cutter.push(num_bytes, || found.read().inspect(|record| ids.add(&record.id)));
            num_records += 1;
            if self.share.has(self.cutter.current()) {
                self.counts.records.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(shard) = cut
                && self.shards.blocking_send(Ok(ReadItem::Shard(shard))).is_err()
            {
                return Ok(InputEnd::NobodyListens);
            }
        }
        for remark in records.remarks() {
            tracing::warn!(input = uri, remark, "the input is odd");
        }
        Ok(InputEnd::Whole)
    }

    /// Records a break before any later shard is given away. Returns false if the inputs after it must stay
    /// unread: another run found the break elsewhere, or may have read the whole input before it changed. Its
    /// later shards then begin elsewhere.
    fn record_break(&self, place: usize, broken: &BrokenInput) -> Result<bool, CoordinatorError> {
        let key = broken_input_key(place);
        let record = async {
            match self.store.create(&key, broken.to_json().into()).await? {
                CreateOutcome::Created => Ok(None),
                CreateOutcome::AlreadyExists => self.store.get(&key).await,
            }
        };
        if let Some(bytes) = self.runtime.block_on(record)?
            && !BrokenInput::from_json(&key, &bytes)?.agrees_with(broken)
        {
            return Ok(false);
        }
        Ok(broken.kind == BrokenKind::Damaged || self.is_whole)
    }
}

#[derive(Default)]
pub(crate) struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
}

/// Counts the bytes that pass and takes samples, for the progress bar.
pub(crate) struct Tally {
    counts: Arc<Counts>,
    samples: watch::Sender<Sample>,
}

impl Tally {
    /// A tally that nobody reads.
    pub(crate) fn unwatched() -> Tally {
        Tally { counts: Arc::default(), samples: watch::Sender::new(Sample::default()) }
    }

    /// Takes a sample: all earlier bytes are parsed.
    pub(crate) fn sample(&self) {
        let Counts { records, bytes } = &*self.counts;
        self.samples.send_replace(Sample {
            records: records.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        });
    }

    pub(crate) fn add_bytes(&self, num_bytes: usize) {
        self.counts.bytes.fetch_add(num_bytes as u64, Ordering::Relaxed);
    }
}

pub(crate) struct CountingReader {
    pub(crate) file: Box<dyn Read + Send>,
    pub(crate) tally: Tally,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tally.sample();
        let num_bytes = self.file.read(buffer)?;
        self.tally.add_bytes(num_bytes);
        Ok(num_bytes)
    }
}
