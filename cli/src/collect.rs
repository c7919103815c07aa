//! `baton collect`: all parts of a finished job, in the order of the input, as one file of any format.
//!
//! Parts are streamed one after the other; memory holds a few of them. The file appears whole or not at all,
//! so an interrupted run can be repeated. Parts that have the file's format already are copied.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use baton_formats::{
    Format, IdCensus, KeepFields, PartFormat, PartWriter, RecordFailure, RowError, Separator, WriteOptions,
};
use baton_job::layout::{JOB_RECORD_KEY, MANIFEST_KEY, part_key, verdict_key};
use baton_job::{JobRecord, ManifestSummary, ShardIndex, Verdict};
use baton_store::{Location, Store};
use baton_telemetry::tell;
use bytes::Bytes;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use futures_util::{StreamExt, stream};

/// Parts read at once, to hide the latency of an object store.
const CONCURRENT_READS: usize = 4;

/// Puts all parts of a job together, in the order of the input.
#[derive(Debug, clap::Args)]
pub(crate) struct CollectArgs {
    /// Output directory or prefix of a finished job. Examples: out; s3://bucket/out
    #[arg(value_name = "OUT")]
    output: String,
    /// File to write, or - for standard output. The file's name tells format and compression. Examples:
    /// all.jsonl.zst; all.csv; all.txt
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Format of the file, if its name does not tell it.
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(Format::names(Format::writes))
        .map(|name| Format::named(&name).expect("a possible value is a format")))]
    format: Option<Format>,
    /// Also writes failed records, in their places: their error rows, or in .txt a blank line.
    #[arg(long)]
    errors: bool,
    /// Writes failed records to a file of their own, in the same format. Example: --error-file errors.jsonl
    #[arg(long, value_name = "FILE", conflicts_with = "errors")]
    error_file: Option<PathBuf>,
    /// The byte between cells of a table: one character, or tab.
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<Separator>,
    /// Replaces the file if it exists.
    #[arg(long)]
    force: bool,
}

/// Runs `baton collect`.
///
/// # Errors
/// The job is not finished, a part is missing or has changed, or the file cannot be written.
pub(crate) fn run(args: &CollectArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start the async runtime")?.block_on(collect(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn collect(args: &CollectArgs) -> anyhow::Result<()> {
    let is_standard_output = args.file.as_os_str() == "-";
    let name = args.file.to_string_lossy();
    let default = if is_standard_output { Some(PartFormat::default().format()) } else { None };
    let format = PartFormat::of_file(&name, args.format.or(default))?;
    let job = FinishedJob::open(&args.output).await?;
    let mut files = Vec::new();
    let mut output: Box<dyn Write + Send> = Box::new(io::stdout());
    if !is_standard_output {
        files.push(NewFile::open(&args.file, args.force)?);
        output = Box::new(files[0].file.reopen()?);
    }
    let mut failures: Option<Box<dyn Write + Send>> = None;
    if let Some(path) = &args.error_file {
        let file = NewFile::open(path, args.force)?;
        failures = Some(Box::new(BufWriter::new(file.file.reopen()?)));
        files.push(file);
    }
    job.write(Box::new(BufWriter::new(output)), failures, format, args).await?;
    files.into_iter().try_for_each(NewFile::finish)?;
    if !is_standard_output {
        tell!("{name}: {} records, {} failed", job.summary.totals.outputs, job.summary.totals.errors);
    }
    Ok(())
}

/// A file that appears whole.
struct NewFile {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl NewFile {
    fn open(path: &Path, replaces: bool) -> anyhow::Result<NewFile> {
        if path.exists() && !replaces {
            bail!("{} exists; use --force to replace it", path.display());
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)] // like any other file: the process's umask applies
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(directory);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(NewFile { file, path: path.to_owned() })
    }

    fn finish(self) -> anyhow::Result<()> {
        let unwritable = || format!("cannot write {}", self.path.display());
        self.file.as_file().sync_all().with_context(unwritable)?;
        self.file.persist(&self.path).with_context(unwritable)?;
        Ok(())
    }
}

/// A job that has its manifest.
struct FinishedJob {
    store: Store,
    location: String,
    record: JobRecord,
    summary: ManifestSummary,
}

impl FinishedJob {
    async fn open(location: &str) -> anyhow::Result<FinishedJob> {
        let store = Store::open(Location::parse(location)?).await?;
        let Some(record) = store.get(JOB_RECORD_KEY).await? else { bail!("{location} holds no Baton job") };
        let Some(manifest) = store.get(MANIFEST_KEY).await? else {
            bail!("the job in {location} is not finished: it has no {MANIFEST_KEY}; run it to its end first");
        };
        let record = JobRecord::from_json(&record)?;
        let summary = ManifestSummary::from_json(&manifest)?;
        Ok(FinishedJob { store, location: location.to_owned(), record, summary })
    }

