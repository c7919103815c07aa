//! Beam search, token for token that of Hugging Face transformers'
//! `generate(num_beams = ..., do_sample = False)`.
//!
//! At each step the best `(1 + stop tokens) * num_beams` continuations of all running sequences are
//! candidates. Candidates that end, and are among the best `num_beams`, become finished sequences; the best
//! `num_beams` of these are kept. The best `num_beams` candidates that do not end run on. Scores are f32 and
//! computed in transformers' order. Baton fixes the order of ties: of equal candidates, the earlier
//! sequence's comes first, then the lower token; of equal finished sequences, the earlier one.

use crate::constraints::ConstraintScratch;
use crate::copying::WrittenWords;
use crate::kernels::log_softmax;
use crate::search::{SearchBounds, SearchScratch};
use crate::top_k::{Candidate, TopK};
use crate::{EarlyStopping, FinishReason, FinishedSequence, Generation, LogProbabilities, LogitRows};

/// The beam of one row.
#[derive(Debug)]
pub(crate) struct BeamSearch {
    bounds: SearchBounds,
    num_beams: usize,
    /// Best first; all of the same length.
    running: Vec<Running>,
    /// The next `running`, kept for its memory.
    next: Vec<Running>,
    /// Best first, at most `num_beams`.
    finished: Vec<FinishedSequence>,
    parents: Vec<usize>,
    num_tokens: usize,
}

#[derive(Debug, Clone, Default)]
struct Running {
    tokens: Vec<u32>,
    /// Present if there are words to copy.
    written: Option<WrittenWords>,
    log_probability_sum: f32,
    /// The lowest of a token.
    worst_log_probability: f32,
}

impl Running {
    /// The lowest log-probability of a token, with that of `candidate`, which follows.
    fn worst_with(&self, candidate: &Candidate) -> f32 {
        self.worst_log_probability.min(candidate.value - self.log_probability_sum)
    }

    fn set_to_child(&mut self, parent: &Running, candidate: &Candidate, generation: &Generation) {
        self.tokens.clone_from(&parent.tokens);
        self.tokens.push(candidate.token);
        self.written.clone_from(&parent.written);
        generation.write(&mut self.written, candidate.token);
        self.worst_log_probability = parent.worst_with(candidate);
        self.log_probability_sum = candidate.value;
    }
}

impl BeamSearch {
    pub(crate) fn new(bounds: SearchBounds) -> Self {
        // As the row's cache, whole from the start. The tokens of a running sequence are compared with one
        // more that may end it.
        let running = || Running {
            tokens: Vec::with_capacity(bounds.max_new_tokens + 1),
            written: bounds.generation.written(&[]),
            log_probability_sum: 0.0,
            worst_log_probability: 0.0,
        };
        let num_beams = bounds.generation.num_sequences();
        Self {
            running: vec![running()],
            next: (1..2 * num_beams).map(|_| running()).collect(),
            finished: Vec::with_capacity(num_beams),
            parents: Vec::with_capacity(num_beams),
            bounds,
            num_beams,
            num_tokens: 0,
        }
    }

    pub(crate) fn last_tokens(&self) -> impl Iterator<Item = Option<u32>> {
        self.running.iter().map(|running| running.tokens.last().copied())
    }

    pub(crate) fn parents(&self) -> &[usize] {
        &self.parents
    }

