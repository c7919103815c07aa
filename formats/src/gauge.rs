//! Watches an input while it is read: how many bytes, and whether its source failed.
//!
//! Decoders wrap the errors of their source in their own. The gauge notes the source's errors, which tells a
//! broken file from a disk or connection that failed.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::RangedRead;

#[derive(Default)]
pub(crate) struct Gauge {
    num_bytes: AtomicU64,
    source_error: Mutex<Option<io::Error>>,
}

const NO_PANIC: &str = "no holder of this lock panics";

impl Gauge {
    /// Notes the errors of `source`.
    pub(crate) fn watch_source(self: &Arc<Self>, source: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        Box::new(Watched { source, gauge: Arc::clone(self) })
    }

    /// Notes the errors of `source`, and counts the bytes read from it.
    pub(crate) fn watch_ranges(self: &Arc<Self>, source: Box<dyn RangedRead>) -> Box<dyn RangedRead> {
        Box::new(WatchedRanges { source, gauge: Arc::clone(self) })
    }

    /// Counts the bytes read from `input`.
    pub(crate) fn count(self: &Arc<Self>, input: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        Box::new(Counted { input, gauge: Arc::clone(self) })
    }

    pub(crate) fn num_bytes(&self) -> u64 {
        self.num_bytes.load(Ordering::Relaxed)
    }

    /// The first error of the source, once.
    pub(crate) fn take_source_error(&self) -> Option<io::Error> {
        self.source_error.lock().expect(NO_PANIC).take()
    }

    /// Keeps the error and returns one in its place.
    fn note(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::Interrupted {
            return error; // it is tried again
        }
        let stand_in = io::Error::new(error.kind(), error.to_string());
        self.source_error.lock().expect(NO_PANIC).get_or_insert(error);
        stand_in
    }
}

struct Watched {
    source: Box<dyn Read + Send>,
    gauge: Arc<Gauge>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer).map_err(|error| self.gauge.note(error))
    }
}

struct WatchedRanges {
    source: Box<dyn RangedRead>,
    gauge: Arc<Gauge>,
}

impl RangedRead for WatchedRanges {
    fn num_bytes(&self) -> u64 {
        self.source.num_bytes()
    }

    fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.source.read_at(start, buffer).map_err(|error| self.gauge.note(error))?;
        self.gauge.num_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

struct Counted {
    input: Box<dyn Read + Send>,
    gauge: Arc<Gauge>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let num_bytes = self.input.read(buffer)?;
        self.gauge.num_bytes.fetch_add(num_bytes as u64, Ordering::Relaxed);
        Ok(num_bytes)
    }
}
