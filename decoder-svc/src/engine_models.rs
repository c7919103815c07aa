//! The models of one engine: the one that writes, and where its work is drafted, the one that drafts.

use baton_bundle::Bundle;
use baton_decoding::{DraftOptions, DraftStep, FinishedRow, Plan, RowId, Scheduler, SchedulerLimits};
use baton_job::Mode;
use baton_model::{BatchDecoder, CACHE_BLOCK_TOKENS, CacheLimits, ModelError, Prompt};

use crate::DecoderConfig;
use crate::writer::RowPrompt;

/// Tokens drafted for one pass of the LLM at most. Long drafts are seldom right to their end.
const MAX_DRAFT_TOKENS: usize = 8;

/// The models of one engine.
#[derive(Debug)]
pub(crate) struct EngineModels {
    /// The model that writes.
    writer: BatchDecoder,
    /// In mode `verified`, it drafts the LLM's outputs.
    drafter: Option<Drafter>,
}

/// The model that drafts.
#[derive(Debug)]
struct Drafter {
    slm: BatchDecoder,
    next: DraftStep, // written anew for each of its steps
}

impl EngineModels {
    /// Loads the models for `config.mode`, with a scheduler.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded.
    pub(crate) fn load(bundle: &Bundle, config: &DecoderConfig) -> Result<(Self, Scheduler), ModelError> {
        let &DecoderConfig { compute, max_slots, max_cache_tokens, max_prefill_tokens, mode, .. } = config;
        let cache = CacheLimits { max_slots, max_cache_tokens };
        let writer = match mode.llm_writes() {
            true => BatchDecoder::load_llm(bundle, compute, cache)?,
            false => BatchDecoder::load(bundle, compute, cache)?,
        };
        let cache_block_tokens = CACHE_BLOCK_TOKENS;
        let limits = SchedulerLimits { max_slots, max_cache_tokens, cache_block_tokens, max_prefill_tokens };
        let mut scheduler = Scheduler::new(limits, writer.special_tokens());
        let mut drafter = None;
        if mode == Mode::Verified {
            let slm = BatchDecoder::load(bundle, compute, cache)?;
            let begin_of_sequence = slm.special_tokens().begin_of_sequence;
            let options = DraftOptions { begin_of_sequence, max_draft_tokens: MAX_DRAFT_TOKENS };
            scheduler = scheduler.with_drafts(options);
            drafter = Some(Drafter { slm, next: DraftStep::default() });
        }
        Ok((Self { writer, drafter }, scheduler))
    }

    /// Executes the scheduler's plan; returns the rows that are then done.
    pub(crate) fn carry_out<'a>(
        &mut self,
        scheduler: &mut Scheduler,
        plan: &mut Plan,
        prompt_of: impl Fn(RowId) -> &'a RowPrompt,
    ) -> Vec<FinishedRow> {
        self.writer.rewind(&plan.rewind);
        self.writer.begin_step(plan, |row| {
            let RowPrompt { states, tokens, .. } = prompt_of(row);
            let tokens = tokens.as_ref().map(|tokens| Prompt::Tokens(tokens));
            tokens.or(states.as_ref().map(Prompt::States)).expect("a prompt is never nothing")
        });
        if let Some(Drafter { slm, next }) = &mut self.drafter {
            let states =
                |row| prompt_of(row).states.as_ref().expect("where the SLM takes part, there are states");
            slm.begin_step(plan, |row| Prompt::States(states(row)));
            loop {
                scheduler.schedule_drafts(next);
                slm.rewind(&next.rewind);
                if next.step.is_empty() {
                    break;
                }
                scheduler.absorb_drafts(slm.step(&next.step));
            }
            scheduler.add_drafts(plan);
        }
        scheduler.absorb(self.writer.step(&plan.step))
    }
}
