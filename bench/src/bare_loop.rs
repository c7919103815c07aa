//! The cost of a job without anything around its models. Tokenized prompts go through the encoder and, from
//! memory, through the decode loop. There is no gRPC, no tokenizing and no commit; the difference to a job is
//! the cost of those.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton_bundle::{Bundle, Reading};
use baton_decoding::{Generation, GroupId, Plan, RowId, RowRequest, Scheduler, SchedulerLimits};
use baton_encoder_svc::pack_batches;
use baton_job::Mode;
use baton_model::{
    BatchDecoder, CACHE_BLOCK_TOKENS, CacheLimits, Compute, Prompt, PromptEncoder, PromptStates,
};

use crate::BenchError;

/// The work, and its settings. Batches, slots and caches are as in the services.
#[derive(Debug, Clone)]
pub struct BareLoopConfig {
    /// The mode; not `verified`.
    pub mode: Mode,
    /// Arithmetic of the models.
    pub compute: Compute,
    /// Engines of each model, one thread each. The encoder's work comes first, then the decoder's, so no more
    /// threads run at once.
    pub engines: usize,
    /// Tokens of one encode batch at most.
    pub max_batch_tokens: usize,
    /// Rows that one engine decodes at once.
    pub max_slots: usize,
    /// Tokens of one engine's cache.
    pub max_cache_tokens: usize,
    /// Prompt tokens prefilled between two steps.
    pub max_prefill_tokens: usize,
}

/// The models, loaded.
#[derive(Debug)]
pub struct BareLoop {
    config: BareLoopConfig,
    encoders: Vec<PromptEncoder>,
    decoders: Vec<BatchDecoder>,
    prompt_end: Vec<u32>,
}

/// The times of one round.
#[derive(Debug, Clone, Copy)]
pub struct BareRound {
    /// Time of the encoder.
    pub encode: Duration,
    /// Time of the decode loop.
    pub decode: Duration,
    /// Tokens written, ends included.
    pub output_tokens: u64,
}

impl BareLoop {
    /// Loads the models of `config.mode`.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded, or the mode has no bare loop.
    pub fn load(bundle: &Bundle, config: BareLoopConfig) -> Result<Self, BenchError> {
        let BareLoopConfig { mode, compute, max_slots, max_cache_tokens, .. } = config;
        if mode == Mode::Verified {
            return Err(BenchError::Request(
                "mode verified combines two loops; it has no bare loop".to_owned(),
            ));
        }
        let cache = CacheLimits { max_slots, max_cache_tokens };
        let (mut encoders, mut decoders, mut prompt_end) = (Vec::new(), Vec::new(), Vec::new());
        if mode.llm_writes() {
            prompt_end = bundle.prompt_end_ids()?;
            prompt_end.pop(); // fed in a row's first step
        }
        for _ in 0..config.engines.max(1) {
            if mode.llm_writes() {
                decoders.push(BatchDecoder::load_llm(bundle, compute, cache)?);
            } else {
                encoders.push(PromptEncoder::load(bundle, &[mode], compute)?);
                decoders.push(BatchDecoder::load(bundle, compute, cache)?);
            }
        }
        Ok(Self { config, encoders, decoders, prompt_end })
    }

