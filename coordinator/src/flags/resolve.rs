//! The job that a file, flags and a bundle make together.

use std::path::Path;

use baton_bundle::{BundleManifest, DEFAULT_TEMPLATE, LanguageChoice, TextTokenizer};
use baton_generation::Setting;
use baton_job::{Escalations, GenerationLayer, GenerationOptions, JobError, JobFile, JobSpec, Mode};
use baton_store::Location;

use super::{JobArgs, cascade};
use crate::CoordinatorError;
use crate::glossary;

impl JobArgs {
    /// The job from file and flags, completed by the bundle's proposed generation options, and the bundle's
    /// digest. Of the bundle, only the manifest is read. Values that its models would refuse shard by shard
    /// are refused here, before any work.
    ///
    /// # Errors
    /// The job file cannot be read or parsed, something is missing, or a value is not allowed. Or the
    /// manifest cannot be read, or the bundle lacks a mode or template that the job names.
    pub fn to_spec(&self) -> Result<(JobSpec, String), CoordinatorError> {
        let mut file = self.described()?;
        file.bundle = Location::parse_local(&file.bundle)?.to_string_lossy().into_owned();
        Location::parse(&file.output)?;
        file.cache.iter().try_for_each(|cache| Location::parse(cache).map(drop))?;
        let (manifest, digest) = baton_bundle::read_manifest(Path::new(&file.bundle))?;
        if !self.says_mode() {
            file.mode = manifest.modes[0]; // as its services have it; a manifest has one
        }
        let proposed = manifest.generation.get(&file.mode).cloned().unwrap_or_default();
        let mut in_flags = self.generation.layer().map_err(JobError::from)?;
        if let Some(path) = &self.glossary {
            let task = &manifest.task;
            let mut terms = match in_flags.terms {
                Setting::To(terms) => terms,
                Setting::Unset | Setting::Cleared => Vec::new(),
            };
            terms.extend(glossary::entries(path, task.source_language(), task.target_language())?);
            in_flags.terms = Setting::To(terms);
        }
        let own = [&file.generation, &in_flags];
        file.tiers = cascade::tiers(&manifest, &file, own)?;
        let generation = match file.tiers.last() {
            None => generation(&proposed, &own)?,
            Some(last) => {
                file.mode = last.mode;
                last.generation.clone()
            }
        };
        let spec = file.resolved(generation);
        let problem_of =
            |plain: &JobSpec| misfit(&manifest, plain).or_else(|| unknown_stop_token(&manifest, plain));
        match cascade::plain_jobs(&spec).iter().find_map(problem_of) {
            Some(problem) => Err(CoordinatorError::BundleMisfit { bundle: spec.bundle, problem }),
            None => Ok((spec, digest)),
        }
    }

    /// Whether flags or job file name a mode.
    fn says_mode(&self) -> bool {
        let says = |path| std::fs::read_to_string(path).is_ok_and(|text| JobFile::says_mode(&text));
        self.mode.is_some() || self.job_file.as_ref().is_some_and(says)
    }

    /// The job file, overruled by all flags except the generation options, and validated.
    pub(super) fn described(&self) -> Result<JobFile, CoordinatorError> {
        let mut spec = match &self.job_file {
            None => JobFile::default(),
            Some(path) => {
                let failed = |source| CoordinatorError::JobFile { path: path.clone(), source };
                let text = std::fs::read_to_string(path).map_err(failed)?;
                let file = JobFile::from_toml(&text, &path.display().to_string())?;
                cascade::check_one_of(&file, &text)?;
                file
            }
        };
        self.overrule(&mut spec);
        if self.job_file.is_none() {
            let needed = [
                ("--bundle DIR", spec.bundle.is_empty()),
                ("--input PATTERN", spec.inputs.is_empty()),
                ("--output DIR", spec.output.is_empty()),
            ];
            let missing: Vec<&str> =
                needed.iter().filter(|(_, is_missing)| *is_missing).map(|(flag, _)| *flag).collect();
            if !missing.is_empty() {
                return Err(CoordinatorError::MissingFlags { flags: missing.join(", ") });
            }
        }
        spec.validate_fields()?;
        Ok(spec)
    }

