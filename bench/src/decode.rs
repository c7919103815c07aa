//! The decode loop: scheduler, model and selection, as the decode service runs them, on rows that all begin
//! at once.
//!
//! Rows are split between single-threaded engines, each with its own copy of the weights. Decoding is greedy,
//! and every row writes exactly the requested number of tokens.

use std::{
    path::PathBuf,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use baton_bundle::{ModelConfig, PromptAttention, TokenFlops};
use baton_decoding::{Generation, GroupId, Plan, RowId, RowRequest, Scheduler, SchedulerLimits};
use baton_model::{
    BatchDecoder, CACHE_BLOCK_TOKENS, CacheLimits, Checkpoint, Compute, ModelParts, Part, Prompt,
    RandomWeights, TensorSource, matmul_operations_per_second, take_part_times,
};
use serde::Serialize;

use crate::{BenchError, PartTime, median, part_times};

/// Prompt tokens prefilled between two steps, as in the decode service.
const MAX_PREFILL_TOKENS: usize = 1024;

/// How long the rate of plain matrix products is measured, before and after the measurement.
const MATMUL_DURATION: Duration = Duration::from_millis(300);

/// The model to measure.
#[derive(Debug, Clone)]
pub enum LanguageModel {
    /// A Hugging Face directory with `config.json` and `model.safetensors`.
    Directory(PathBuf),
    /// Random weights of this shape.
    Random(Box<ModelConfig>),
}

/// A measurement to make.
#[derive(Debug, Clone)]
pub struct DecodeBench {
    /// The model.
    pub model: LanguageModel,
    /// Its arithmetic.
    pub compute: Compute,
    /// Engines, one thread each.
    pub engines: usize,
    /// One per row. The last token of each is the same: it is fed in the first step, the others are
    /// prefilled.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens that each row writes.
    pub new_tokens: usize,
    /// Measured rounds, after one that is not counted. Medians are reported.
    pub rounds: usize,
}

/// The result. Rates are medians over rounds.
#[derive(Debug, Clone, Serialize)]
pub struct DecodeResult {
    /// Rows.
    pub batch: usize,
    /// New tokens a second, all engines together, prefill included.
    pub tokens_per_second: f64,
    /// The same without the time of prefill.
    pub decode_tokens_per_second: f64,
    /// Seconds from the first prefill to the last token.
    pub seconds: f64,
    /// Arithmetic of the decode steps' products as a share of the rate of plain ones in the same format and
    /// run, one thread each.
    pub share_of_matmul_rate: f64,
    /// Multiplications and additions a second of plain products on one thread.
    pub matmul_operations_per_second: f64,
    /// A step's time by part, milliseconds, mean over engines and rounds.
    pub step_parts: Vec<PartTime>,
    /// The rest of a step: selection and bookkeeping, milliseconds.
    pub step_rest_milliseconds: f64,
    /// Prefill of all rows by part, milliseconds, mean over engines and rounds.
    pub prefill_parts: Vec<PartTime>,
    /// The rows' tokens in the last round.
    #[serde(skip)]
    pub tokens: Vec<Vec<u32>>,
}

/// One engine's part of one round.
struct Round {
    ended: Instant,
    prefill: Duration,
    steps: Duration,
    num_steps: usize,
    prefill_parts: [Duration; Part::ALL.len()],
    step_parts: [Duration; Part::ALL.len()],
    tokens: Vec<(usize, Vec<u32>)>,
}

/// Measures the decode loop.
///
/// # Errors
/// The model cannot be loaded, or the request makes no sense.
pub fn decode(bench: &DecodeBench) -> Result<DecodeResult, BenchError> {
    let config = match &bench.model {
        LanguageModel::Directory(directory) => ModelConfig::read(&directory.join("config.json"))?,
        LanguageModel::Random(config) => config.as_ref().clone(),
    };
    check(bench, &config)?;
    let engines = bench.engines.min(bench.prompts.len());
    let barrier = Barrier::new(engines + 1);
    let (rounds, starts, matmul_rate) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..engines)
            .map(|engine| {
                let (barrier, config) = (&barrier, &config);
                scope.spawn(move || {
                    let rows: Vec<usize> = (engine..bench.prompts.len()).step_by(engines).collect();
                    let loaded = Engine::load(bench, config, rows);
                    let before = matmul_operations_per_second(bench.compute, MATMUL_DURATION);
                    let mut rounds = Vec::new();
                    let mut loaded = loaded.inspect_err(|_| {
                        for _ in 0..=bench.rounds {
                            barrier.wait(); // the others must not wait for this engine
                        }
                    })?;
                    for _ in 0..=bench.rounds {
                        barrier.wait();
                        rounds.push(loaded.round());
                    }
                    let after = matmul_operations_per_second(bench.compute, MATMUL_DURATION);
                    Ok::<_, BenchError>((rounds, before.max(after)))
                })
            })
            .collect();
        let starts: Vec<Instant> = (0..=bench.rounds)
            .map(|_| {
                barrier.wait();
                Instant::now()
            })
            .collect();
        let mut rounds = Vec::new();
        let mut rates = Vec::new();
        for thread in threads {
            let (engine_rounds, rate) = thread.join().expect("a measuring thread does not panic")?;
            rounds.push(engine_rounds);
            rates.push(rate);
        }
        Ok::<_, BenchError>((rounds, starts, median(rates)))
    })?;
    Ok(summarize(bench, &config, (rounds, &starts), matmul_rate))
}

