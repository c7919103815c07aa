//! The two objects that frame a job: `_baton/job.json`, created first, and `_SUCCESS`, written last.

use std::collections::BTreeMap;
use std::io::{self, Write};

use baton_formats::PartFormat;
use serde::{Deserialize, Serialize};

use crate::layout::{JOB_RECORD_KEY, MANIFEST_KEY, part_key};
use crate::{JobError, OutputDefinition, ReuseCounts, Totals, Verdict};

/// Version of the output directory's layout.
pub const FORMAT_VERSION: u32 = 1;

/// A message lists this many changed input files and counts the rest.
const MAX_INPUT_DIFFERENCES: usize = 5;

/// Everything that determines a job's shards and output bytes. A rerun with another record is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Version of the layout.
    pub format_version: u32,
    /// The part of the spec that defines output bytes.
    pub spec: OutputDefinition,
    /// Digest of the bundle, which may lie anywhere.
    pub bundle_digest: String,
    /// The input listing, in reading order.
    pub inputs: Vec<InputObject>,
}

/// One input file at the beginning of the job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputObject {
    /// The file's name in the listing.
    pub uri: String,
    /// Stored bytes.
    pub size: u64,
    /// Changes when the content does.
    pub etag: String,
}

/// The result of a finished job, without its parts: the head of the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestSummary {
    /// Version of the layout.
    pub format_version: u32,
    /// Version of the Baton that wrote the manifest.
    pub baton_version: String,
    /// Digest of the bundle.
    pub bundle_digest: String,
    /// Counts over all parts.
    pub totals: Totals,
    /// How it went.
    pub timings: Timings,
}

/// A manifest that is being built. The entries of its parts, about 140 bytes each, are written as they come,
/// so memory stays flat.
#[derive(Debug)]
pub struct ManifestBuilder<W> {
    format: PartFormat,
    totals: Totals,
    parts: W,
}

/// A manifest in three pieces: the beginning, the entries of its parts, and the end.
#[derive(Debug)]
pub struct ManifestPieces<W> {
    /// The beginning.
    pub head: Vec<u8>,
    /// The entries.
    pub parts: W,
    /// The end.
    pub tail: &'static [u8],
}

/// How a job went: its duration, and what it did not have to write. For a restarted job, of its last run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// The time of writing the manifest, in seconds since 1970.
    pub finished_unix_seconds: u64,
    /// From the start of the last run to its last commit.
    pub last_run_seconds: f64,
    /// The origin of the outputs that the last run committed.
    #[serde(default, skip_serializing_if = "ReuseCounts::is_empty")]
    pub last_run_reuse: ReuseCounts,
}

/// One part of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Key in the output directory.
    pub key: String,
    /// Output rows.
    pub rows: u64,
    /// Error rows beside it.
    pub errors: u64,
    /// Size.
    pub bytes: u64,
    /// sha256, hexadecimal.
    pub sha256: String,
}

impl JobRecord {
    /// Records a job.
    pub fn new(spec: OutputDefinition, bundle_digest: String, inputs: Vec<InputObject>) -> JobRecord {
        JobRecord { format_version: FORMAT_VERSION, spec, bundle_digest, inputs }
    }

    /// The bytes of the object.
    pub fn to_json(&self) -> Vec<u8> {
        pretty(self)
    }

    /// Reads the object.
    ///
    /// # Errors
    /// [`JobError::FormatVersion`] or [`JobError::CorruptObject`].
    pub fn from_json(bytes: &[u8]) -> Result<JobRecord, JobError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let key = || JOB_RECORD_KEY.to_owned();
        let corrupt = |source| JobError::CorruptObject { key: key(), what: "job record", source };
        let Version { format_version: found } = serde_json::from_slice(bytes).map_err(corrupt)?;
        if found != FORMAT_VERSION {
            return Err(JobError::FormatVersion { key: key(), found, supported: FORMAT_VERSION });
        }
        serde_json::from_slice(bytes).map_err(corrupt)
    }

    /// Decides whether `current` may continue in the output directory of this recorded job.
    ///
    /// # Errors
    /// [`JobError::DifferentJob`], with every difference named.
    pub fn check_resumable(&self, current: &JobRecord) -> Result<(), JobError> {
        let differences = self.differences(current);
        if differences.is_empty() {
            return Ok(());
        }
        let only_inputs = (&self.spec, &self.bundle_digest) == (&current.spec, &current.bundle_digest);
        Err(JobError::DifferentJob { differences, only_inputs })
    }

    /// Names each difference between this recorded job and `current`.
    pub fn differences(&self, current: &JobRecord) -> Vec<String> {
        let mut differences = self.spec.differences(&current.spec);
        if self.bundle_digest != current.bundle_digest {
            let (recorded, current) = (&self.bundle_digest, &current.bundle_digest);
            differences.push(format!("the bundle was {recorded}, now {current}"));
        }
        let mut inputs = input_differences(&self.inputs, &current.inputs);
        if inputs.len() > MAX_INPUT_DIFFERENCES {
            let num_more = inputs.len() - MAX_INPUT_DIFFERENCES;
            inputs.truncate(MAX_INPUT_DIFFERENCES);
            inputs.push(format!("{num_more} more inputs changed"));
        }
        differences.extend(inputs);
        differences
    }
}