    /// Runs all prompts once.
    ///
    /// # Errors
    /// A prompt does not fit into the cache.
    pub fn round(
        &mut self,
        prompts: &[Reading],
        generation: &Arc<Generation>,
    ) -> Result<BareRound, BenchError> {
        let prompt_lens: Vec<usize> = prompts.iter().map(Reading::num_tokens).collect();
        let batches = pack_batches(&prompt_lens, self.config.max_batch_tokens);
        let order = batches.concat();
        let started = Instant::now();
        let states = self.encode(prompts, &batches);
        let encode = started.elapsed();
        let tokens: Vec<Vec<u32>> = match states.is_empty() {
            true => {
                prompts.iter().map(|prompt| [&prompt.llm_tokens[..], &self.prompt_end].concat()).collect()
            }
            false => Vec::new(),
        };
        let prompt_of = |index: usize| match states.get(&index) {
            Some(states) => Prompt::States(states),
            None => Prompt::Tokens(&tokens[index]),
        };
        let started = Instant::now();
        let config = &self.config;
        let num_engines = self.decoders.len();
        let output_tokens = std::thread::scope(|scope| {
            let (order, prompt_of) = (&order, &prompt_of);
            let engines: Vec<_> = self
                .decoders
                .iter_mut()
                .enumerate()
                .map(|(engine, decoder)| {
                    let rows: Vec<usize> = order.iter().copied().skip(engine).step_by(num_engines).collect();
                    scope.spawn(move || decode(decoder, config, (&rows, prompt_of), generation))
                })
                .collect();
            engines
                .into_iter()
                .map(|engine| engine.join().expect("a measuring thread does not panic"))
                .sum::<Result<u64, _>>()
        })?;
        Ok(BareRound { encode, decode: started.elapsed(), output_tokens })
    }

    /// Prompt states by the prompt's index; none where the decoder reads tokens.
    fn encode(&mut self, prompts: &[Reading], batches: &[Vec<usize>]) -> HashMap<usize, PromptStates> {
        let (next_batch, mode) = (AtomicUsize::new(0), self.config.mode);
        std::thread::scope(|scope| {
            let engines: Vec<_> = self
                .encoders
                .iter_mut()
                .map(|encoder| {
                    let next_batch = &next_batch;
                    scope.spawn(move || {
                        let mut encoded = Vec::new();
                        while let Some(batch) = batches.get(next_batch.fetch_add(1, Ordering::Relaxed)) {
                            let readings: Vec<Reading> =
                                batch.iter().map(|&index| prompts[index].clone()).collect();
                            let states = encoder.encode(mode, &readings).into_iter().flatten();
                            encoded.extend(batch.iter().copied().zip(states));
                        }
                        encoded
                    })
                })
                .collect();
            engines
                .into_iter()
                .flat_map(|engine| engine.join().expect("a measuring thread does not panic"))
                .collect()
        })
    }
}

/// Decodes `rows` in one continuous batch; gives how many tokens they wrote.
fn decode<'a>(
    decoder: &mut BatchDecoder,
    config: &BareLoopConfig,
    (rows, prompt_of): (&[usize], &(impl Fn(usize) -> Prompt<'a> + Sync)),
    generation: &Arc<Generation>,
) -> Result<u64, BenchError> {
    let &BareLoopConfig { max_slots, max_cache_tokens, max_prefill_tokens, .. } = config;
    let cache_block_tokens = CACHE_BLOCK_TOKENS;
    let limits = SchedulerLimits { max_slots, max_cache_tokens, cache_block_tokens, max_prefill_tokens };
    let mut scheduler = Scheduler::new(limits, decoder.special_tokens());
    for &row in rows {
        let index = u32::try_from(row).map_err(|_| BenchError::Request("too many prompts".to_owned()))?;
        let request = RowRequest {
            row: RowId { group: GroupId(0), index },
            prompt_len: prompt_of(row).len(),
            generation: Arc::clone(generation),
            random_stream: 0,
        };
        scheduler.submit(request).map_err(|error| BenchError::Request(error.to_string()))?;
    }
    let (mut plan, mut num_tokens) = (Plan::default(), 0);
    loop {
        scheduler.schedule(&mut plan);
        if plan.is_empty() {
            return Ok(num_tokens);
        }
        decoder.begin_step(&plan, |row| prompt_of(row.index as usize));
        for row in scheduler.absorb(decoder.step(&plan.step)) {
            num_tokens += row.outputs.iter().map(|output| output.num_tokens as u64).sum::<u64>();
        }
    }
}
