//! The encoder: packed batches of prompts through the LLM up to the bundle's layer, the projector and the
//! fusion.

use std::time::{Duration, Instant};

use baton_bundle::{Bundle, Reading, TokenFlops};
use baton_encoder_svc::pack_batches;
use baton_job::Mode;
use baton_model::{Compute, PromptEncoder, matmul_operations_per_second, take_part_times};
use serde::Serialize;

use crate::{BenchError, PartTime, median, part_times};

/// How long the rate of plain matrix products is measured.
const MATMUL_DURATION: Duration = Duration::from_millis(300);

/// A measurement to make.
#[derive(Debug, Clone)]
pub struct EncodeBench {
    /// Arithmetic of the LLM.
    pub compute: Compute,
    /// Engines, one thread each; every one encodes all prompts.
    pub engines: usize,
    /// Token ids of the prompts, of the LLM.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens of one packed batch at most.
    pub batch_tokens: usize,
    /// Measured rounds, after one that is not counted.
    pub rounds: usize,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct EncodeResult {
    /// Prompt tokens a second, all engines together; median over rounds.
    pub tokens_per_second: f64,
    /// Arithmetic of the LLM's products as a share of the rate of plain ones in the same format and run.
    pub share_of_matmul_rate: f64,
    /// Multiplications and additions a second of plain products on one thread.
    pub matmul_operations_per_second: f64,
    /// Time by part, milliseconds a round and engine.
    pub parts: Vec<PartTime>,
}

/// Measures the encoder of a bundle.
///
/// # Errors
/// The bundle's models cannot be loaded, or the request makes no sense.
pub fn encode(bundle: &Bundle, bench: &EncodeBench) -> Result<EncodeResult, BenchError> {
    if bench.prompts.iter().any(Vec::is_empty) || bench.prompts.is_empty() || bench.rounds == 0 {
        return Err(BenchError::Request("prompts, their tokens and rounds are at least 1".to_owned()));
    }
    let prompt_lens: Vec<usize> = bench.prompts.iter().map(Vec::len).collect();
    let measured: Vec<(Vec<f64>, Vec<PartTime>, f64)> = std::thread::scope(|scope| {
        let run = || {
            let encoder = PromptEncoder::load(bundle, &[Mode::Hybrid], bench.compute)?;
            let before = matmul_operations_per_second(bench.compute, MATMUL_DURATION);
            let reading = |index: usize| Reading::of_llm_tokens(bench.prompts[index].clone());
            let batches: Vec<Vec<Reading>> = pack_batches(&prompt_lens, bench.batch_tokens)
                .into_iter()
                .map(|batch| batch.into_iter().map(reading).collect())
                .collect();
            let mut seconds = Vec::new();
            for round in 0..=bench.rounds {
                let started = Instant::now();
                for batch in &batches {
                    let _ = encoder.encode(Mode::Hybrid, batch);
                }
                match round {
                    0 => drop(take_part_times()),
                    _ => seconds.push(started.elapsed().as_secs_f64()),
                }
            }
            Ok::<_, BenchError>((seconds, part_times(take_part_times(), bench.rounds as f64), before))
        };
        let threads: Vec<_> = (0..bench.engines.max(1)).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a measuring thread does not panic"))
            .collect::<Result<_, BenchError>>()
    })?;
    let tokens: usize = bench.prompts.iter().map(Vec::len).sum();
    let tokens_per_second: f64 =
        measured.iter().map(|(seconds, _, _)| tokens as f64 / median(seconds.clone())).sum();
    let matmul_rate = median(measured.iter().map(|(_, _, rate)| *rate).collect());
    let (llm, config) = bundle.llm()?;
    let operations_per_token = TokenFlops::of_blocks(config, llm.layers).weights as f64;
    Ok(EncodeResult {
        tokens_per_second,
        share_of_matmul_rate: tokens_per_second * operations_per_token
            / (matmul_rate * measured.len() as f64),
        matmul_operations_per_second: matmul_rate,
        parts: measured.into_iter().next().map(|(_, parts, _)| parts).unwrap_or_default(),
    })
}
