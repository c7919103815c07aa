//! The inputs that a job takes: all, or those that no finished job has done.
//!
//! A finished job's `_SUCCESS` marks its inputs as done, and its `_baton/job.json` lists them. A failed night
//! therefore marks nothing, and nothing is kept besides the outputs.

use std::collections::HashSet;

use baton_job::layout::{ERRORS_PREFIX, JOB_RECORD_KEY, MANIFEST_KEY, REVIEW_KEY, shard_of_part_key};
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

/// The listed files without those about other rows: error rows and outputs for review in other jobs' outputs,
/// which are directories with parts. A file that the spec itself names stays.
pub(crate) fn without_rows_about_rows(spec: &JobSpec, mut listed: Vec<InputFile>) -> Vec<InputFile> {
    let is_part = |uri: &&str| uri.rsplit('/').next().is_some_and(|name| shard_of_part_key(name).is_some());
    let uris = listed.iter().map(|input| input.uri.as_str());
    let outputs: HashSet<String> = uris.filter(is_part).map(|uri| directory_of(uri).to_owned()).collect();
    listed.retain(|InputFile { uri, .. }| {
        let is_in_output =
            |key: &str| uri.strip_suffix(key).is_some_and(|directory| outputs.contains(directory));
        let name = &uri[directory_of(uri).len()..];
        let is_about_rows = is_in_output(REVIEW_KEY)
            || is_in_output(&format!("{ERRORS_PREFIX}{name}")) && is_part(&uri.as_str());
        !is_about_rows || spec.inputs.contains(uri)
    });
    listed
}

/// The beginning of a file's URI, up to its name.
fn directory_of(uri: &str) -> &str {
    &uri[..uri.rfind('/').map_or(0, |slash| slash + 1)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_about_the_rows_of_another_jobs_output_are_no_inputs() {
        let kept = |patterns: &[&str], uris: &[&str]| -> Vec<String> {
            let inputs = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            let spec = JobSpec { inputs, ..JobSpec::default() };
            let file = |&uri: &&str| InputFile { uri: uri.to_owned(), size: 1, etag: String::new() };
            let kept = without_rows_about_rows(&spec, uris.iter().map(file).collect());
            kept.into_iter().map(|input| input.uri).collect()
        };
        let output = ["a/errors/part-000000.jsonl", "a/part-000000.jsonl.zst", "a/review.jsonl"];
        assert_eq!(kept(&["a"], &output), ["a/part-000000.jsonl.zst"]);
        assert_eq!(kept(&["a", "a/review.jsonl"], &output), ["a/part-000000.jsonl.zst", "a/review.jsonl"]);
        let others =
            ["a/errors/part-000000.jsonl", "a/review.jsonl", "b/errors/mail.jsonl", "b/part-000000.jsonl"];
        assert_eq!(kept(&["a", "b"], &others), others, "no part lies beside them, or they have other names");
        assert_eq!(kept(&["s3://x/"], &["s3://x/part-000000.parquet", "s3://x/review.jsonl"]).len(), 1);
        assert_eq!(kept(&["."], &["part-000000.jsonl", "review.jsonl"]), ["part-000000.jsonl"]);
    }
}
