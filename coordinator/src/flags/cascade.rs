//! The tiers of a cascade, as job file, flags and bundle have them together.

use baton_bundle::BundleManifest;
use baton_generation::GenerationLayer;
use baton_job::{Cascade, Escalation, JobError, JobFile, JobSpec, Mode, Threshold, Tier, TierName};

use super::resolve::{generation, unserved};
use crate::CoordinatorError;

/// The tiers of a job whose own options are those of these layers; none without a cascade.
///
/// # Errors
/// The options of a tier do not fit together, or the bundle cannot tell which outputs go on.
pub(super) fn tiers(
    manifest: &BundleManifest,
    file: &JobFile,
    own: [&GenerationLayer; 2],
) -> Result<Vec<Tier>, CoordinatorError> {
    let names = file.cascade.as_ref().map(Cascade::tiers).unwrap_or_default();
    let steps = file.escalate.behind(names.len()).unwrap_or_default(); // as many as the checked job has
    let mut steps = steps.into_iter();
    let tier = |name: &TierName| -> Result<Tier, CoordinatorError> {
        let misfit = |problem| CoordinatorError::BundleMisfit { bundle: file.bundle.clone(), problem };
        if let Some(problem) = unserved(manifest, name.mode) {
            return Err(misfit(problem));
        }
        let proposed = manifest.generation.get(&name.mode).cloned().unwrap_or_default();
        let threshold = steps.next().map(|step| threshold(manifest, name.mode, step)).transpose();
        Ok(Tier {
            name: name.as_str().to_owned(),
            mode: name.mode,
            generation: generation(&proposed, &[own[0], own[1], &name.options])?,
            threshold: threshold.map_err(misfit)?,
        })
    };
    names.iter().map(tier).collect()
}

/// The limit below which outputs of a mode go on.
///
/// # Errors
/// The bundle has no estimate for the mode; the problem, in words.
fn threshold(manifest: &BundleManifest, mode: Mode, step: Escalation) -> Result<Threshold, String> {
    let model = manifest.quality.get(&mode);
    let threshold = match step {
        Escalation::Worst(percent) if percent <= 0.0 => Some(Threshold::Estimate(0.0)),
        Escalation::Worst(percent) if percent >= 100.0 => Some(Threshold::Estimate(1.0)),
        Escalation::Worst(percent) => {
            model.map(|model| Threshold::Estimate(model.threshold(percent / 100.0)))
        }
        Escalation::Below(threshold) => Some(threshold).filter(|it| !it.needs_estimate() || model.is_some()),
    };
    threshold.ok_or_else(|| {
        format!(
            "has no estimate of quality for mode {mode}, which a cascade escalates by; make one with `baton \
             eval BUNDLE --mode {mode} --test FILE --fit-quality`, or escalate below a mean log-probability, \
             such as --escalate -0.9"
        )
    })
}

/// Refuses a job file that names both a mode and a cascade.
///
/// # Errors
/// It does.
pub(super) fn check_one_of(file: &JobFile, text: &str) -> Result<(), JobError> {
    match file.cascade.is_some() && JobFile::says_mode(text) {
        true => Err(JobError::SpecValue {
            field: "mode",
            value: format!("{:?}", file.mode.as_str()),
            allowed: "only without `cascade`, which has modes of its own".to_owned(),
        }),
        false => Ok(()),
    }
}

/// The jobs that a bundle must serve: a plain one for each tier, or the job itself without a cascade.
pub(super) fn plain_jobs(spec: &JobSpec) -> Vec<JobSpec> {
    if spec.tiers.is_empty() {
        return vec![spec.clone()];
    }
    let plain =
        |tier: &Tier| JobSpec { mode: tier.mode, generation: tier.generation.clone(), ..spec.clone() };
    spec.tiers.iter().map(plain).collect()
}
