//! Inputs that are read by ranges, and what a job's parts are.

use std::io;

use baton_formats::{Format, InputSource, PartOptions, RangedRead};
use baton_job::{JobError, JobSpec};
use baton_store::{InputFile, InputRanges, open_input, open_ranges};

use crate::CoordinatorError;
use crate::reader::{CountingReader, Tally};

/// A listed file, of which any bytes can be read.
pub(crate) struct Ranges {
    pub(crate) ranges: InputRanges,
    pub(crate) tally: Tally,
}

impl RangedRead for Ranges {
    fn num_bytes(&self) -> u64 {
        self.ranges.size()
    }

    fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.tally.sample();
        self.tally.add_bytes(buffer.len());
        self.ranges.read_at(start, buffer)
    }
}

/// Opens `stored`, which has the bytes of the input `uri`, as its format is read: by ranges or from front to
/// back.
pub(crate) async fn open_source(
    uri: &str,
    stored: &InputFile,
    format: Option<Format>,
    tally: Tally,
) -> Result<InputSource, CoordinatorError> {
    Ok(match Format::of(uri, format).map_err(JobError::from)?.0.needs_ranges() {
        true => InputSource::Ranged(Box::new(Ranges { ranges: open_ranges(stored).await?, tally })),
        false => InputSource::Stream(Box::new(CountingReader { file: open_input(stored).await?, tally })),
    })
}

/// What the job's parts are.
pub(crate) fn part_options(spec: &JobSpec) -> PartOptions {
    PartOptions {
        format: spec.output_format,
        has_origin: spec.origin,
        keeps_fields: spec.keep_fields || spec.format.is_some_and(Format::keeps_own_fields),
    }
}
