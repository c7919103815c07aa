//! Checks a job's output against its own records. Every part and every error file has the bytes that its
//! shard's verdict states; the verdict sums up the results of a cascade's tiers, and the manifest all
//! verdicts. Reads each part once; writes nothing.

use baton_job::layout::{
    ERRORS_PREFIX, JOB_RECORD_KEY, MANIFEST_KEY, PART_PREFIX, amendment_key, errors_key, part_key,
    shard_of_errors_key, shard_of_part_key, tier_key, verdict_key,
};
use baton_job::{
    JobRecord, ManifestSummary, PartFormat, ShardIndex, ShardSet, TierResult, Totals, Verdict, sha256_hex,
};
use baton_store::{Location, Store};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::CoordinatorError;

/// Parts read at once; each is held whole.
const CONCURRENT_PARTS: usize = 8;

/// The state of a job's output.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutputCheck {
    /// Sums over the committed shards that are sound.
    pub totals: Totals,
    /// Whether the output has a manifest.
    pub is_finished: bool,
    /// All that is wrong, each in a line that names the object.
    pub problems: Vec<String>,
}

impl OutputCheck {
    /// Checks the output at `location`.
    ///
    /// # Errors
    /// There is no job, or the store does not answer.
    pub async fn of(location: &str) -> Result<OutputCheck, CoordinatorError> {
        let store = Store::open(Location::parse(location)?).await?;
        let Some(record) = store.get(JOB_RECORD_KEY).await? else {
            return Err(CoordinatorError::NoJob { output: location.to_owned() });
        };
        let spec = JobRecord::from_json(&record)?.spec;
        let (format, num_tiers) = (spec.output_format, spec.tiers.len());
        let add = |shards: &mut ShardSet, key: &str| shards.extend(shard_of_part_key(key));
        let shards = store.fold_keys(PART_PREFIX, ShardSet::default(), add).await?;
        let mut check = OutputCheck::default();
        let found = stream::iter(shards.iter()).map(|shard| check_all(&store, shard, (format, num_tiers)));
        let found: Vec<Result<Verdict, String>> = found.buffered(CONCURRENT_PARTS).try_collect().await?;
        for shard in found {
            match shard {
                Ok(verdict) => check.totals.add(&verdict),
                Err(problem) => check.problems.push(problem),
            }
        }
        if let Some(manifest) = store.get(MANIFEST_KEY).await? {
            check.is_finished = true;
            let add = |shards: &mut ShardSet, key: &str| shards.extend(shard_of_errors_key(key));
            let of_no_part = store.fold_keys(ERRORS_PREFIX, ShardSet::default(), add).await?;
            let of_no_part = of_no_part.iter().filter(|&shard| !shards.contains(shard));
            check.problems.extend(of_no_part.map(|shard| format!("{} has no part", errors_key(shard))));
            check.compare(&ManifestSummary::from_json(&manifest)?.totals, &shards, format);
        }
        Ok(check)
    }

    /// Compares the shards that were found with the sums of the manifest.
    fn compare(&mut self, stated: &Totals, shards: &ShardSet, format: PartFormat) {
        let num_shards = u32::try_from(stated.shards).unwrap_or(u32::MAX);
        let missing = (0..num_shards).map(ShardIndex).filter(|&shard| !shards.contains(shard));
        self.problems.extend(missing.map(|shard| format!("{} is missing", part_key(shard, format))));
        let stray = shards.iter().filter(|shard| shard.0 >= num_shards);
        self.problems
            .extend(stray.map(|shard| format!("{} is none of the job's parts", part_key(shard, format))));
        if self.problems.is_empty() && self.totals != *stated {
            self.problems.push(format!("{MANIFEST_KEY} states other sums than the verdicts"));
        }
    }
}

/// The verdict that the shard's objects follow, or the problem with them.
async fn check_all(
    store: &Store,
    shard: ShardIndex,
    (format, num_tiers): (PartFormat, usize),
) -> Result<Result<Verdict, String>, CoordinatorError> {
    match check_shard(store, shard, format).await? {
        Ok(verdict) => check_tiers(store, verdict, num_tiers).await,
        problem => Ok(problem),
    }
}

/// The verdict that the shard's part and error rows follow, or the problem with them.
async fn check_shard(
    store: &Store,
    shard: ShardIndex,
    format: PartFormat,
) -> Result<Result<Verdict, String>, CoordinatorError> {
    let key = part_key(shard, format);
    let Some(part) = store.get(&key).await? else {
        return Ok(Err(format!("{key} is gone, or has another format than the job's")));
    };
    let sha256 = sha256_hex(&part);
    let mut verdict = None;
    for key in [verdict_key(shard), amendment_key(shard, &sha256)] {
        if let Some(bytes) = store.get(&key).await? {
            match Verdict::from_json(shard, &bytes) {
                Ok(found) if found.outputs.sha256 == sha256 => return check_errors(store, found).await,
                Ok(found) => verdict = Some(found),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }
    Ok(Err(match verdict {
        Some(verdict) => format!(
            "{key} is not what its verdict states: sha256 {sha256}, stated {}",
            verdict.outputs.sha256
        ),
        None => format!("{key} has no verdict, {}", verdict_key(shard)),
    }))
}

/// The verdict, if the shard's error rows are those that it states.
async fn check_errors(store: &Store, verdict: Verdict) -> Result<Result<Verdict, String>, CoordinatorError> {
    let key = errors_key(verdict.shard);
    let stated = verdict.error_rows();
    Ok(match store.get(&key).await? {
        None if stated.is_empty() => Ok(verdict),
        None => Err(format!("{key} is missing")),
        Some(rows) if rows[..] == stated[..] => Ok(verdict),
        Some(_) => Err(format!("{key} is not what its verdict states")),
    })
}

/// The verdict, if the results of the shard's tiers are those that it sums up. The last tier of a cascade has
/// no result of its own.
async fn check_tiers(
    store: &Store,
    verdict: Verdict,
    num_tiers: usize,
) -> Result<Result<Verdict, String>, CoordinatorError> {
    let with_result = verdict.tiers.iter().take(num_tiers.saturating_sub(1));
    for (tier, sums) in (0..).zip(with_result) {
        let key = tier_key(tier, verdict.shard);
        let Some(bytes) = store.get(&key).await? else { return Ok(Err(format!("{key} is missing"))) };
        match TierResult::from_bytes(tier, verdict.shard, bytes) {
            Ok(result) if result.head.sums == *sums => {}
            Ok(_) => return Ok(Err(format!("{key} is not what the shard's verdict sums up"))),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok(verdict))
}