fn check(bench: &DecodeBench, config: &ModelConfig) -> Result<(), BenchError> {
    let request = |why: &str| Err(BenchError::Request(why.to_owned()));
    if bench.prompts.is_empty() || bench.engines == 0 || bench.rounds == 0 || bench.new_tokens == 0 {
        return request("rows, engines, rounds and new tokens are at least 1");
    }
    if bench.prompts.iter().any(|prompt| prompt.len() < 2 || prompt.last() != bench.prompts[0].last()) {
        return request("prompts have at least 2 tokens, and the last is the same in all of them");
    }
    if bench.prompts.iter().flatten().any(|&token| token as usize >= config.vocab_size) {
        return Err(BenchError::Request(format!(
            "a prompt has a token that is not among the model's {}",
            config.vocab_size
        )));
    }
    Ok(())
}

/// One engine with its rows.
struct Engine<'a> {
    bench: &'a DecodeBench,
    decoder: BatchDecoder,
    scheduler: Scheduler,
    rows: Vec<usize>,
}

impl<'a> Engine<'a> {
    fn load(bench: &'a DecodeBench, config: &ModelConfig, rows: Vec<usize>) -> Result<Self, BenchError> {
        let checkpoint;
        let source: &dyn TensorSource = match &bench.model {
            LanguageModel::Directory(directory) => {
                checkpoint = Checkpoint::open(&directory.join("model.safetensors"))?;
                &checkpoint
            }
            LanguageModel::Random(_) => &RandomWeights { seed: 1 },
        };
        let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
        let model = baton_model::LanguageModel::load(config, source, parts, bench.compute)?;
        let longest = bench.prompts.iter().map(Vec::len).max().unwrap_or(0);
        let max_cache_tokens = rows.len() * (longest + bench.new_tokens).next_multiple_of(CACHE_BLOCK_TOKENS);
        let limits = CacheLimits { max_slots: rows.len(), max_cache_tokens };
        let decoder = BatchDecoder::new(model, PromptAttention::Causal, bench.compute, limits)?;
        let mut special = decoder.special_tokens();
        special.begin_of_sequence = *bench.prompts[0].last().expect("prompts are not empty");
        let limits = SchedulerLimits {
            max_slots: rows.len(),
            max_cache_tokens,
            cache_block_tokens: CACHE_BLOCK_TOKENS,
            max_prefill_tokens: MAX_PREFILL_TOKENS,
        };
        Ok(Self { bench, decoder, scheduler: Scheduler::new(limits, special), rows })
    }

