//! The bytes of a Parquet file, for a reader that asks for them page by page.
//!
//! The pages of a column chunk follow each other, and the reader takes pages of several columns in turns.
//! This file keeps a window of the file for each column, so that a small page needs no request of its own.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use crate::RangedRead;

/// Bytes of all windows together.
const WINDOWS_NUM_BYTES: usize = 32 << 20;
/// Maximum bytes of a window.
const MAX_WINDOW_NUM_BYTES: usize = 1 << 20;
/// Minimum bytes of a window, for any number of columns.
const MIN_WINDOW_NUM_BYTES: usize = 16 << 10;

const NO_PANIC: &str = "no holder of this lock panics";

/// A file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Chunks(Arc<File>);

struct File {
    source: Box<dyn RangedRead>,
    windows: Mutex<Windows>,
}

/// Parts of the file in memory, the last used first.
struct Windows {
    kept: VecDeque<(u64, Bytes)>,
    max_kept: usize,
    num_bytes: usize,
    /// The bounds of the column chunks that are read; no window crosses them.
    chunk_ends: BTreeMap<u64, u64>,
}

impl Chunks {
    pub(super) fn new(source: Box<dyn RangedRead>) -> Chunks {
        let windows = Windows {
            kept: VecDeque::new(),
            max_kept: 2,
            num_bytes: MIN_WINDOW_NUM_BYTES,
            chunk_ends: BTreeMap::new(),
        };
        Chunks(Arc::new(File { source, windows: Mutex::new(windows) }))
    }

    /// Sets the column chunks to read: their bounds, and the number of their columns.
    pub(super) fn expect(&self, chunks: impl Iterator<Item = (u64, u64)>, num_columns: usize) {
        let mut windows = self.0.windows.lock().expect(NO_PANIC);
        windows.chunk_ends = chunks.collect();
        windows.max_kept = num_columns + 1;
        let share = WINDOWS_NUM_BYTES / windows.max_kept;
        windows.num_bytes = share.clamp(MIN_WINDOW_NUM_BYTES, MAX_WINDOW_NUM_BYTES);
    }

    /// Bytes from `start` on: all `wanted` ones, or none at the end of the file.
    fn bytes(&self, start: u64, wanted: usize) -> io::Result<Bytes> {
        let mut windows = self.0.windows.lock().expect(NO_PANIC);
        if let Some(found) = windows.find(start, wanted) {
            return Ok(found);
        }
        let file_left = self.0.source.num_bytes().saturating_sub(start);
        let left = windows.chunk_left(start).unwrap_or(file_left).min(file_left);
        let num_bytes = wanted.max(usize::try_from(left).unwrap_or(usize::MAX).min(windows.num_bytes));
        let mut buffer = vec![0; num_bytes];
        self.0.source.read_at(start, &mut buffer)?;
        let bytes = Bytes::from(buffer);
        if (1..=windows.num_bytes).contains(&num_bytes) {
            let max_kept = windows.max_kept;
            windows.kept.push_front((start, bytes.clone()));
            windows.kept.truncate(max_kept);
        }
        Ok(bytes)
    }
}

impl Windows {
    fn find(&mut self, start: u64, wanted: usize) -> Option<Bytes> {
        let within = |(at, bytes): &(u64, Bytes)| {
            let offset =
                usize::try_from(start.checked_sub(*at)?).ok().filter(|&offset| offset < bytes.len())?;
            (bytes.len() - offset >= wanted).then(|| bytes.slice(offset..))
        };
        let place = self.kept.iter().position(|window| within(window).is_some())?;
        let window = self.kept.remove(place)?;
        let found = within(&window);
        self.kept.push_front(window);
        found
    }

    /// Bytes between `start` and the end of the column chunk around it.
    fn chunk_left(&self, start: u64) -> Option<u64> {
        let (_, end) = self.chunk_ends.range(..=start).next_back()?;
        end.checked_sub(start).filter(|&left| left > 0)
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.source.num_bytes()
    }
}

impl ChunkReader for Chunks {
    type T = ChunkRead;

    fn get_read(&self, start: u64) -> Result<ChunkRead> {
        Ok(ChunkRead { chunks: self.clone(), place: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.saturating_add(length as u64);
        if end > self.len() {
            let problem = format!("bytes {start} to {end} of {} are asked for", self.len());
            return Err(ParquetError::EOF(problem));
        }
        let bytes = self.bytes(start, length).map_err(|error| ParquetError::External(error.into()))?;
        Ok(bytes.slice(..length))
    }
}

/// Reads from some place on.
pub(super) struct ChunkRead {
    chunks: Chunks,
    place: u64,
}

impl Read for ChunkRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.chunks.bytes(self.place, 0)?;
        let num_bytes = bytes.len().min(buffer.len());
        buffer[..num_bytes].copy_from_slice(&bytes[..num_bytes]);
        self.place += num_bytes as u64;
        Ok(num_bytes)
    }
}