    /// A part, and on request its verdict's failed records.
    async fn shard(&self, shard: ShardIndex, errors: bool) -> anyhow::Result<(Bytes, Option<Verdict>)> {
        let key = part_key(shard, self.record.spec.output_format);
        let Some(part) = self.store.get(&key).await? else { bail!("{}/{key} is gone", self.location) };
        let verdict = match errors {
            true => self.store.get(&verdict_key(shard)).await?,
            false => None,
        };
        let verdict = verdict.map(|bytes| Verdict::from_json(shard, &bytes)).transpose()?;
        if let Some(Verdict { failed, failed_at, .. }) = &verdict
            && failed.len() != failed_at.len()
        {
            bail!("{} was written by a Baton that did not record where records failed", self.location);
        }
        Ok((part, verdict))
    }

    async fn write(
        &self,
        mut output: Box<dyn Write + Send>,
        failures_output: Option<Box<dyn Write + Send>>,
        format: PartFormat,
        args: &CollectArgs,
    ) -> anyhow::Result<()> {
        let parts_format = self.record.spec.output_format;
        let num_shards = u32::try_from(self.summary.totals.shards).context("too many shards")?;
        let wants_errors = args.errors || failures_output.is_some();
        let shards = (0..num_shards).map(|shard| self.shard(ShardIndex(shard), wants_errors));
        let mut shards = stream::iter(shards).buffered(CONCURRENT_READS);
        if format == parts_format && format.is_concatenable() && !wants_errors {
            while let Some(shard) = shards.next().await {
                output.write_all(&shard?.0).context("cannot write the rows")?;
            }
            return Ok(output.flush()?);
        }
        let of_failures = WriteOptions { has_origin: true, has_errors: true, ..WriteOptions::default() };
        let mut failure_writer =
            failures_output.map(|output| format.writer(output, &of_failures)).transpose()?;
        let mut output = Some(output);
        let mut writer = None;
        let mut ids = IdCensus::default();
        let mut waiting = Vec::new(); // shards before the first row, which tells the columns
        loop {
            let next = shards.next().await.transpose()?;
            let is_last = next.is_none();
            waiting.extend(next);
            if writer.is_none() {
                let (options, is_known) = self.write_options(&waiting, args)?;
                if !(is_known || is_last) {
                    continue;
                }
                let output = output.take().expect("it is taken once");
                writer = Some(format.writer(output, &options)?);
            }
            let writer = writer.as_mut().expect("it was just made");
            for (part, verdict) in waiting.drain(..) {
                let mut failures =
                    verdict.iter().flat_map(|verdict| verdict.failed_at.iter().zip(&verdict.failed));
                let mut failure = failures.next();
                let mut position = 0;
                for row in parts_format.reader(Box::new(io::Cursor::new(part)))? {
                    while let Some((&at, failed)) = failure
                        && at <= position
                    {
                        write_failure(&mut failure_writer, writer, failed)?;
                        position += 1;
                        failure = failures.next();
                    }
                    let row = row?;
                    ids.add(&row.id);
                    writer.write_row(&row)?;
                    position += 1;
                }
                for (_, failed) in failure.into_iter().chain(failures) {
                    write_failure(&mut failure_writer, writer, failed)?;
                }
            }
            if is_last {
                break;
            }
        }
        if let Some(report) = ids.report() {
            tell!("{report}");
        }
        failure_writer.map_or(Ok(()), PartWriter::finish)?;
        Ok(writer.expect("it was made with the last shard").finish()?)
    }

    /// The options of the written file, and whether these parts tell its kept fields: from the parts, or else
    /// from the first row.
    fn write_options(
        &self,
        shards: &[(Bytes, Option<Verdict>)],
        args: &CollectArgs,
    ) -> anyhow::Result<(WriteOptions, bool)> {
        let spec = &self.record.spec;
        let mut options = WriteOptions {
            has_origin: spec.origin,
            has_errors: args.errors,
            has_alternatives: spec.generation.n_best > 1,
            quality: spec.generation.quality,
            has_tier: !spec.tiers.is_empty(),
            separator: args.separator,
            ..WriteOptions::default()
        };
        for (part, _) in shards {
            let mut rows = spec.output_format.reader(Box::new(io::Cursor::new(part.clone())))?;
            if spec.keep_fields || spec.format.is_some_and(Format::keeps_own_fields) {
                options.keep = rows.keep().clone();
            }
            if let KeepFields::AsColumns(columns) = &options.keep {
                options.kept_fields = columns.names().map(str::to_owned).collect();
                return Ok((options, true));
            }
            if let Some(row) = rows.next().transpose()? {
                options.kept_fields = row.fields.names().map(str::to_owned).collect();
                return Ok((options, true));
            }
        }
        Ok((options, false))
    }
}

/// Failed records go to the error file if there is one, otherwise to their places.
fn write_failure(
    failures: &mut Option<PartWriter<'_>>,
    rows: &mut PartWriter<'_>,
    failed: &RecordFailure,
) -> Result<(), RowError> {
    match failures {
        Some(failures) => failures.write_failure(failed),
        None => rows.write_failure(failed),
    }
}
