//! Opens inputs, and decides the format and fields of a job's parts.

use std::io;

use baton_formats::{Format, InputSource, KeepFields, KeptColumns, PartOptions, RangedRead};
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

/// Whether the job's parts depend on the columns of its inputs.
pub(crate) fn needs_columns(spec: &JobSpec) -> bool {
    keeps_fields(spec) && spec.output_format.has_types()
}

/// The job's parts, if its inputs keep these columns, in reading order; `None` means an input whose rows have
/// their own fields. Fields become columns if all inputs have columns and the format has types.
pub(crate) fn part_options(
    spec: &JobSpec,
    inputs: &[Option<KeptColumns>],
) -> Result<PartOptions, CoordinatorError> {
    let columns: Option<Vec<&KeptColumns>> = inputs.iter().map(Option::as_ref).collect();
    let keep = match columns.as_deref() {
        _ if !keeps_fields(spec) => KeepFields::No,
        Some([first, others @ ..]) if needs_columns(spec) => {
            let merged = others.iter().try_fold((*first).clone(), |all, next| all.merged(next));
            let merged = merged.map_err(|source| CoordinatorError::MixedColumns { source })?;
            if merged.is_empty() { KeepFields::No } else { KeepFields::AsColumns(merged) }
        }
        _ => KeepFields::AsJson,
    };
    let has_alternatives = spec.generation.n_best > 1;
    let parts = PartOptions {
        format: spec.output_format,
        has_origin: spec.origin,
        has_alternatives,
        quality: spec.generation.quality,
        has_tier: !spec.tiers.is_empty(),
        keep,
    };
    // An empty part shows whether the format can hold these columns.
    parts.part([]).map_err(|source| CoordinatorError::PartFormat { source })?;
    Ok(parts)
}

fn keeps_fields(spec: &JobSpec) -> bool {
    spec.keep_fields || spec.format.is_some_and(Format::keeps_own_fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(csv: &str) -> KeptColumns {
        let options = JobSpec { keep_fields: true, ..JobSpec::default() }.reader_options();
        let source = InputSource::Stream(Box::new(io::Cursor::new(csv.to_owned())));
        baton_formats::check_fields("a.csv", source, &options).unwrap().unwrap()
    }

    #[test]
    fn fields_are_columns_where_all_inputs_have_columns_and_the_format_has_types() {
        let inputs = [Some(columns("id,text,lang\n1,a,en\n")), Some(columns("text,topic\nb,mail\n"))];
        let spec = |keep_fields: bool, format: &str| JobSpec {
            keep_fields,
            output_format: format.parse().unwrap(),
            ..JobSpec::default()
        };
        let keep = |spec: JobSpec, inputs: &[Option<KeptColumns>]| part_options(&spec, inputs).unwrap().keep;
        let KeepFields::AsColumns(kept) = keep(spec(true, "parquet"), &inputs) else { panic!("columns") };
        assert_eq!(kept.names().collect::<Vec<_>>(), ["text", "lang", "topic"]);
        assert_eq!(keep(spec(true, "parquet"), &[inputs[0].clone(), None]), KeepFields::AsJson);
        assert_eq!(keep(spec(true, "parquet"), &[]), KeepFields::AsJson);
        assert_eq!(keep(spec(true, "jsonl"), &inputs), KeepFields::AsJson);
        assert_eq!(keep(spec(false, "parquet"), &inputs), KeepFields::No);
    }
}
