//! `baton train`: reads the settings, shows progress.

use std::{
    io::IsTerminal,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use baton_telemetry::tell;
use baton_trainer::{Reads, RunDirectories, TrainConfig, TrainError, TrainEvent, train};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

const EXIT_CODES: &str = "\
Exit codes:
  0    the bundle is written
  1    the run failed
  2    the flags are wrong
  130  interrupted; the same command continues from the last checkpoint";

/// Arguments of `baton train`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct TrainArgs {
    /// Settings of the run, for example `models/en-it/train.toml`.
    config: PathBuf,
    /// Directory of the run: tokenizer, hidden states, checkpoints, log, and the bundle when it is done. An
    /// interrupted run resumes from its last checkpoint. Example: `data/runs/en-it`.
    #[arg(long)]
    out: PathBuf,
    /// Directory of hidden states, of any LLMs, layers and prompts: a run computes only states that earlier
    /// runs have not left there. Default: in --out. Example: `data/states`.
    #[arg(long)]
    states: Option<PathBuf>,
    /// Train the same small model without the LLM: the baseline for `hybrid`.
    #[arg(long)]
    slm: bool,
    /// Fine-tune the LLM itself on the same pairs, whole or by a LoRA adapter, following the config's section
    /// `[llm_training]`. The bundle serves mode llm; `baton bundle add-llm` gives an adapter to the bundle of
    /// a small model.
    #[arg(long, conflicts_with_all = ["slm", "states"])]
    llm: bool,
    /// A setting that overrules the config's, with points for sections; may be given several times. Examples:
    /// `llm_layer=8`; `slm.blocks=6`; `train=data/small.jsonl`.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Optimizer steps, instead of the config's.
    #[arg(long)]
    steps: Option<usize>,
    /// Seed, instead of the config's.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads of libtorch. Default: all cores.
    #[arg(long)]
    threads: Option<usize>,
}

