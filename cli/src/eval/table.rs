//! The report as text and as JSON.

use std::fmt::Write;
use std::path::Path;

use baton_metrics::{Bucket, Evaluation, Interval};
use serde_json::{Value, json};

use super::quality::FittedQuality;
use super::system::EvaluatedSystem;

/// All measurements.
pub(crate) struct Report<'a> {
    pub(crate) test: &'a Path,
    pub(crate) evaluation: &'a Evaluation,
    pub(crate) systems: &'a [EvaluatedSystem],
    /// Models of quality that were fitted.
    pub(crate) fitted: &'a [FittedQuality],
}

/// Shown for an unknown number.
const UNKNOWN: &str = "-";

impl Report<'_> {
    /// All systems side by side, a line each.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let records = self.systems[0].scores.records;
        let _ = writeln!(text, "test set   {}, {records} records", self.test.display());
        for metric in &self.evaluation.metrics {
            let _ = writeln!(text, "metric     {}", metric.signature());
        }
        let bootstrap = self.evaluation.bootstrap;
        let _ = writeln!(
            text,
            "intervals  95 %, {} bootstrap resamples, seed {}",
            bootstrap.resamples, bootstrap.seed
        );
        let tables = [self.scores(), self.costs(), self.failures(), self.differences(), self.buckets()];
        for table in tables.into_iter().chain(self.fitted.iter().map(FittedQuality::table)) {
            if table.len() > 1 {
                text.push('\n');
                push_table(&mut text, &table);
            }
        }
        text
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Value {
        let signatures: Vec<String> =
            self.evaluation.metrics.iter().map(|metric| metric.signature()).collect();
        let first = &self.systems[0];
        let systems: Vec<Value> = self
            .systems
            .iter()
            .map(|system| {
                json!({
                    "name": system.name,
                    "scores": system.scores,
                    "names_copied_share": system.scores.names.share(),
                    "difference_to_first": system.scores.differences_to(&first.scores),
                    "records_per_second": system.rates.map(|rates| rates.records_per_second),
                    "output_tokens_per_second": system.rates.map(|rates| rates.output_tokens_per_second),
                    "flops_per_prompt_token": system.cost.map(|cost| cost.flops_per_prompt_token),
                    "flops_per_generated_token": system.cost.map(|cost| cost.flops_per_generated_token),
                    "flops_per_record": system.cost.map(|cost| cost.flops_per_record),
                    "parameters": system.cost.map(|cost| cost.parameters),
                })
            })
            .collect();
        json!({
            "test_set": self.test.display().to_string(),
            "records": first.scores.records,
            "signatures": signatures,
            "resamples": self.evaluation.bootstrap.resamples,
            "seed": self.evaluation.bootstrap.seed,
            "baton_version": env!("CARGO_PKG_VERSION"),
            "systems": systems,
            "quality": self.fitted.iter().map(FittedQuality::json).collect::<Vec<_>>(),
        })
    }

    fn metric_names(&self) -> impl Iterator<Item = String> {
        self.evaluation.metrics.iter().map(|metric| metric.name().to_owned())
    }

    fn scores(&self) -> Vec<Vec<String>> {
        let header =
            std::iter::once("quality".to_owned()).chain(self.metric_names()).chain(["names copied".into()]);
        let row = |system: &EvaluatedSystem| {
            let scores =
                system.scores.scores.iter().map(|s| format!("{:.2} {}", s.score, brackets(s.interval)));
            let names = system.scores.names;
            let names = format!("{:.1} % of {}", 100.0 * names.share(), names.expected);
            std::iter::once(system.name.clone()).chain(scores).chain([names]).collect()
        };
        std::iter::once(header.collect()).chain(self.systems.iter().map(row)).collect()
    }

    fn costs(&self) -> Vec<Vec<String>> {
        let header = [
            "cost",
            "records/s",
            "output tokens/s",
            "GFLOP a record",
            "MFLOP a prompt token",
            "MFLOP a new token",
            "parameters",
        ];
        let known = self.systems.iter().filter(|system| system.rates.is_some() || system.cost.is_some());
        let row = |system: &EvaluatedSystem| {
            let show = |number: Option<f64>, unit: &str| {
                number.map_or_else(|| UNKNOWN.to_owned(), |number| format!("{number:.1}{unit}"))
            };
            vec![
                system.name.clone(),
                show(system.rates.map(|rates| rates.records_per_second), ""),
                show(system.rates.map(|rates| rates.output_tokens_per_second), ""),
                show(system.cost.map(|cost| cost.flops_per_record / 1e9), ""),
                show(system.cost.map(|cost| cost.flops_per_prompt_token as f64 / 1e6), ""),
                show(system.cost.map(|cost| cost.flops_per_generated_token as f64 / 1e6), ""),
                show(system.cost.map(|cost| cost.parameters as f64 / 1e6), " M"),
            ]
        };
        std::iter::once(header.map(str::to_owned).to_vec()).chain(known.map(row)).collect()
    }

    fn failures(&self) -> Vec<Vec<String>> {
        let header = ["failures", "failed", "empty", "looping", "untranslated"];
        let row = |system: &EvaluatedSystem| {
            let failures = system.scores.failures;
            let counts = [failures.failed, failures.empty, failures.looping, failures.untranslated];
            std::iter::once(system.name.clone()).chain(counts.map(|count| count.to_string())).collect()
        };
        std::iter::once(header.map(str::to_owned).to_vec()).chain(self.systems.iter().map(row)).collect()
    }

    /// The others' differences from the first.
    fn differences(&self) -> Vec<Vec<String>> {
        let [first, others @ ..] = self.systems else { return Vec::new() };
        let header = std::iter::once(format!("against {}", first.name)).chain(self.metric_names());
        let row = |system: &EvaluatedSystem| {
            let differences = system.scores.differences_to(&first.scores);
            let cells = differences.iter().map(|d| format!("{:+.2} {}", d.difference, brackets(d.interval)));
            std::iter::once(system.name.clone()).chain(cells).collect()
        };
        std::iter::once(header.collect()).chain(others.iter().map(row)).collect()
    }

    /// Scores by length of the source: a line for each length and system.
    fn buckets(&self) -> Vec<Vec<String>> {
        let header = ["source words".to_owned(), "records".into(), "system".into()]
            .into_iter()
            .chain(self.metric_names());
        let mut table = vec![header.collect()];
        for index in 0..self.systems[0].scores.by_source_words.len() {
            for system in self.systems {
                let scores = &system.scores.by_source_words[index];
                let cells = [words(scores.bucket), scores.records.to_string(), system.name.clone()];
                let numbers = scores.scores.iter().map(|score| format!("{score:.2}"));
                table.push(cells.into_iter().chain(numbers).collect());
            }
        }
        table
    }
}

fn brackets(interval: Interval) -> String {
    format!("[{:.2}, {:.2}]", interval.low, interval.high)
}

fn words(bucket: Bucket) -> String {
    match bucket.max_words {
        Some(max) => format!("{} to {max}", bucket.min_words),
        None => format!("{} and more", bucket.min_words),
    }
}

fn push_table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}
