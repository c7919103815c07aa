//! The speed of this machine at a job, measured on a sample of its records. The sample runs as a job into a
//! temporary directory, so nothing is written where the job will write.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use baton_bench::peak_memory_bytes;
use baton_coordinator::{JobPlan, PreparedJob, RunOptions};
use baton_job::{GenerationOptions, JobSpec, PartFormat, Partition, ShardLimits, Totals};
use serde_json::json;

use crate::run::{MachineArgs, run_unwatched};

/// Small shards, so that reading and writing overlap as in a long job.
const RECORDS_PER_SHARD: u32 = 32;

/// The measured run of a sample.
#[derive(Debug)]
pub(super) struct Calibration {
    /// Bytes of the sample's texts.
    text_num_bytes: u64,
    pub(super) totals: Totals,
    /// Without loading the models.
    pub(super) elapsed: Duration,
    /// Peak of this process; `None` where the system does not say.
    pub(super) peak_memory_num_bytes: Option<u64>,
}

/// The needs of a whole job on this machine, in proportion to the bytes of its texts.
#[derive(Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) duration: Duration,
    pub(super) prompt_tokens: u64,
    pub(super) llm_prompt_tokens: u64,
    pub(super) output_tokens: u64,
}

impl Calibration {
    /// Runs the models of a job over `num_records` texts of the plan's sample.
    ///
    /// # Errors
    /// The plan has no text, or the models do not load or fail.
    pub(super) fn measure(
        (spec, bundle_digest): (&JobSpec, &str),
        plan: &JobPlan,
        num_records: usize,
        machine: &MachineArgs,
    ) -> anyhow::Result<Calibration> {
        if plan.sample.is_empty() {
            bail!("no record can be read, so there is nothing to measure");
        }
        let stride = plan.sample.len().div_ceil(num_records);
        let texts: Vec<&String> = plan.sample.iter().step_by(stride).collect();
        let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
        let input = directory.path().join("sample.jsonl");
        let mut file = BufWriter::new(File::create(&input)?);
        for text in &texts {
            writeln!(file, "{}", json!({ "text": text }))?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let sample = JobSpec {
            inputs: vec![input.to_string_lossy().into_owned()],
            output: directory.path().join("out").to_string_lossy().into_owned(),
            text_field: "text".to_owned(),
            id_field: None,
            format: None,
            separator: None,
            skip_done: None,
            cache: None, // the estimate is of decoding
            keep_fields: false,
            output_format: PartFormat::default(),
            max_error_rate: 1.0,
            generation: GenerationOptions {
                source_language_field: None,
                target_language_field: None,
                ..spec.generation.clone()
            },
            shard: ShardLimits { records_per_shard: RECORDS_PER_SHARD, ..spec.shard.clone() },
            ..spec.clone()
        };
        baton_model::set_num_threads(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the async runtime")?;
        let report = runtime.block_on(async {
            let shards_in_flight = RunOptions::default().policy.shards_per_worker;
            let workers = machine.load_workers(&sample, shards_in_flight).await?;
            let job = PreparedJob::open(sample, bundle_digest, Partition::WHOLE).await?;
            workers.run(async |cluster| run_unwatched(&job, cluster).await).await
        })?;
        Ok(Calibration {
            text_num_bytes: texts.iter().map(|text| text.len() as u64).sum(),
            totals: report.totals,
            elapsed: report.elapsed,
            peak_memory_num_bytes: peak_memory_bytes(),
        })
    }

    /// The needs of texts of this many bytes.
    pub(super) fn estimate(&self, text_num_bytes: u64) -> Estimate {
        let factor = text_num_bytes as f64 / self.text_num_bytes.max(1) as f64;
        let scaled = |amount: u64| (amount as f64 * factor).round() as u64;
        Estimate {
            duration: self.elapsed.mul_f64(factor),
            prompt_tokens: scaled(self.totals.prompt_tokens),
            llm_prompt_tokens: scaled(self.totals.llm_prompt_tokens),
            output_tokens: scaled(self.totals.output_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_grows_with_the_bytes_of_the_texts() {
        let totals = Totals { prompt_tokens: 50, output_tokens: 40, ..Totals::default() };
        let elapsed = Duration::from_secs(2);
        let calibration = Calibration { text_num_bytes: 100, totals, elapsed, peak_memory_num_bytes: None };
        let expected = Estimate {
            duration: Duration::from_secs(20),
            prompt_tokens: 500,
            llm_prompt_tokens: 0,
            output_tokens: 400,
        };
        assert_eq!(calibration.estimate(1000), expected);
    }
}
