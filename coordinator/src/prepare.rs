//! Before anything is processed: which inputs, which output directory, and whether the two belong together.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_job::layout::{
    AMENDMENT_PREFIX, BROKEN_PREFIX, JOB_RECORD_KEY, MANIFEST_KEY, PART_PREFIX, amendment_key, errors_key,
    part_key, place_of_broken_input_key, shard_of_amendment_key, shard_of_part_key, verdict_key,
};
use baton_job::{
    BrokenInput, Format, JobError, JobRecord, JobSpec, ManifestSummary, PartOptions, Partition, ShardIndex,
    ShardSet, Totals, Verdict, sha256_hex,
};
use baton_store::{CreateOutcome, InputFile, Location, Store, is_named_by, list_inputs};
use baton_telemetry::JobTrace;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;

use crate::new_inputs::{input_object, new_inputs, recorded_inputs, without_rows_about_rows};
use crate::share::Share;
use crate::source::{needs_columns, part_options};
use crate::spool::{STANDARD_INPUT, Spool};
use crate::tiers::TiersDone;
use crate::{CoordinatorError, JobReport};

/// Verdicts read at once, where many are: hides the latency of an object store.
pub(crate) const CONCURRENT_READS: usize = 32;

/// A job whose inputs are listed and whose output directory may be used for it.
#[derive(Debug)]
pub struct PreparedJob {
    pub(crate) spec: JobSpec,
    pub(crate) store: Store,
    pub(crate) record: JobRecord,
    pub(crate) inputs: Vec<InputFile>,
    pub(crate) spool: Option<Spool>,
    pub(crate) partition: Partition,
    pub(crate) parts: PartOptions,
    pub(crate) trace: JobTrace,
}

/// The committed work of a job's earlier runs.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// Of all partitions.
    pub(crate) shards: ShardSet,
    /// Of the present share.
    pub(crate) totals: Totals,
    /// Inputs that were found broken, by their place in the listing.
    pub(crate) broken: BTreeMap<usize, BrokenInput>,
    /// Of the present share's other shards, the tiers that are done.
    pub(crate) tiers_done: TiersDone,
}

impl PreparedJob {
    /// The share `partition` of a job: lists the inputs, opens the output directory, and compares the job
    /// with the one that was begun there, if any. Writes nothing, except the job's record if several
    /// coordinators could list different inputs.
    ///
    /// # Errors
    /// The spec is not valid; an input is missing or of an unknown format; the output directory lies among
    /// the inputs, or holds another job, or files without a job; an input has no field of the name that the
    /// job gives; there is no room for temporary files.
    pub async fn open(
        spec: JobSpec,
        bundle_digest: &str,
        partition: Partition,
    ) -> Result<PreparedJob, CoordinatorError> {
        spec.validate()?;
        let is_spooled = spec.inputs.iter().any(|input| input == STANDARD_INPUT);
        if is_spooled && (spec.inputs.len() > 1 || !partition.is_whole()) {
            return Err(CoordinatorError::StandardInputShared);
        }
        let spool = if is_spooled { Some(Spool::fill().await?) } else { None };
        let listed = match &spool {
            Some(spool) => vec![spool.input.clone()],
            None => without_rows_about_rows(&spec, list_inputs(&spec.inputs).await?),
        };
        for input in &listed {
            Format::of(&input.uri, spec.format).map_err(JobError::from)?;
        }
        let output = Location::parse(&spec.output)?;
        check_apart_from_inputs(&spec, &output)?;
        let store = Store::open(output).await?;
        let recorded = store.get(JOB_RECORD_KEY).await?;
        let inputs = match &recorded {
            Some(record) if spec.skip_done.is_some() => {
                recorded_inputs(&JobRecord::from_json(record)?, listed)
            }
            Some(_) => listed,
            None => new_inputs(&spec, listed).await?,
        };
        let listed = inputs.iter().map(input_object).collect();
        let record = JobRecord::new(spec.output_definition(), bundle_digest.to_owned(), listed);
        let parts = PartOptions::default(); // until the inputs are looked at
        let trace = JobTrace::begin(&spec.output);
        let mut job = PreparedJob { spec, store, record, inputs, spool, partition, parts, trace };
        match &recorded {
            Some(recorded) => job.check_resumable(recorded)?,
            None => job.check_empty().await?,
        }
        let columns = match recorded.is_none() || needs_columns(&job.spec) {
            true => job.look_at_inputs().await?,
            false => Vec::new(),
        };
        job.parts = part_options(&job.spec, &columns)?;
        let lists_alike = job.spec.skip_done.is_none() || job.partition.is_whole();
        let is_first = recorded.is_some() || lists_alike || {
            // If another coordinator was first, its listing is the job's.
            job.create_record().await? == CreateOutcome::Created
        };
        if !is_first {
            return Box::pin(PreparedJob::open(job.spec, bundle_digest, partition)).await;
        }
        // The manifest is put together in one, when all the work is done.
        tempfile::tempfile().map_err(|source| CoordinatorError::Spool { source })?;
        Ok(job)
    }

