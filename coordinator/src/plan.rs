//! The plan of a job: each input is read to its end, and nothing is written.

use std::collections::BTreeMap;

use baton_formats::{InputFailure, InputFailureCause, RecordReader};
use baton_job::{JobError, JobSpec, ReaderOptions, Record, RecordFailure, ShardCutter, ShardIndex};
use baton_store::{InputFile, Location, StoreError, list_inputs};
use tokio::runtime::Handle;

use crate::CoordinatorError;
use crate::new_inputs::{new_inputs, without_rows_about_rows};
use crate::reader::Tally;
use crate::source::open_source;

/// Texts that a plan samples at most.
pub const MAX_SAMPLE: usize = 512;

/// The content of a job's inputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobPlan {
    /// In reading order.
    pub inputs: Vec<InputPlan>,
    /// Shards of the job; a lower bound if an input is broken.
    pub num_shards: u32,
    /// Texts from all over the inputs, at equal distances: at most [`MAX_SAMPLE`], at least half of that if
    /// there are as many.
    pub sample: Vec<String>,
}

/// The content of an input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputPlan {
    /// The file's name in the listing.
    pub uri: String,
    /// Stored bytes.
    pub num_bytes: u64,
    /// Records, including those that would fail.
    pub records: u64,
    /// Bytes of the texts of the others.
    pub text_num_bytes: u64,
    /// Records that would fail while they are read, by the code of their error row.
    pub failures: BTreeMap<&'static str, FailedRecords>,
    /// The reason why it cannot be read to its end, if any.
    pub broken: Option<String>,
    /// Oddities that are no failures.
    pub remarks: Vec<String>,
}

/// Records that fail for one kind of reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRecords {
    /// Their number.
    pub count: u64,
    /// Line of the first.
    pub first_line: u64,
    /// The first problem, without the record's text.
    pub first_message: String,
}

impl JobPlan {
    /// Reads all inputs of a job. Does not check the output directory.
    ///
    /// # Errors
    /// The spec is not valid; an input is missing, of an unknown format, or cannot be reached.
    pub async fn of(spec: JobSpec) -> Result<JobPlan, CoordinatorError> {
        spec.validate()?;
        Location::parse(&spec.output)?;
        let listed = without_rows_about_rows(&spec, list_inputs(&spec.inputs).await?);
        let inputs = new_inputs(&spec, listed).await?;
        let runtime = Handle::current();
        let read = move || {
            let options = spec.reader_options();
            let mut cutter = ShardCutter::new(spec.shard.clone(), |_| false);
            let mut plan = JobPlan::default();
            let mut sampler = Sampler::default();
            for input in &inputs {
                cutter.begin_input();
                let input = read_input(input, &options, &mut cutter, &mut sampler, &runtime)?;
                if input.broken.is_some() {
                    cutter.abandon_input();
                }
                plan.inputs.push(input);
            }
            cutter.finish();
            plan.num_shards = cutter.num_shards();
            plan.sample = sampler.texts;
            Ok(plan)
        };
        tokio::task::spawn_blocking(read).await.expect("reading does not panic and is not aborted")
    }

    /// Records of all inputs, and the number of those that would fail.
    #[must_use]
    pub fn records(&self) -> (u64, u64) {
        let failed = |input: &InputPlan| input.failures.values().map(|failed| failed.count).sum::<u64>();
        (self.inputs.iter().map(|input| input.records).sum(), self.inputs.iter().map(failed).sum())
    }

    /// Whether an input is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.inputs.iter().any(|input| input.broken.is_some())
    }
}

impl InputPlan {
    fn add(&mut self, record: Result<Record, RecordFailure>, sampler: &mut Sampler) {
        self.records += 1;
        match record {
            Ok(record) => {
                self.text_num_bytes += record.text.len() as u64;
                sampler.offer(record.text);
            }
            Err(RecordFailure { source, code, message, .. }) => {
                let first = FailedRecords { count: 0, first_line: source.line, first_message: message };
                self.failures.entry(code.as_str()).or_insert(first).count += 1;
            }
        }
    }
}