/// Runs `baton train`.
pub(crate) fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let mut config = read_config(&args.config, &args.set)?;
    if args.slm {
        config.reads = Reads::Slm;
        config.bundle.name.push_str("-slm");
    }
    if args.llm {
        config = config.for_llm()?;
        config.bundle.name.push_str("-llm");
    } else {
        config.llm_training = None; // another run's, so that a change there does not forbid this one to go on
    }
    if let Some(steps) = args.steps {
        config.hyperparameters.steps = steps;
    }
    if let Some(seed) = args.seed {
        config.hyperparameters.seed = seed;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    baton_model::set_num_threads(args.threads.unwrap_or(cores));

    let stop = stop_flag()?;
    let mut display = Display::new();
    let mut directories = RunDirectories::from(&args.out);
    if let Some(states) = &args.states {
        directories.states.clone_from(states);
    }
    let result = train(&config, directories, |event| {
        display.show(event);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = match result {
        Err(stopped @ TrainError::Stopped { .. }) => {
            tell!("{stopped}");
            return Ok(ExitCode::from(130));
        }
        result => result?,
    };
    tell!(
        "best validation loss {:.4} at step {}; bundle: {}",
        report.best_loss,
        report.best_step,
        report.bundle.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Settings of a file, overruled by those of `--set`.
fn read_config(path: &Path, settings: &[String]) -> anyhow::Result<TrainConfig> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: TrainConfig = toml::from_str(&text).map_err(|error| config_error(path, &text, &error))?;
    if settings.is_empty() {
        return Ok(config);
    }
    let mut table: toml::Table = toml::from_str(&text).expect("it was just read");
    for setting in settings {
        set(&mut table, setting).with_context(|| format!("--set {setting}"))?;
    }
    let refused = |error: toml::de::Error| {
        anyhow::anyhow!("{} with --set {}: {}", path.display(), settings.join(" --set "), error.message())
    };
    table.try_into().map_err(refused)
}

/// Puts `FIELD=VALUE` into a table. A value that is not TOML is a string.
fn set(table: &mut toml::Table, setting: &str) -> anyhow::Result<()> {
    let (field, value) = setting.split_once('=').context("a setting is FIELD=VALUE, such as llm_layer=8")?;
    let as_toml = toml::from_str(&format!("value = {value}")).ok();
    let value = as_toml.and_then(|mut parsed: toml::Table| parsed.remove("value"));
    let value = value.unwrap_or_else(|| setting[field.len() + 1..].into());
    let mut names: Vec<&str> = field.trim().split('.').collect();
    let last = names.pop().expect("split gives at least one");
    let mut section = table;
    for name in names {
        let inner = section.entry(name).or_insert_with(|| toml::Table::new().into());
        section = inner.as_table_mut().with_context(|| format!("`{name}` is no section of the config"))?;
    }
    section.insert(last.to_owned(), value);
    Ok(())
}

/// toml's own message is a snippet of several lines; an error is one line.
fn config_error(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
    anyhow::anyhow!("{}:{line}: {}", path.display(), error.message().replace('\n', " "))
}

/// Becomes true at the first SIGINT or SIGTERM, after which the run saves a checkpoint and stops. A second
/// one ends it at once.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Progress on a terminal as a bar, elsewhere as a line every half minute.
struct Display {
    bar: ProgressBar,
    is_terminal: bool,
    last_line: Option<Instant>,
}

impl Display {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}")
                .expect("the template is valid"),
        );
        Self { bar, is_terminal, last_line: None }
    }

    fn show(&mut self, event: &TrainEvent) {
        match event {
            TrainEvent::Prepared { train_pairs, train_pairs_left_out, validation_pairs, parameters } => {
                self.line(&format!(
                    "{train_pairs} training pairs ({train_pairs_left_out} left out), {validation_pairs} \
                     validation pairs, {:.2} M parameters to train",
                    *parameters as f64 / 1e6
                ));
            }
            TrainEvent::Encoding { set, tokens_done, tokens_total, tokens_per_second } => {
                let rest = (tokens_total - tokens_done) as f64 / tokens_per_second.max(1.0);
                let eta = HumanDuration(Duration::from_secs_f64(rest));
                self.progress(
                    &format!("encoding {set}"),
                    *tokens_done,
                    *tokens_total,
                    &format!("tokens, {tokens_per_second:.0}/s, {eta} left"),
                );
            }
            TrainEvent::Resumed { step } => self.line(&format!("going on after step {step}")),
            TrainEvent::Step { step, steps, epochs, loss, tokens_per_second, eta_seconds, .. } => {
                let eta = HumanDuration(Duration::from_secs_f64(*eta_seconds));
                self.progress(
                    "training",
                    *step,
                    *steps,
                    &format!(
                        "epoch {epochs:.2}, loss {loss:.3}, {tokens_per_second:.0} tokens/s, {eta} left"
                    ),
                );
            }
            TrainEvent::Validation { step, loss, loss_per_byte, best } => {
                let mark = if *best { ", the best so far" } else { "" };
                self.line(&format!(
                    "step {step}: validation loss {loss:.4} a token, {loss_per_byte:.4} a byte{mark}"
                ));
            }
            TrainEvent::Exported { bundle } => {
                self.bar.finish_and_clear();
                self.line(&format!("bundle written to {}", bundle.display()));
            }
        }
    }

    fn line(&self, text: &str) {
        if self.is_terminal {
            self.bar.println(text);
        } else {
            tell!("{text}");
        }
    }

    fn progress(&mut self, what: &str, done: usize, total: usize, details: &str) {
        if self.is_terminal {
            self.bar.set_prefix(what.to_owned());
            self.bar.set_length(total as u64);
            self.bar.set_position(done as u64);
            self.bar.set_message(details.to_owned());
        } else if done == total || self.last_line.is_none_or(|at| at.elapsed() >= Duration::from_secs(30)) {
            tell!("{what} {done}/{total}: {details}");
            self.last_line = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = include_str!("../../models/en-it/train.toml");
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn read(settings: &[&str]) -> anyhow::Result<TrainConfig> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        read_config(config_file().path(), &settings)
    }

    #[test]
    fn a_setting_of_the_command_line_takes_the_place_of_the_files() {
        let config = read(&[
            "llm_layer=8",
            "mixed_layers=[2, 5]",
            "fusion=replace",
            "slm.blocks = 3",
            "slm.initialization=random",
            "train=data/small.jsonl",
            "hyperparameters.learning_rate=1e-3",
        ])
        .unwrap();
        let expected = TrainConfig {
            llm_layer: 8,
            mixed_layers: vec![2, 5],
            fusion: baton_bundle::Fusion::Replace,
            train: PathBuf::from("data/small.jsonl").into(),
            ..read(&[]).unwrap()
        };
        let (slm, rate) = (config.slm.clone().unwrap(), config.hyperparameters.learning_rate);
        assert_eq!((slm.blocks, slm.initialization), (3, baton_trainer::Initialization::Random));
        assert!((rate - 1e-3).abs() < 1e-12);
        assert_eq!(
            TrainConfig {
                slm: expected.slm.clone(),
                hyperparameters: expected.hyperparameters.clone(),
                ..config
            },
            expected
        );
    }

    #[test]
    fn a_setting_that_cannot_be_is_refused_with_its_name() {
        for (setting, problem) in [
            ("llm_layer", "a setting is FIELD=VALUE"),
            ("lmm_layer=8", "unknown field `lmm_layer`"),
            ("slm.blocks=many", "invalid type: string \"many\""),
            ("fusion.kind=add", "`fusion` is no section"),
        ] {
            let error = format!("{:#}", read(&[setting]).unwrap_err());
            assert!(error.contains(setting) && error.contains(problem), "{error}");
        }
    }
}