impl ManifestSummary {
    /// Reads the head of a manifest.
    ///
    /// # Errors
    /// [`JobError::CorruptObject`].
    pub fn from_json(bytes: &[u8]) -> Result<ManifestSummary, JobError> {
        serde_json::from_slice(bytes).map_err(|source| JobError::CorruptObject {
            key: MANIFEST_KEY.to_owned(),
            what: "manifest",
            source,
        })
    }
}

impl<W: Write> ManifestBuilder<W> {
    /// A manifest without parts yet. Its parts have this format, and their entries are written to `parts`.
    pub fn new(format: PartFormat, parts: W) -> Self {
        ManifestBuilder { format, totals: Totals::default(), parts }
    }

    /// Adds a committed shard. Shards are added in order.
    ///
    /// # Errors
    /// The entry cannot be written.
    pub fn add(&mut self, verdict: &Verdict) -> io::Result<()> {
        let entry = PartEntry {
            key: part_key(verdict.shard, self.format),
            rows: verdict.outputs.rows,
            errors: verdict.failed.len() as u64,
            bytes: verdict.outputs.bytes,
            sha256: verdict.outputs.sha256.clone(),
        };
        let separator: &[u8] = if self.totals.shards == 0 { b"\n    " } else { b",\n    " };
        self.totals.add(verdict);
        self.parts.write_all(separator)?;
        Ok(serde_json::to_writer(&mut self.parts, &entry)?)
    }

    /// Counts over the parts added so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The pieces of the manifest.
    pub fn finish(self, bundle_digest: String, timings: Timings) -> ManifestPieces<W> {
        let head = ManifestSummary {
            format_version: FORMAT_VERSION,
            baton_version: env!("CARGO_PKG_VERSION").to_owned(),
            bundle_digest,
            totals: self.totals,
            timings,
        };
        let mut head = pretty(&head);
        head.truncate(head.len() - "\n}\n".len());
        head.extend_from_slice(b",\n  \"parts\": [");
        ManifestPieces { head, parts: self.parts, tail: b"\n  ]\n}\n" }
    }
}

fn pretty(object: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(object).expect("plain data with string keys serializes");
    bytes.push(b'\n');
    bytes
}

