//! One training run: prepare (tokenizer, pairs, hidden states), then steps, validations and checkpoints, then
//! the bundle.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use baton_model::write_safetensors;
use tch::{Kind, no_grad};

use crate::{
    TrainConfig, TrainError, Trains,
    batches::{BatchSchedule, cut_batches},
    checkpoint::{self, BestValidation, RunState},
    events::{EventLog, Interval, TrainEvent},
    learner::{Finished, Learner},
    objective::{PairSet, Regularization},
    optimizer::AdamW,
    prepare::{check_inputs, claim_directory},
    weights::{Weights, belongs_to_projector},
};

/// A run that is killed loses at most this much work.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(45);
/// Time between reports of progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Where a run keeps its files. A path alone is the run's directory, with the hidden states inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectories {
    /// Tokenizer, checkpoints, log, and the bundle when it is done.
    pub run: PathBuf,
    /// Hidden states, of any LLMs, layers and prompts. Runs that share it share the states of the prompts
    /// that they share.
    pub states: PathBuf,
}

impl<P: AsRef<Path> + ?Sized> From<&P> for RunDirectories {
    fn from(run: &P) -> Self {
        Self { run: run.as_ref().to_owned(), states: run.as_ref().join("states") }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The step whose weights the bundle has.
    pub best_step: usize,
    /// Their validation loss, nats per token.
    pub best_loss: f64,
}

/// Trains by `config`, resuming from the last checkpoint in the run's directory if it has one, and writes the
/// bundle to `bundle` in it. `observe` is called from the training thread; if it breaks, the run saves a
/// checkpoint and stops.
///
/// # Errors
/// Bad settings or data, a directory of another run, a full disk, a loss that diverges, or a stop that
/// `observe` asked for.
pub fn train(
    config: &TrainConfig,
    directories: impl Into<RunDirectories>,
    mut observe: impl FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<TrainReport, TrainError> {
    let directories = directories.into();
    let run_directory = directories.run.as_path();
    config.validate()?;
    check_inputs(config)?;
    fs::create_dir_all(run_directory).map_err(TrainError::io("create", run_directory))?;
    claim_directory(config, run_directory)?;

    let mut log = EventLog::open(run_directory)?;
    let mut report = |event: TrainEvent| {
        log.append(&event);
        observe(&event)
    };
    let mut run = match config.trains {
        Trains::Slm => Run::prepare(config, &directories, &mut report)?,
        Trains::Llm => Run::prepare_llm(config, run_directory, &mut report)?,
    };
    let best = run.train(&mut report)?;
    let bundle = run.export(best)?;
    let _ = report(TrainEvent::Exported { bundle: bundle.clone() });
    Ok(TrainReport { bundle, best_step: best.step, best_loss: best.loss })
}

/// A run, prepared: everything a step needs.
pub(crate) struct Run<'a> {
    pub(crate) config: &'a TrainConfig,
    pub(crate) directory: &'a Path,
    pub(crate) learner: Box<dyn Learner + 'a>,
    pub(crate) train: PairSet,
    pub(crate) validation: PairSet,
    pub(crate) weights: Weights,
    pub(crate) optimizer: AdamW,
    pub(crate) state: RunState,
}

impl Run<'_> {
    /// Makes the remaining steps. Returns the best validation.
    fn train(
        &mut self,
        report: &mut impl FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<BestValidation, TrainError> {
        let h = &self.config.hyperparameters;
        let regularization = Regularization { label_smoothing: h.label_smoothing, dropout: h.dropout };
        let mut schedule =
            BatchSchedule::new(self.train.row_counts(), self.train.mix, h.batch_tokens, h.seed);
        let mut since_report = Interval::start();
        let mut last_checkpoint = Instant::now();
        let started = Instant::now();
        let seconds_before = self.state.train_seconds;

        while self.state.step < h.steps {
            let step = self.state.step;
            let batch = self.train.pairs_of(schedule.batch(step));
            tch::manual_seed((h.seed ^ ((step as u64) << 20)) as i64);
            let loss = self.learner.loss(&self.weights, &self.train, &batch, regularization)?;
            loss.backward();
            let learning_rate = self.config.learning_rate(step);
            let projector_rate = self.config.projector_learning_rate(step);
            let rate_of =
                |name: &str| if belongs_to_projector(name) { projector_rate } else { learning_rate };
            let age_of = |name: &str| match belongs_to_projector(name) {
                true => Some(step),
                false => step.checked_sub(h.projector_steps),
            };
            let gradient_norm = self.optimizer.update(&mut self.weights, age_of, rate_of);
            let loss = f64::try_from(&loss).expect("a loss is one number");
            if !loss.is_finite() || !gradient_norm.is_finite() {
                return Err(TrainError::Diverged { step, loss });
            }
            since_report.add(loss, batch.iter().map(|&i| self.train.pairs[i].num_rows()).sum());
            self.state.step += 1;
            self.state.train_seconds = seconds_before + started.elapsed().as_secs_f64();
            let is_last = self.state.step == h.steps;

            let mut stop = ControlFlow::Continue(());
            if since_report.seconds() >= REPORT_EVERY.as_secs_f64() || is_last {
                stop = report(TrainEvent::Step {
                    step: self.state.step,
                    steps: h.steps,
                    epochs: schedule.epochs_at(step),
                    loss: since_report.mean_loss(),
                    gradient_norm,
                    learning_rate,
                    tokens_per_second: since_report.tokens_per_second(),
                    eta_seconds: since_report.seconds_per_step() * (h.steps - self.state.step) as f64,
                });
                since_report = Interval::start();
            }
            if self.state.step.is_multiple_of(h.validate_every) || is_last {
                stop = self.validate(report)?;
                since_report = Interval::start();
            }
            if last_checkpoint.elapsed() >= CHECKPOINT_EVERY || is_last || stop.is_break() {
                checkpoint::save(self.directory, &self.state, &self.weights, &self.optimizer)?;
                last_checkpoint = Instant::now();
            }
            if stop.is_break() && !is_last {
                return Err(TrainError::Stopped { path: self.directory.to_owned(), step: self.state.step });
            }
        }
        Ok(self.state.best.expect("the last step ends with a validation"))
    }

    /// Measures the validation loss; keeps the weights if it is the best. They are saved before the
    /// checkpoint that says so.
    fn validate(
        &mut self,
        report: &mut impl FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainError> {
        let row_counts = self.validation.row_counts();
        let order: Vec<usize> = (0..row_counts.len()).collect();
        let (mut sum, mut tokens, mut bytes) = (0.0, 0, 0);
        for batch in cut_batches(&order, &row_counts, self.config.hyperparameters.batch_tokens) {
            let batch = self.validation.pairs_of(&batch);
            let pairs = || batch.iter().map(|&i| &self.validation.pairs[i]);
            let batch_tokens: usize = pairs().map(|pair| pair.response.len() + 1).sum();
            bytes += pairs().map(|pair| pair.response_num_bytes).sum::<usize>();
            let loss =
                no_grad(|| self.learner.loss(&self.weights, &self.validation, &batch, Regularization::NONE))?;
            sum += f64::try_from(loss).expect("a loss is one number") * batch_tokens as f64;
            tokens += batch_tokens;
        }
        let step = self.state.step;
        let (loss, loss_per_byte) = (sum / tokens as f64, sum / bytes as f64);
        let best = self.state.best.is_none_or(|best| loss < best.loss);
        if best {
            write_safetensors(&self.best_path(), &self.weights, Kind::Float)?;
            self.state.best = Some(BestValidation { step, loss, loss_per_byte });
            checkpoint::save(self.directory, &self.state, &self.weights, &self.optimizer)?;
        }
        Ok(report(TrainEvent::Validation { step, loss, loss_per_byte, best }))
    }

    fn best_path(&self) -> PathBuf {
        self.directory.join("best.safetensors")
    }

    fn export(&mut self, best: BestValidation) -> Result<PathBuf, TrainError> {
        checkpoint::load_into(&self.best_path(), &mut self.weights)?;
        let bundle = self.directory.join("bundle");
        self.learner.write_bundle(&Finished {
            weights: &self.weights,
            run: self.directory,
            bundle: &bundle,
            best,
            train_pairs: self.train.usable.len(),
            train_seconds: self.state.train_seconds,
        })?;
        Ok(bundle)
    }
}