    /// The report of a job that was complete before; `None` if there is something left to do.
    ///
    /// # Errors
    /// The manifest cannot be read, or is not one.
    pub async fn finished_report(&self) -> Result<Option<JobReport>, CoordinatorError> {
        let Some(bytes) = self.store.get(MANIFEST_KEY).await? else { return Ok(None) };
        let totals = ManifestSummary::from_json(&bytes)?.totals;
        let report = JobReport::complete(totals.clone(), totals, Duration::ZERO);
        Ok(Some(JobReport { was_complete: true, job_has_ended: true, ..report }))
    }

    /// Begins the job: records it in the output directory, unless an earlier run or another coordinator has.
    pub(crate) async fn begin(&self) -> Result<(), CoordinatorError> {
        match self.create_record().await? {
            CreateOutcome::Created => Ok(()),
            CreateOutcome::AlreadyExists => {
                let recorded = self.store.get(JOB_RECORD_KEY).await?.unwrap_or_default();
                self.check_resumable(&recorded)
            }
        }
    }

    async fn create_record(&self) -> Result<CreateOutcome, CoordinatorError> {
        Ok(self.store.create(JOB_RECORD_KEY, self.record.to_json().into()).await?)
    }

    /// Lists committed shards and sums up the verdicts of those in `share`; reads no output.
    pub(crate) async fn committed(&self, share: &Share) -> Result<Committed, CoordinatorError> {
        let shards = self.list_parts().await?;
        let own = shards.iter().filter(|&shard| share.has(shard));
        let totals = self.add_verdicts(Totals::default(), own).await?;
        let tiers_done = self.tiers_done(share, &shards).await?;
        Ok(Committed { shards, totals, broken: self.broken_inputs().await?, tiers_done })
    }

    /// The inputs that some run of the job has found broken, by their place in the listing.
    pub(crate) async fn broken_inputs(&self) -> Result<BTreeMap<usize, BrokenInput>, CoordinatorError> {
        let mut broken = BTreeMap::new();
        for object in self.store.list(BROKEN_PREFIX).await? {
            let Some(place) = place_of_broken_input_key(&object.key) else { continue };
            let bytes = self.store.get(&object.key).await?.unwrap_or_default();
            broken.insert(place, BrokenInput::from_json(&object.key, &bytes)?);
        }
        Ok(broken)
    }

    /// Adds the verdicts of committed `shards` to `totals`.
    pub(crate) async fn add_verdicts(
        &self,
        mut totals: Totals,
        shards: impl Iterator<Item = ShardIndex>,
    ) -> Result<Totals, CoordinatorError> {
        let amended = &self.list_amended().await?;
        let verdicts = shards.map(|shard| self.verdict(shard, amended));
        let mut verdicts = stream::iter(verdicts).buffer_unordered(CONCURRENT_READS);
        while let Some(verdict) = verdicts.next().await {
            totals.add(&verdict?);
        }
        Ok(totals)
    }

    /// Every shard that is committed, by whomever.
    pub(crate) async fn list_parts(&self) -> Result<ShardSet, CoordinatorError> {
        let add = |shards: &mut ShardSet, key: &str| shards.extend(shard_of_part_key(key));
        Ok(self.store.fold_keys(PART_PREFIX, ShardSet::default(), add).await?)
    }

    /// Every shard whose first verdict may not be the one that its part follows. There is hardly ever one.
    pub(crate) async fn list_amended(&self) -> Result<ShardSet, CoordinatorError> {
        let add = |shards: &mut ShardSet, key: &str| shards.extend(shard_of_amendment_key(key));
        Ok(self.store.fold_keys(AMENDMENT_PREFIX, ShardSet::default(), add).await?)
    }

    /// The verdict that a committed shard's part follows. The part is read only if the shard is among the
    /// `amended`.
    pub(crate) async fn verdict(
        &self,
        shard: ShardIndex,
        amended: &ShardSet,
    ) -> Result<Verdict, CoordinatorError> {
        if amended.contains(shard)
            && let Some(part) = self.store.get(&part_key(shard, self.spec.output_format)).await?
            && let Some(bytes) = self.store.get(&amendment_key(shard, &sha256_hex(&part))).await?
        {
            return Ok(Verdict::from_json(shard, &bytes)?);
        }
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
        let Some(object) = self.store.list("").await?.into_iter().next() else { return Ok(()) };
        match self.store.get(JOB_RECORD_KEY).await? {
            Some(recorded) => self.check_resumable(&recorded), // another coordinator began it meanwhile
            None => Err(CoordinatorError::OutputNotEmpty {
                location: self.spec.output.clone(),
                example: object.key,
            }),
        }
    }
}

/// Refuses an output whose objects the next run would list as input.
fn check_apart_from_inputs(spec: &JobSpec, output: &Location) -> Result<(), CoordinatorError> {
    let first = ShardIndex(0);
    let written = [output.join(&part_key(first, spec.output_format)), output.join(&errors_key(first))];
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