fn input_differences(recorded: &[InputObject], current: &[InputObject]) -> Vec<String> {
    let by_uri: BTreeMap<&str, &InputObject> =
        current.iter().map(|input| (input.uri.as_str(), input)).collect();
    let recorded_uris: BTreeMap<&str, ()> = recorded.iter().map(|input| (input.uri.as_str(), ())).collect();
    let mut differences = Vec::new();
    for before in recorded {
        match by_uri.get(before.uri.as_str()) {
            None => differences.push(format!("input {} is gone", before.uri)),
            Some(now) if now.size != before.size => {
                differences.push(format!("input {} had {} bytes, now {}", before.uri, before.size, now.size));
            }
            Some(now) if now.etag != before.etag => {
                differences.push(format!(
                    "input {} was modified (etag {}, now {})",
                    before.uri, before.etag, now.etag
                ));
            }
            Some(_) => {}
        }
    }
    let is_new = |input: &&InputObject| !recorded_uris.contains_key(input.uri.as_str());
    differences.extend(current.iter().filter(is_new).map(|input| format!("input {} is new", input.uri)));
    if differences.is_empty() && recorded != current {
        differences.push("the inputs are the same in another order".to_owned());
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobSpec;
    use crate::verdict::tests::verdict;

    fn input(uri: &str, size: u64, etag: &str) -> InputObject {
        InputObject { uri: uri.into(), size, etag: etag.into() }
    }

    fn record() -> JobRecord {
        let inputs = vec![input("a.txt", 1, "e1"), input("b.txt", 2, "e2"), input("c.txt", 3, "e3")];
        JobRecord::new(JobSpec::default().output_definition(), "digest".into(), inputs)
    }

    #[test]
    fn a_job_record_survives_its_json_and_may_be_resumed() {
        let mut record = record();
        record.spec.generation.max_new_tokens_per_prompt_token = Some(1.2);
        let read = JobRecord::from_json(&record.to_json()).unwrap();
        assert_eq!(read, record);
        read.check_resumable(&record).unwrap();
    }

    #[test]
    fn every_difference_is_named() {
        let mut current = record();
        current.spec.keep_fields = true;
        current.bundle_digest = "other".into();
        current.inputs = vec![input("a.txt", 9, "e1"), input("b.txt", 2, "e9"), input("d.txt", 3, "e3")];
        assert_eq!(
            record().differences(&current),
            [
                "`keep_fields` was false, now true",
                "the bundle was digest, now other",
                "input a.txt had 1 bytes, now 9",
                "input b.txt was modified (etag e2, now e9)",
                "input c.txt is gone",
                "input d.txt is new",
            ]
        );
        let error = record().check_resumable(&current).unwrap_err().to_string();
        assert!(error.contains("`keep_fields` was false, now true; the bundle"), "{error}");
    }

    #[test]
    fn another_order_of_inputs_is_another_job_and_long_lists_are_cut() {
        let mut current = record();
        current.inputs.reverse();
        assert_eq!(record().differences(&current), ["the inputs are the same in another order"]);
        current.inputs.extend((0..20).map(|index| input(&format!("new-{index}"), 1, "")));
        let differences = record().differences(&current);
        assert_eq!(differences.len(), MAX_INPUT_DIFFERENCES + 1);
        assert_eq!(differences.last().unwrap(), "15 more inputs changed");
    }

    #[test]
    fn a_record_of_another_version_or_a_corrupt_one_is_refused() {
        let error = JobRecord::from_json(b"{\"format_version\": 2}").unwrap_err().to_string();
        assert!(error.starts_with("_baton/job.json has format version 2, this Baton writes 1"), "{error}");
        let error = JobRecord::from_json(b"{").unwrap_err().to_string();
        assert!(error.starts_with("_baton/job.json is not a valid job record"), "{error}");
    }

    fn json_of(verdicts: &[Verdict]) -> Vec<u8> {
        let mut manifest = ManifestBuilder::new(PartFormat::default(), Vec::new());
        for verdict in verdicts {
            manifest.add(verdict).unwrap();
        }
        let last_run_reuse = ReuseCounts { segments: 9, cached: 8, ..ReuseCounts::default() };
        let timings = Timings { finished_unix_seconds: 5, last_run_seconds: 1.5, last_run_reuse };
        let ManifestPieces { head, parts, tail } = manifest.finish("digest".into(), timings);
        [&head, &parts[..], tail].concat()
    }

    #[test]
    fn a_manifest_lists_parts_and_sums_them_up() {
        let json = json_of(&[verdict(0, 3, 1), verdict(1, 4, 0)]);
        let summary = ManifestSummary::from_json(&json).unwrap();
        assert_eq!((summary.totals.records, summary.timings.finished_unix_seconds), (8, 5));
        assert_eq!(summary.timings.last_run_reuse.cached, 8);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let parts: Vec<PartEntry> = serde_json::from_value(json["parts"].clone()).unwrap();
        let keys: Vec<&str> = parts.iter().map(|part| part.key.as_str()).collect();
        assert_eq!(keys, ["part-000000.jsonl", "part-000001.jsonl"]);
        assert_eq!(parts[0].errors, 1);
    }

    #[test]
    fn a_manifest_of_no_parts_is_json_too() {
        let json = json_of(&[]);
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&json).unwrap()["parts"],
            serde_json::json!([])
        );
        assert!(ManifestSummary::from_json(b"{}").unwrap_err().to_string().starts_with("_SUCCESS is not"));
    }
}