    pub(crate) fn advance(
        &mut self,
        (logits, first_row): (LogitRows<'_>, usize),
        scratch: &mut SearchScratch,
    ) {
        let SearchScratch { constrained, top, .. } = scratch;
        self.find_candidates((logits, first_row), false, constrained, top);
        if top.finish().iter().any(|candidate| self.bounds.is_misfit(candidate.token)) {
            self.find_candidates((logits, first_row), true, constrained, top);
        }
        self.take_candidates(top.finish());
    }

    /// Puts the best continuations of all running sequences into `top`.
    fn find_candidates(
        &self,
        (logits, first_row): (LogitRows<'_>, usize),
        masks_misfits: bool,
        constrained: &mut ConstraintScratch,
        top: &mut TopK,
    ) {
        let num_stop_tokens = 1 + self.bounds.generation.stop_tokens.len();
        top.start((1 + num_stop_tokens) * self.num_beams);
        for (row, running) in self.running.iter().enumerate() {
            let logits = logits.row(first_row + row);
            let (values, mut shift) = self.bounds.constrain(
                (&running.tokens, running.written.as_ref()),
                (logits, log_softmax(logits)),
                masks_misfits,
                constrained,
            );
            shift.score = running.log_probability_sum;
            top.offer(row as u32, values, shift, self.bounds.places());
        }
    }

    fn take_candidates(&mut self, candidates: &[Candidate]) {
        let num_beams = self.num_beams;
        self.num_tokens += 1;
        self.parents.clear();
        for (rank, candidate) in candidates.iter().enumerate() {
            let parent = &mut self.running[candidate.row as usize];
            let is_stop_token = self.bounds.is_stop_token(candidate.token);
            parent.tokens.push(candidate.token);
            let end = match is_stop_token {
                true => Some(FinishReason::Stop),
                false => self.bounds.end_after(&parent.tokens),
            };
            parent.tokens.pop();
            match end {
                Some(finish_reason) if rank < num_beams => {
                    self.finish(candidate, is_stop_token, finish_reason);
                }
                Some(_) => {}
                None if self.parents.len() < num_beams => {
                    let child = &mut self.next[self.parents.len()];
                    child.set_to_child(
                        &self.running[candidate.row as usize],
                        candidate,
                        &self.bounds.generation,
                    );
                    self.parents.push(candidate.row as usize);
                }
                None => {}
            }
        }
        if self.parents.is_empty() && self.finished.is_empty() {
            self.give_up();
        }
        if self.is_over() {
            self.parents.clear();
        }
        // Sequences left from a longer beam stay in `next`, as memory.
        std::mem::swap(&mut self.running, &mut self.next);
        while self.running.len() > self.parents.len() {
            self.next.extend(self.running.pop());
        }
    }

    /// Notes a finished sequence, if it is one of the best.
    fn finish(&mut self, candidate: &Candidate, is_stop_token: bool, finish_reason: FinishReason) {
        let parent = &self.running[candidate.row as usize];
        let log_probabilities = LogProbabilities {
            mean: candidate.value / self.num_tokens as f32,
            worst: parent.worst_with(candidate),
        };
        let Running { mut tokens, mut written, .. } = parent.clone();
        if !is_stop_token {
            tokens.push(candidate.token);
            self.bounds.generation.write(&mut written, candidate.token);
        }
        let score = self.score((candidate.value, written.as_ref()), self.num_tokens);
        let place = self.finished.partition_point(|finished| finished.score >= score);
        if place == self.num_beams {
            return;
        }
        self.finished.truncate(self.num_beams - 1);
        let num_tokens = self.num_tokens;
        let sequence = FinishedSequence { tokens, num_tokens, score, log_probabilities, finish_reason };
        self.finished.insert(place, sequence);
    }

    /// Ends with the present sequences if no token may follow: the model computed no numbers, or all tokens
    /// are forbidden.
    fn give_up(&mut self) {
        let tokens = std::mem::take(&mut self.running[0].tokens);
        let (num_tokens, finish_reason) = (tokens.len(), FinishReason::Length);
        let log_probabilities = LogProbabilities { mean: f32::NAN, worst: f32::NAN };
        let score = f32::NAN;
        self.finished.push(FinishedSequence { tokens, num_tokens, score, log_probabilities, finish_reason });
    }

    /// A sequence's score at a length.
    fn score(&self, (log_probability_sum, written): (f32, Option<&WrittenWords>), num_tokens: usize) -> f32 {
        let copying = self.bounds.generation.copying.as_ref().zip(written);
        let reward = copying.map_or(0.0, |(copying, written)| copying.reward(written));
        let length_penalty = self.bounds.generation.options.length_penalty;
        (log_probability_sum + reward) / (num_tokens as f64).powf(length_penalty) as f32
    }

    /// Whether no running sequence is left, or none is expected to do better than those that are finished.
    fn is_over(&self) -> bool {
        if self.parents.is_empty() {
            return true;
        }
        let Some(worst) = self.finished.last().filter(|_| self.finished.len() == self.num_beams) else {
            return false;
        };
        let options = &self.bounds.generation.options;
        let best_length = match options.early_stopping {
            EarlyStopping::AtOnce => return true,
            EarlyStopping::Never if options.length_penalty > 0.0 => self.bounds.max_new_tokens,
            _ => self.num_tokens,
        };
        let Running { written, log_probability_sum, .. } = &self.next[0];
        let best_possible = self.score((*log_probability_sum, written.as_ref()), best_length);
        best_possible <= worst.score
    }

    pub(crate) fn into_outputs(mut self) -> Vec<FinishedSequence> {
        self.finished.truncate(self.bounds.generation.options.n_best as usize);
        self.finished
    }
}
