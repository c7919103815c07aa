//! `baton eval`: runs modes of bundles on a test set and reports their quality and speed side by side.
//!
//! The jobs are those of `baton run`, in this process. `baton-metrics` computes the scores and `baton-bundle`
//! the arithmetic; this file combines and shows them.

mod outputs;
mod plot;
mod quality;
mod system;
mod table;
mod test_set;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use baton_bundle::{Bundle, Task};
use baton_metrics::{Bleu, Bootstrap, ChrF, Evaluation, Metric, Rouge, RougeKind};
use clap::ValueEnum;

use quality::FittedQuality;
use system::{EvaluatedSystem, System};
use test_set::TestSet;

const EXAMPLES: &str = "\
Examples:
  baton eval models/en-it --test data/en-it/test.jsonl --baseline
  baton eval models/en-it models/en-it-slm --test data/en-it/test.jsonl --json eval.json --plot eval.svg
  baton eval models/en-it --test data/en-it/test.jsonl -- --decode-slots 32 --max-new-tokens 64
  baton eval models/en-it --test data/en-it/dev.jsonl --fit-quality

A record without an output counts as an empty one. Intervals are the middle 95 % of bootstrap resamples;
all systems are resampled alike. Rates are those of jobs that this command ran from start to end, without
the loading of models.";

/// Arguments of `baton eval`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// Directories of bundles. Each is run in every --mode.
    #[arg(value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    /// Mode: which models read and write; may be given more than once. Default: the first mode of each
    /// bundle. Example: --mode hybrid
    #[arg(long = "mode", value_name = "MODE")]
    modes: Vec<String>,
    /// Test set: a file with an id, a source and a reference in each row, JSONL, CSV or Parquet. Example:
    /// data/en-it/test.jsonl
    #[arg(long, value_name = "FILE")]
    test: PathBuf,
    /// Field with the record's id.
    #[arg(long, value_name = "NAME", default_value = "id")]
    id_field: String,
    /// Field with the text to read.
    #[arg(long, value_name = "NAME", default_value = "source")]
    source_field: String,
    /// Field with the reference output.
    #[arg(long, value_name = "NAME", default_value = "target")]
    target_field: String,
    /// Directory for the jobs' outputs, one directory a system; jobs that are complete there are not run
    /// again. Default: a temporary one. Example: out/eval
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Outputs that exist already, of any origin: a job's directory, or a file with `id` and `output`, JSONL,
    /// CSV or Parquet; may be given more than once. Example: --outputs llm=out/llm
    #[arg(long = "outputs", value_name = "NAME=PATH", value_parser = name_and_path)]
    existing: Vec<(String, PathBuf)>,
    /// Also scores doing nothing: a copy of the source, or for summaries its first sentence.
    #[arg(long)]
    baseline: bool,
    /// The metrics. Default: by the task of the first bundle.
    #[arg(long, value_enum)]
    metrics: Option<MetricSet>,
    /// Does not stem words before ROUGE compares them.
    #[arg(long)]
    no_stemming: bool,
    /// Fits what tells the quality of outputs (`baton run --quality`, `--review`) on this test set, and
    /// writes it into each bundle, for each mode. The test set should be large, and no text that the bundle
    /// was trained on.
    #[arg(long)]
    fit_quality: bool,
    /// Bootstrap resamples.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    resamples: usize,
    /// Seed of the resamples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes all numbers as JSON. Example: eval.json
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws quality against throughput as SVG. Example: eval.svg
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Flags of `baton run` for all jobs.
    #[arg(last = true, value_name = "RUN FLAGS")]
    run_flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MetricSet {
    /// BLEU and chrF2, as sacrebleu computes them.
    Bleu,
    /// ROUGE-1, -2 and -L, as rouge-score computes them.
    Rouge,
}

