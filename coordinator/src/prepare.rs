//! Before anything is processed: which inputs, which output directory, and whether the two belong together.

use std::time::Duration;

use baton_job::layout::{
    JOB_RECORD_KEY, MANIFEST_KEY, PART_PREFIX, errors_key, part_key, shard_of_part_key, verdict_key,
};
use baton_job::{
    InputFormat, InputObject, JobError, JobRecord, JobSpec, Manifest, ShardIndex, Totals, Verdict,
};
use baton_store::{CreateOutcome, InputFile, Location, Store, is_named_by, list_inputs};
use bytes::Bytes;

use crate::{CoordinatorError, JobReport};

/// A job whose inputs are listed and whose output directory may be used for it. Nothing is written yet.
#[derive(Debug)]
pub struct PreparedJob {
    pub(crate) spec: JobSpec,
    pub(crate) store: Store,
    pub(crate) record: JobRecord,
    pub(crate) inputs: Vec<InputFile>,
}

/// What earlier runs of a job have committed.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    pub(crate) shards: Vec<ShardIndex>,
    pub(crate) totals: Totals,
}

impl PreparedJob {
    /// Lists the inputs, opens the output directory, and compares the job with the one that was begun there, if any.
    ///
    /// # Errors
    /// The spec is not valid; an input is missing or of an unknown format; the output directory lies among the inputs, or holds
    /// another job, or files without a job.
    pub async fn open(spec: JobSpec, bundle_digest: &str) -> Result<PreparedJob, CoordinatorError> {
        spec.validate()?;
        let inputs = list_inputs(&spec.inputs).await?;
        for input in &inputs {
            InputFormat::of(&input.uri, spec.format)?;
        }
        let output = Location::parse(&spec.output)?;
        check_apart_from_inputs(&spec, &output)?;
        let store = Store::open(output).await?;
        let listed = inputs.iter().map(|InputFile { uri, size, etag }| InputObject {
            uri: uri.clone(),
            size: *size,
            etag: etag.clone(),
        });
        let record = JobRecord::new(spec.output_definition(), bundle_digest.to_owned(), listed.collect());
        let job = PreparedJob { spec, store, record, inputs };
        match job.store.get(JOB_RECORD_KEY).await? {
            Some(recorded) => job.check_resumable(&recorded)?,
            None => job.check_empty().await?,
        }
        Ok(job)
    }

    /// The report of a job that was complete before; `None` if there is something left to do.
    ///
    /// # Errors
    /// The manifest cannot be read, or is not one.
    pub async fn finished_report(&self) -> Result<Option<JobReport>, CoordinatorError> {
        let Some(bytes) = self.store.get(MANIFEST_KEY).await? else { return Ok(None) };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|source| {
            JobError::CorruptObject { key: MANIFEST_KEY.to_owned(), what: "manifest", source }
        })?;
        let totals = manifest.totals;
        Ok(Some(JobReport { was_complete: true, ..JobReport::complete(totals, totals, Duration::ZERO) }))
    }

    /// Begins the job: records it in the output directory, unless an earlier run or another coordinator has.
    pub(crate) async fn begin(&self) -> Result<(), CoordinatorError> {
        match self.store.create(JOB_RECORD_KEY, self.record.to_json().into()).await? {
            CreateOutcome::Created => Ok(()),
            CreateOutcome::AlreadyExists => {
                let recorded = self.store.get(JOB_RECORD_KEY).await?.unwrap_or_default();
                self.check_resumable(&recorded)
            }
        }
    }

    /// Lists committed shards and sums up their verdicts; reads no output.
    pub(crate) async fn committed(&self) -> Result<Committed, CoordinatorError> {
        let mut committed = Committed::default();
        for object in self.store.list(PART_PREFIX).await? {
            if let Some(shard) = shard_of_part_key(&object.key) {
                committed.totals.add(&self.verdict(shard).await?);
                committed.shards.push(shard);
            }
        }
        Ok(committed)
    }

    /// The verdict of a committed shard.
    pub(crate) async fn verdict(&self, shard: ShardIndex) -> Result<Verdict, CoordinatorError> {
        let bytes = self.store.get(&verdict_key(shard)).await?.unwrap_or_default();
        Ok(Verdict::from_json(shard, &bytes)?)
    }

    /// Names the job in logs: the beginning of its record's hash would say no more than its output.
    pub(crate) fn id(&self) -> String {
        self.spec.output.clone()
    }

    fn check_resumable(&self, recorded: &Bytes) -> Result<(), CoordinatorError> {
        Ok(JobRecord::from_json(recorded)?.check_resumable(&self.record)?)
    }

    async fn check_empty(&self) -> Result<(), CoordinatorError> {
        match self.store.list("").await?.into_iter().next() {
            None => Ok(()),
            Some(object) => Err(CoordinatorError::OutputNotEmpty {
                location: self.spec.output.clone(),
                example: object.key,
            }),
        }
    }
}

/// Refuses an output whose objects the next run would list as input.
fn check_apart_from_inputs(spec: &JobSpec, output: &Location) -> Result<(), CoordinatorError> {
    let first = ShardIndex(0);
    let written = [output.join(&part_key(first)), output.join(&errors_key(first))];
    for pattern in &spec.inputs {
        for object in &written {
            if is_named_by(pattern, object)? {
                let (pattern, location) = (pattern.clone(), spec.output.clone());
                return Err(CoordinatorError::OutputAmongInputs { pattern, location });
            }
        }
    }
    Ok(())
}