    /// Runs all rows from prompt to last token.
    fn round(&mut self) -> Round {
        let num_tokens = self.bench.new_tokens;
        let generation = Arc::new(Generation::of_new_tokens(num_tokens, num_tokens));
        for &row in &self.rows {
            let request = RowRequest {
                row: RowId { group: GroupId(0), index: row as u32 },
                prompt_len: self.bench.prompts[row].len() - 1,
                generation: Arc::clone(&generation),
                random_stream: 0,
            };
            self.scheduler.submit(request).expect("the cache was made for these rows");
        }
        let mut round = Round {
            ended: Instant::now(),
            prefill: Duration::ZERO,
            steps: Duration::ZERO,
            num_steps: 0,
            prefill_parts: Default::default(),
            step_parts: Default::default(),
            tokens: Vec::with_capacity(self.rows.len()),
        };
        let _ = take_part_times();
        let mut plan = Plan::default();
        loop {
            self.scheduler.schedule(&mut plan);
            if plan.is_empty() {
                round.ended = Instant::now();
                return round;
            }
            let started = Instant::now();
            self.decoder.begin_step(&plan, |row| {
                let prompt = &self.bench.prompts[row.index as usize];
                Prompt::Tokens(&prompt[..prompt.len() - 1])
            });
            round.prefill += started.elapsed();
            add(&mut round.prefill_parts, take_part_times());

            let started = Instant::now();
            let finished = self.scheduler.absorb(self.decoder.step(&plan.step));
            round.steps += started.elapsed();
            round.num_steps += 1;
            add(&mut round.step_parts, take_part_times());
            let sequences = finished.into_iter().map(|row| (row.row.index as usize, row.outputs));
            round.tokens.extend(sequences.filter_map(|(row, outputs)| {
                outputs.into_iter().next().map(|sequence| (row, sequence.tokens))
            }));
        }
    }
}

fn add(sum: &mut [Duration; Part::ALL.len()], times: [Duration; Part::ALL.len()]) {
    sum.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
}

fn summarize(
    bench: &DecodeBench,
    config: &ModelConfig,
    (engines, starts): (Vec<Vec<Round>>, &[Instant]),
    matmul_rate: f64,
) -> DecodeResult {
    let new_tokens = (bench.prompts.len() * bench.new_tokens) as f64;
    let measured = 1..=bench.rounds; // the first round warms up
    let per_round = |of: &dyn Fn(&Round, Instant) -> f64| {
        let slowest =
            |round: usize| engines.iter().map(|rounds| of(&rounds[round], starts[round])).fold(0.0, f64::max);
        median(measured.clone().map(slowest).collect())
    };
    let seconds = per_round(&|round, start| round.ended.duration_since(start).as_secs_f64());
    let step_seconds = per_round(&|round, _| round.steps.as_secs_f64());

    let rounds: Vec<&Round> = engines.iter().flat_map(|rounds| &rounds[1..]).collect();
    let num_steps: usize = rounds.iter().map(|round| round.num_steps).sum();
    let (mut step_parts, mut prefill_parts) = <([Duration; 7], [Duration; 7])>::default();
    for round in &rounds {
        add(&mut step_parts, round.step_parts);
        add(&mut prefill_parts, round.prefill_parts);
    }
    let all_steps: Duration = rounds.iter().map(|round| round.steps).sum();
    let rest = all_steps.saturating_sub(step_parts.iter().sum());
    let operations_per_token = TokenFlops::of_generating(config).weights as f64;
    let mut tokens = vec![Vec::new(); bench.prompts.len()];
    for (row, written) in engines.iter().filter_map(|rounds| rounds.last()).flat_map(|round| &round.tokens) {
        tokens[*row].clone_from(written);
    }
    DecodeResult {
        batch: bench.prompts.len(),
        tokens_per_second: new_tokens / seconds,
        decode_tokens_per_second: new_tokens / step_seconds,
        seconds,
        share_of_matmul_rate: new_tokens * operations_per_token
            / step_seconds
            / (matmul_rate * engines.len() as f64),
        matmul_operations_per_second: matmul_rate,
        step_parts: part_times(step_parts, num_steps as f64),
        step_rest_milliseconds: rest.as_secs_f64() * 1e3 / num_steps as f64,
        prefill_parts: part_times(prefill_parts, rounds.len() as f64),
        tokens,
    }
}
