//! Outputs of a job's directory, and the time of the job.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use baton_formats::{OutputRow, PartFormat};
use baton_job::layout::shard_of_part_key;
use baton_quality::Signals;
use serde_json::Value;

use super::test_set::{for_each_row, text_of};

/// The outputs of one system.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outputs {
    pub(crate) by_id: HashMap<String, Output>,
    /// Duration of the job's last run, seconds; none if it is unknown or not of the whole job.
    pub(crate) seconds: Option<f64>,
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) text: String,
    /// Tokens read and written, if the row has them.
    pub(crate) tokens: Option<(u64, u64)>,
    /// The signals of its quality, if the row has them.
    pub(crate) signals: Option<Signals>,
}

impl Outputs {
    /// Reads the directory of a finished job, or a file of any format with `id` and `output`.
    ///
    /// # Errors
    /// Nothing is there, the job is not finished, or a row is broken.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Outputs> {
        let mut outputs = Outputs::default();
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let manifest = path.join(baton_job::layout::MANIFEST_KEY);
            let text = std::fs::read_to_string(&manifest).with_context(|| {
                format!("{} holds no finished job: cannot read {}", path.display(), manifest.display())
            })?;
            let manifest: Value =
                serde_json::from_str(&text).with_context(|| manifest.display().to_string())?;
            outputs.seconds = manifest["timings"]["last_run_seconds"].as_f64();
            files = parts(path)?;
        }
        if path.is_dir() {
            for file in std::mem::take(&mut files) {
                outputs.add_part(&file).with_context(|| file.display().to_string())?;
            }
        }
        for file in files {
            for_each_row(&file, |row| {
                let id = text_of(row, "id")?;
                let count = |field: &str| row.get(field).and_then(Value::as_u64);
                let output = Output {
                    text: text_of(row, "output")?,
                    tokens: count("prompt_tokens").zip(count("output_tokens")),
                    signals: None,
                };
                if outputs.by_id.insert(id.clone(), output).is_some() {
                    bail!("id {id:?} appears twice");
                }
                Ok(())
            })?;
        }
        Ok(outputs)
    }

    fn add_part(&mut self, part: &Path) -> anyhow::Result<()> {
        let format = PartFormat::of_file(&part.to_string_lossy(), None)?;
        for row in format.reader(Box::new(std::fs::File::open(part)?))? {
            let OutputRow { id, output: text, prompt_tokens, output_tokens, signals, .. } = row?;
            let tokens = Some((u64::from(prompt_tokens), u64::from(output_tokens)));
            let signals = signals.map(|signals| *signals);
            if self.by_id.insert(id.clone(), Output { text, tokens, signals }).is_some() {
                bail!("id {id:?} appears twice");
            }
        }
        Ok(())
    }

    /// Sums over all outputs of tokens read and written.
    pub(crate) fn total_tokens(&self) -> Option<(u64, u64)> {
        self.by_id.values().map(|output| output.tokens).try_fold((0, 0), |sum, tokens| {
            let (read, written) = tokens?;
            Some((sum.0 + read, sum.1 + written))
        })
    }
}

fn parts(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if shard_of_part_key(&name).is_some() {
            parts.push(path);
        }
    }
    parts.sort();
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_parts_are_read_with_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write(
            "part-000000.jsonl",
            "{\"id\":\"a\",\"output\":\"x\",\"score\":0.0,\"prompt_tokens\":3,\"output_tokens\":2,\"finish_reason\":\"stop\"}\n",
        );
        write(
            "part-000001.jsonl",
            "{\"id\":\"b\",\"output\":\"y\",\"score\":0.0,\"prompt_tokens\":1,\"output_tokens\":4,\"finish_reason\":\"stop\"}\n",
        );
        assert!(Outputs::read(directory.path()).unwrap_err().to_string().contains("no finished job"));
        write("_SUCCESS", "{\"timings\":{\"last_run_seconds\":2.5}}");
        let outputs = Outputs::read(directory.path()).unwrap();
        assert_eq!(outputs.seconds, Some(2.5));
        assert_eq!(outputs.total_tokens(), Some((4, 6)));
        assert_eq!(outputs.by_id["b"].text, "y");
    }

    #[test]
    fn a_file_of_outputs_needs_neither_time_nor_tokens_but_distinct_ids() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"id\":\"a\",\"output\":\"x\"}\n").unwrap();
        let outputs = Outputs::read(file.path()).unwrap();
        assert_eq!((outputs.seconds, outputs.total_tokens()), (None, None));
        std::fs::write(file.path(), "{\"id\":\"a\",\"output\":\"x\"}\n{\"id\":\"a\",\"output\":\"y\"}\n")
            .unwrap();
        assert!(format!("{:#}", Outputs::read(file.path()).unwrap_err()).contains("appears twice"));
    }
}