/// Runs `baton eval`.
///
/// # Errors
/// A bundle or the test set is unusable, a job did not finish, or a file cannot be written.
pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let bundles =
        args.bundles.iter().map(|path| Ok(Bundle::open(path)?)).collect::<anyhow::Result<Vec<_>>>()?;
    let metric_set = args.metrics.or_else(|| bundles.first().map(MetricSet::for_bundle));
    let Some(metric_set) = metric_set else {
        bail!("without a bundle, name the metrics with --metrics");
    };
    let mut systems = System::of_bundles(&args.bundles, &bundles, &args.modes)?;
    systems.extend(args.existing.iter().map(|(name, path)| System::existing(name, path)));
    if systems.is_empty() && !args.baseline {
        bail!("there is nothing to evaluate: name a bundle, --outputs NAME=PATH, or --baseline");
    }
    let test_set = TestSet::read(&args.test, &args.id_field, &args.source_field, &args.target_field)?;
    let evaluation = Evaluation {
        metrics: metric_set.metrics(!args.no_stemming),
        bootstrap: Bootstrap { resamples: args.resamples, seed: args.seed },
    };

    let temporary = tempfile::Builder::new().prefix("baton-eval-").tempdir()?;
    let output = args.output.as_deref().unwrap_or(temporary.path());
    let mut evaluated = Vec::new();
    let mut fitted = Vec::new();
    for system in systems {
        let made = system.outputs(args, output)?;
        if args.fit_quality {
            let metric = metric_set.of_single_outputs(!args.no_stemming);
            fitted.extend(FittedQuality::of(&system, &made, &test_set, metric.as_ref())?);
        }
        evaluated.push(EvaluatedSystem::of(&system, &made, &test_set, &evaluation)?);
    }
    if args.baseline {
        evaluated.push(metric_set.baseline(&test_set, &evaluation));
    }

    if args.fit_quality && fitted.is_empty() {
        bail!("--fit-quality writes into a bundle: name one");
    }
    let report =
        table::Report { test: &args.test, evaluation: &evaluation, systems: &evaluated, fitted: &fitted };
    std::io::stdout().lock().write_all(report.text().as_bytes())?;
    if let Some(path) = &args.json {
        let json = format!("{:#}\n", report.json());
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.plot {
        plot::write(path, &report).with_context(|| format!("cannot draw {}", path.display()))?;
    }
    fitted.iter().try_for_each(FittedQuality::write)?;
    Ok(ExitCode::SUCCESS)
}

impl MetricSet {
    fn for_bundle(bundle: &Bundle) -> Self {
        match bundle.manifest().task {
            Task::Translation { .. } => Self::Bleu,
            Task::Summarization { .. } => Self::Rouge,
        }
    }

    fn metrics(self, stem: bool) -> Vec<Box<dyn Metric>> {
        let rouge = |kind| Box::new(Rouge { kind, stem }) as Box<dyn Metric>;
        match self {
            Self::Bleu => vec![Box::new(Bleu), Box::new(ChrF)],
            Self::Rouge => [RougeKind::Longest, RougeKind::One, RougeKind::Two].map(rouge).into(),
        }
    }

    /// The metric that judges a single output best.
    fn of_single_outputs(self, stem: bool) -> Box<dyn Metric> {
        match self {
            Self::Bleu => Box::new(ChrF),
            Self::Rouge => Box::new(Rouge { kind: RougeKind::Longest, stem }),
        }
    }

    /// Scores doing nothing.
    fn baseline(self, test_set: &TestSet, evaluation: &Evaluation) -> EvaluatedSystem {
        match self {
            Self::Bleu => {
                EvaluatedSystem::doing_nothing("source copied", test_set, evaluation, |source| source)
            }
            Self::Rouge => {
                let first_sentence = baton_metrics::first_sentence;
                EvaluatedSystem::doing_nothing("first sentence", test_set, evaluation, first_sentence)
            }
        }
    }
}

fn name_and_path(argument: &str) -> Result<(String, PathBuf), String> {
    match argument.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), Path::new(path).to_owned()))
        }
        _ => Err("it has to be NAME=PATH, such as llm=out/llm".to_owned()),
    }
}
