//! An estimate of the quality of a system's outputs, fitted on the test set.

use std::path::{Path, PathBuf};

use anyhow::Context;
use baton_bundle::write_quality;
use baton_metrics::Metric;
use baton_quality::{QualityModel, Sample, fit};
use serde_json::{Value, json};

use super::outputs::Outputs;
use super::system::System;
use super::test_set::TestSet;

/// A model of quality for a mode of a bundle.
#[derive(Debug)]
pub(crate) struct FittedQuality {
    name: String,
    bundle: PathBuf,
    mode: String,
    model: QualityModel,
}

impl FittedQuality {
    /// Fits a model on the records of the test set that have outputs; `None` for outputs that exist already.
    ///
    /// # Errors
    /// There are too few records, or their scores tell nothing.
    pub(crate) fn of(
        system: &System,
        outputs: &Outputs,
        test_set: &TestSet,
        metric: &dyn Metric,
    ) -> anyhow::Result<Option<Self>> {
        let Some((bundle, mode)) = system.bundle() else { return Ok(None) };
        let sample = |record: &super::test_set::TestRecord| {
            let output = outputs.by_id.get(&record.id)?;
            let score = metric.score(&metric.statistics(&output.text, &record.reference));
            Some(Sample { signals: output.signals?, score })
        };
        let samples: Vec<Sample> = test_set.records.iter().filter_map(sample).collect();
        let model = fit(&samples, metric.name()).with_context(|| system.name().to_owned())?;
        let (name, bundle, mode) = (system.name().to_owned(), bundle.to_owned(), mode.to_owned());
        Ok(Some(Self { name, bundle, mode, model }))
    }

    /// Writes the model into the bundle.
    ///
    /// # Errors
    /// The bundle cannot be written.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let mode = self.mode.parse().context("a mode that just ran")?;
        write_quality(&self.bundle, mode, self.model.clone())?;
        eprintln!("{} has the estimate for mode {}", self.manifest().display(), self.mode);
        Ok(())
    }

    fn manifest(&self) -> PathBuf {
        Path::new(&self.bundle).join(baton_bundle::MANIFEST_FILE)
    }

    /// The model's ability on records that it was not fitted on: a row for each bin of estimates.
    pub(crate) fn table(&self) -> Vec<Vec<String>> {
        let header = [
            format!("estimate, {}", self.name),
            "records".to_owned(),
            format!("not among the worst tenth by {}", self.model.metric),
        ];
        let row = |bin: &baton_quality::Bin| {
            let share = format!("{:.1} %", 100.0 * bin.share);
            vec![format!("{:.3}", bin.estimate), bin.records.to_string(), share]
        };
        let auc = vec![format!("AUC {:.3}", self.model.auc), self.model.records.to_string(), String::new()];
        std::iter::once(header.to_vec()).chain(self.model.calibration.iter().map(row)).chain([auc]).collect()
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "name": self.name, "mode": self.mode, "model": self.model })
    }
}
