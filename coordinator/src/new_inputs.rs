//! The inputs that a job takes: all, or those that no finished job has done.
//!
//! A finished job's `_SUCCESS` marks its inputs as done, and its `_baton/job.json` lists them. A failed night
//! therefore marks nothing, and nothing is kept besides the outputs.

use std::collections::HashSet;

use baton_job::layout::{JOB_RECORD_KEY, MANIFEST_KEY};
use baton_job::{InputObject, JobRecord, JobSpec};
use baton_store::{InputFile, Location, Store};
use futures_util::stream;
use futures_util::{StreamExt, TryStreamExt};

use crate::CoordinatorError;
use crate::prepare::CONCURRENT_READS;

/// The inputs of a job that begins now: of those listed, the ones that no finished job has done, if the spec
/// says so.
pub(crate) async fn new_inputs(
    spec: &JobSpec,
    mut listed: Vec<InputFile>,
) -> Result<Vec<InputFile>, CoordinatorError> {
    if let Some(prefix) = &spec.skip_done {
        let done = done_below(prefix).await?;
        let num_listed = listed.len();
        listed.retain(|input| !done.contains(&input_object(input)));
        let skipped = num_listed - listed.len();
        tracing::info!(new = listed.len(), skipped, "skipped the inputs of finished jobs");
    }
    Ok(listed)
}

/// The inputs of a job that began earlier: of those listed, the ones that its record names. It leaves out
/// later arrivals.
pub(crate) fn recorded_inputs(record: &JobRecord, mut listed: Vec<InputFile>) -> Vec<InputFile> {
    let recorded: HashSet<&str> = record.inputs.iter().map(|input| input.uri.as_str()).collect();
    listed.retain(|input| recorded.contains(input.uri.as_str()));
    listed
}

/// An input, in the form of the job's record.
pub(crate) fn input_object(InputFile { uri, size, etag }: &InputFile) -> InputObject {
    InputObject { uri: uri.clone(), size: *size, etag: etag.clone() }
}

/// The inputs of all successful jobs whose outputs lie directly below `prefix`.
async fn done_below(prefix: &str) -> Result<HashSet<InputObject>, CoordinatorError> {
    let inputs_of = async |store: &Store, output: String| -> Result<Vec<InputObject>, CoordinatorError> {
        if store.head(&format!("{output}/{MANIFEST_KEY}")).await?.is_none() {
            return Ok(Vec::new());
        }
        match store.get(&format!("{output}/{JOB_RECORD_KEY}")).await? {
            Some(record) => Ok(JobRecord::from_json(&record)?.inputs),
            None => {
                Err(CoordinatorError::RecordMissing { output: store.location().join(&output).to_string() })
            }
        }
    };
    Ok(of_each_output_below(prefix, inputs_of).await?.into_iter().flatten().collect())
}

/// The results of `read` for each job whose output lies directly below `prefix`, in any order.
pub(crate) async fn of_each_output_below<T>(
    prefix: &str,
    read: impl AsyncFn(&Store, String) -> Result<T, CoordinatorError>,
) -> Result<Vec<T>, CoordinatorError> {
    let store = Store::open(Location::parse(prefix)?).await?;
    let outputs = store.list_directories().await?;
    stream::iter(outputs)
        .map(|output| read(&store, output))
        .buffer_unordered(CONCURRENT_READS)
        .try_collect()
        .await
}