/// Keeps every n-th text; when there are too many, drops every second one and doubles n.
#[derive(Debug)]
struct Sampler {
    texts: Vec<String>,
    stride: u64,
    seen: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler { texts: Vec::new(), stride: 1, seen: 0 }
    }
}

impl Sampler {
    fn offer(&mut self, text: String) {
        if self.seen.is_multiple_of(self.stride) {
            self.texts.push(text);
        }
        self.seen += 1;
        if self.texts.len() > MAX_SAMPLE {
            let texts = std::mem::take(&mut self.texts);
            self.texts = texts.into_iter().step_by(2).collect();
            self.stride *= 2;
        }
    }
}

fn read_input(
    input: &InputFile,
    options: &ReaderOptions,
    cutter: &mut ShardCutter<impl Fn(ShardIndex) -> bool>,
    sampler: &mut Sampler,
    runtime: &Handle,
) -> Result<InputPlan, CoordinatorError> {
    let InputFile { uri, size, .. } = input;
    let mut plan = InputPlan { uri: uri.clone(), num_bytes: *size, ..InputPlan::default() };
    let source = match runtime.block_on(open_source(uri, input, options.format, Tally::unwatched())) {
        Err(CoordinatorError::Store(error @ StoreError::InputChanged { .. })) => {
            plan.broken = Some(error.to_string());
            return Ok(plan);
        }
        source => source?,
    };
    let mut records = RecordReader::new(uri, source, options).map_err(JobError::from)?;
    loop {
        match records.find_next() {
            Ok(Some(found)) => {
                cutter.push(found.num_bytes(), || unreachable!("no shard is wanted"));
                plan.add(found.read(), sampler);
            }
            Ok(None) => break,
            Err(InputFailure { line, cause: InputFailureCause::Content(message), .. }) => {
                plan.broken = Some(format!("line {line}: {message}"));
                break;
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    plan.remarks = records.remarks().to_vec();
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_sample_spans_the_whole_input_evenly() {
        let mut sampler = Sampler::default();
        (0..10_000).for_each(|number| sampler.offer(number.to_string()));
        let numbers: Vec<u32> = sampler.texts.iter().map(|text| text.parse().unwrap()).collect();
        assert!((MAX_SAMPLE / 2..=MAX_SAMPLE).contains(&numbers.len()), "{}", numbers.len());
        assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] == numbers[1]), "{numbers:?}");
        assert!(10_000 - numbers.last().unwrap() <= numbers[1]);
    }

    #[tokio::test]
    async fn a_plan_counts_the_inputs_names_problems_and_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("a.jsonl"), "{\"text\":\"four\"}\n{\"txt\":1}\n{\"text\":\"\"}\n{\"txt\":2}\n")
            .unwrap();
        fs::write(path("b.txt.gz"), "no archive").unwrap();
        fs::write(path("c.txt"), "one\ntwo\n").unwrap();
        let spec = JobSpec {
            bundle: "bundle".into(),
            inputs: vec![path("*.*")],
            output: path("out"),
            ..JobSpec::default()
        };
        let plan = JobPlan::of(spec).await.unwrap();
        assert_eq!((plan.records(), plan.num_shards, plan.is_broken()), ((6, 3), 1, true));
        let [a, b, c] = &plan.inputs[..] else { panic!("three inputs") };
        let missing = &a.failures["missing_field"];
        assert_eq!((missing.count, missing.first_line, a.text_num_bytes), (2, 2, 4));
        assert_eq!(a.failures["empty_text"].count, 1);
        assert!(b.broken.is_some() && b.records == 0);
        assert_eq!((c.records, c.text_num_bytes, &c.broken), (2, 6, &None));
        assert!(!directory.path().join("out").exists());
    }
}