    fn overrule(&self, spec: &mut JobFile) {
        fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                field.clone_from(value);
            }
        }
        if !self.inputs.is_empty() {
            spec.inputs.clone_from(&self.inputs);
        }
        set(&mut spec.bundle, &self.bundle);
        set(&mut spec.output, &self.output);
        set(&mut spec.mode, &self.mode);
        if self.mode.is_some() {
            (spec.cascade, spec.escalate) = (None, Escalations::default());
        }
        set(&mut spec.cascade, &self.cascade.clone().map(Some));
        set(&mut spec.escalate, &self.escalate);
        set(&mut spec.max_error_rate, &self.max_error_rate);
        set(&mut spec.text_field, &self.text_field);
        set(&mut spec.keep_fields, &self.keep_fields);
        set(&mut spec.origin, &self.origin);
        set(&mut spec.output_format, &self.output_format);
        set(&mut spec.max_text_bytes, &self.max_text_bytes);
        set(&mut spec.shard.records_per_shard, &self.records_per_shard);
        set(&mut spec.shard.bytes_per_shard, &self.bytes_per_shard);
        set(&mut spec.skip_done, &self.skip_done.clone().map(Some));
        set(&mut spec.cache, &self.cache.clone().map(Some));
        set(&mut spec.task, &self.task.clone().map(Some));
        set(&mut spec.id_field, &self.id_field.clone().map(Some));
        set(&mut spec.glossary_field, &self.glossary_field.clone().map(Some));
        set(&mut spec.format, &self.format.map(Some));
        set(&mut spec.separator, &self.separator.map(Some));
    }
}

/// The bundle's proposal, overruled by the job's own layers: file, flags and those of a tier, in this order.
pub(super) fn generation(
    proposed: &GenerationLayer,
    own: &[&GenerationLayer],
) -> Result<GenerationOptions, CoordinatorError> {
    let own = || own.iter().copied();
    GenerationOptions::from_layers(std::iter::once(proposed).chain(own())).map_err(|problem| {
        // The proposal contributes to the problem if the problem vanishes or changes without it.
        match GenerationOptions::from_layers(own()) {
            Err(without) if without == problem => JobError::from(problem).into(),
            _ => CoordinatorError::ProposedGeneration { proposed: proposed.to_string(), problem },
        }
    })
}

/// The problem with a mode that the bundle does not serve.
pub(super) fn unserved(manifest: &BundleManifest, mode: Mode) -> Option<String> {
    let served: Vec<&str> = manifest.modes.iter().map(|mode| mode.as_str()).collect();
    let is_served = manifest.modes.contains(&mode);
    (!is_served).then(|| format!("does not serve mode {mode}; try --mode {}", served.join(" or --mode ")))
}

fn misfit(manifest: &BundleManifest, spec: &JobSpec) -> Option<String> {
    let mode = spec.mode;
    if let Some(problem) = unserved(manifest, mode) {
        return Some(problem);
    }
    if let Some(task) = &spec.task
        && !manifest.template_names().any(|name| name == task)
    {
        let names: Vec<&str> = manifest.template_names().map(String::as_str).collect();
        return Some(format!("has no prompt template `{task}`; it has: {}", names.join(", ")));
    }
    if let Some(problem) = language_problem(manifest, spec) {
        return Some(problem);
    }
    if let Some(problem) = manifest.problem_of_options(mode, &spec.generation) {
        return Some(problem);
    }
    let limit = manifest.max_new_tokens(mode);
    let too_long = spec.generation.check_limit(u32::try_from(limit).unwrap_or(u32::MAX)).err()?;
    Some(format!("writes at most {limit} tokens, but min_new_tokens is {}", too_long.value))
}

/// The problem with the languages that the job names.
fn language_problem(manifest: &BundleManifest, spec: &JobSpec) -> Option<String> {
    let languages = LanguageChoice::of(&spec.generation);
    let fields = [&spec.generation.source_language_field, &spec.generation.target_language_field];
    if languages.is_empty() && fields.iter().all(|field| field.is_none()) {
        return None;
    }
    let template = spec.task.as_deref().unwrap_or(DEFAULT_TEMPLATE);
    let slm = manifest.slm.as_ref().filter(|_| spec.mode.uses_slm());
    match slm.and_then(|slm| Some((slm, slm.templates.get(template)?))) {
        Some((slm, template)) => {
            let problem = slm.language_problem(template, &languages);
            let problem = problem.or_else(|| slm.language_field_problem(template, &spec.generation))?;
            Some(format!("cannot serve the job's languages: {problem}"))
        }
        None => Some(format!("has no languages to choose from in mode {}", spec.mode)),
    }
}

/// A stop token that the writer's tokenizer lacks. If the bundle's tokenizer is not at hand, a decoder
/// reports it.
fn unknown_stop_token(manifest: &BundleManifest, spec: &JobSpec) -> Option<String> {
    if spec.generation.stop_tokens.is_empty() {
        return None;
    }
    let file = manifest.output_tokenizer(spec.mode);
    let tokenizer = TextTokenizer::open(&Path::new(&spec.bundle).join(file)).ok()?;
    let unknown = spec.generation.stop_tokens.iter().find(|token| tokenizer.token_id(token).is_none())?;
    Some(format!(
        "has no token {unknown:?} in its output tokenizer; name one of {file}, or use --stop-string"
    ))
}
