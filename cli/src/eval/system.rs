//! A system under evaluation: the source of its outputs, and its results.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use baton_bundle::{Arithmetic, Bundle, arithmetic_of_mode};
use baton_metrics::{Evaluation, SystemScores};
use clap::Parser;

use super::EvalArgs;
use super::outputs::Outputs;
use super::test_set::TestSet;
use crate::run::{self, RunArgs};

/// A source of outputs.
pub(crate) struct System {
    name: String,
    origin: Origin,
}

enum Origin {
    /// A mode of a bundle, to be run.
    Bundle { path: PathBuf, mode: String, arithmetic: Arithmetic },
    /// Existing outputs.
    Existing(PathBuf),
}

/// The whole report about a system.
pub(crate) struct EvaluatedSystem {
    pub(crate) name: String,
    pub(crate) scores: SystemScores,
    /// Known for jobs that ran here from start to end.
    pub(crate) rates: Option<Rates>,
    /// Known only for modes of bundles.
    pub(crate) cost: Option<Cost>,
}

/// The speed of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    pub(crate) records_per_second: f64,
    pub(crate) output_tokens_per_second: f64,
}

/// The cost of a system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    pub(crate) parameters: u64,
    /// Without attention.
    pub(crate) flops_per_prompt_token: u64,
    /// Without attention.
    pub(crate) flops_per_generated_token: u64,
    /// Mean over the records, attention included.
    pub(crate) flops_per_record: f64,
}

/// The flags of `baton run`, parsed as that command parses them.
#[derive(Parser)]
#[command(name = "baton run")]
struct RunCommand {
    #[command(flatten)]
    args: RunArgs,
}

impl System {
    /// Every mode of `modes`, or else the first of its own, of every bundle.
    ///
    /// # Errors
    /// A bundle does not serve a mode, or two systems would have one name.
    pub(crate) fn of_bundles(
        paths: &[PathBuf],
        bundles: &[Bundle],
        modes: &[String],
    ) -> anyhow::Result<Vec<System>> {
        let mut systems = Vec::new();
        let mut names = HashSet::new();
        for (path, bundle) in paths.iter().zip(bundles) {
            let served = &bundle.manifest().modes;
            let chosen = if modes.is_empty() { vec![served[0].to_string()] } else { modes.to_vec() };
            for mode in chosen {
                let Some(&generation_mode) = served.iter().find(|served| served.to_string() == mode) else {
                    let served: Vec<String> = served.iter().map(ToString::to_string).collect();
                    bail!("bundle {} serves {}, not {mode}", path.display(), served.join(" and "));
                };
                let name = format!("{} {mode}", bundle.manifest().name);
                if !names.insert(name.clone()) {
                    bail!("two systems are called {name:?}: give the bundles different names in bundle.json");
                }
                let arithmetic = arithmetic_of_mode(bundle, generation_mode)?;
                systems
                    .push(System { name, origin: Origin::Bundle { path: path.clone(), mode, arithmetic } });
            }
        }
        Ok(systems)
    }

    /// Existing outputs.
    pub(crate) fn existing(name: &str, path: &Path) -> System {
        System { name: name.to_owned(), origin: Origin::Existing(path.to_owned()) }
    }

    /// Its name in reports.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Directory and mode of the bundle, if its outputs are a bundle's.
    pub(crate) fn bundle(&self) -> Option<(&Path, &str)> {
        match &self.origin {
            Origin::Bundle { path, mode, .. } => Some((path, mode)),
            Origin::Existing(_) => None,
        }
    }

    /// Runs the job if its outputs are missing.
    ///
    /// # Errors
    /// The job does not fit the bundle, or did not finish, or its outputs cannot be read.
    pub(crate) fn outputs(&self, args: &EvalArgs, directory: &Path) -> anyhow::Result<Outputs> {
        let (path, mode) = match &self.origin {
            Origin::Existing(path) => {
                let outputs = Outputs::read(path)?;
                return Ok(Outputs { seconds: None, ..outputs }); // on which machine, and in how many runs?
            }
            Origin::Bundle { path, mode, .. } => (path, mode),
        };
        eprintln!("evaluating {}", self.name);
        let output = directory.join(self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        let begins_anew = !output.join(baton_job::layout::JOB_RECORD_KEY).exists();
        let flags = [
            ("--bundle", path.as_os_str()),
            ("--mode", mode.as_ref()),
            ("--input", args.test.as_os_str()),
            ("--output", output.as_os_str()),
            ("--id-field", args.id_field.as_ref()),
            ("--text-field", args.source_field.as_ref()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.as_ref(), value]);
        let command_line = std::iter::once("baton run".as_ref()).chain(flags);
        let signals: &[&str] = if args.fit_quality { &["--quality", "signals"] } else { &[] };
        let run_flags = signals.iter().map(AsRef::as_ref).chain(args.run_flags.iter().map(AsRef::as_ref));
        let command = RunCommand::try_parse_from(command_line.chain(run_flags))
            .map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_start_matches("error: ")))?;
        run::run(&command.args).with_context(|| self.name.clone())?;
        if !output.join(baton_job::layout::MANIFEST_KEY).exists() {
            bail!("the job of {} did not finish; the same command with --output continues it", self.name);
        }
        let outputs = Outputs::read(&output)?;
        // The manifest of a resumed job has only the time of its last run.
        Ok(Outputs { seconds: outputs.seconds.filter(|_| begins_anew), ..outputs })
    }
}

impl EvaluatedSystem {
    /// Joins outputs with the test set and scores them.
    ///
    /// # Errors
    /// No output belongs to the test set.
    pub(crate) fn of(
        system: &System,
        outputs: &Outputs,
        test_set: &TestSet,
        evaluation: &Evaluation,
    ) -> anyhow::Result<EvaluatedSystem> {
        let text = |id: &String| outputs.by_id.get(id).map(|output| output.text.as_str());
        if test_set.records.iter().all(|record| text(&record.id).is_none()) {
            bail!("{} has no output for any id of the test set: is it of another corpus?", system.name);
        }
        let records = test_set.evaluated(|record| text(&record.id));
        let total_tokens = outputs.total_tokens();
        let rates = outputs.seconds.filter(|seconds| *seconds > 0.0).zip(total_tokens).map(
            |(seconds, (_, written))| Rates {
                records_per_second: outputs.by_id.len() as f64 / seconds,
                output_tokens_per_second: written as f64 / seconds,
            },
        );
        let cost = match &system.origin {
            Origin::Existing(_) => None,
            Origin::Bundle { arithmetic, .. } => {
                let tokens = outputs.by_id.values().filter_map(|output| output.tokens);
                let flops: u64 =
                    tokens.map(|(read, written)| arithmetic.flops_per_record(read, written)).sum();
                let flops_per_record = flops as f64 / outputs.by_id.len() as f64;
                Some(Cost {
                    parameters: arithmetic.parameters,
                    flops_per_prompt_token: arithmetic.flops_per_prompt_token(),
                    flops_per_generated_token: arithmetic.flops_per_generated_token(),
                    flops_per_record,
                })
            }
        };
        let scores = evaluation.evaluate(&records);
        Ok(EvaluatedSystem { name: system.name.clone(), scores, rates, cost })
    }

    /// Scores a function of the source.
    pub(crate) fn doing_nothing(
        name: &str,
        test_set: &TestSet,
        evaluation: &Evaluation,
        output_of: fn(&str) -> &str,
    ) -> EvaluatedSystem {
        let records = test_set.evaluated(|record| Some(output_of(&record.source)));
        EvaluatedSystem {
            name: name.to_owned(),
            scores: evaluation.evaluate(&records),
            rates: None,
            cost: None,
        }
    }
}
