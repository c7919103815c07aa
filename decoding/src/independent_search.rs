//! Sequences that choose for themselves: the one of greedy decoding, and samples.

use crate::copying::WrittenWords;
use crate::kernels::{Shift, first_equal, log_softmax};
use crate::sampling::{RandomStream, draw};
use crate::search::{SearchBounds, SearchScratch};
use crate::{FinishReason, FinishedSequence, LogProbabilities, LogitRows, Method};

/// One greedy sequence or any number of samples. The samples part ways at the first token.
#[derive(Debug, Clone)]
pub(crate) struct IndependentSearch {
    bounds: SearchBounds,
    sequences: Vec<Sequence>,
    /// Indices of the sequences that continue, rising.
    live: Vec<usize>,
    parents: Vec<usize>,
    has_begun: bool,
}

#[derive(Debug, Clone)]
struct Sequence {
    tokens: Vec<u32>,
    /// Present if there are words to copy.
    written: Option<WrittenWords>,
    num_tokens: usize,
    log_probability_sum: f64,
    worst_log_probability: f32,
    random: Option<Box<RandomStream>>,
    finish_reason: Option<FinishReason>,
}

impl IndependentSearch {
    pub(crate) fn new(bounds: SearchBounds, random_stream: u64) -> Self {
        let options = &bounds.generation.options;
        let sequence = |index: usize| Sequence {
            tokens: Vec::with_capacity(bounds.max_new_tokens), // as its cache, whole from the start
            written: bounds.generation.written(&[]),
            num_tokens: 0,
            log_probability_sum: 0.0,
            worst_log_probability: 0.0,
            random: (options.method() == Method::Sample)
                .then(|| Box::new(RandomStream::new(options.seed, random_stream, index as u64))),
            finish_reason: None,
        };
        let num_sequences = bounds.generation.num_sequences();
        let sequences = (0..num_sequences).map(sequence).collect();
        Self { bounds, sequences, live: (0..num_sequences).collect(), parents: Vec::new(), has_begun: false }
    }

    pub(crate) fn last_tokens(&self) -> impl Iterator<Item = Option<u32>> {
        let num_live = if self.has_begun { self.live.len() } else { 1 };
        self.live.iter().take(num_live).map(|&index| self.sequences[index].tokens.last().copied())
    }

    /// The tokens of the sequence, if it is the only one.
    pub(crate) fn single_tokens(&self) -> Option<&[u32]> {
        match &self.sequences[..] {
            [only] => Some(&only.tokens),
            _ => None,
        }
    }

    pub(crate) fn advance(
        &mut self,
        (logits, first_row): (LogitRows<'_>, usize),
        scratch: &mut SearchScratch,
    ) {
        let Self { bounds, sequences, live, parents, has_begun } = self;
        parents.clear();
        let mut place = 0;
        live.retain(|&index| {
            let parent = if *has_begun { place } else { 0 };
            place += 1;
            let sequence = &mut sequences[index];
            sequence.choose(bounds, logits.row(first_row + parent), scratch);
            let goes_on = sequence.finish_reason.is_none();
            if goes_on {
                parents.push(parent);
            }
            goes_on
        });
        *has_begun = true;
    }

    pub(crate) fn parents(&self) -> &[usize] {
        &self.parents
    }

    pub(crate) fn into_outputs(self) -> Vec<FinishedSequence> {
        let finished = |sequence: Sequence| {
            let mean = (sequence.log_probability_sum / sequence.num_tokens as f64) as f32;
            FinishedSequence {
                score: mean,
                log_probabilities: LogProbabilities { mean, worst: sequence.worst_log_probability },
                num_tokens: sequence.num_tokens,
                finish_reason: sequence.finish_reason.expect("outputs are asked only of a row that is done"),
                tokens: sequence.tokens,
            }
        };
        let mut outputs: Vec<FinishedSequence> = self.sequences.into_iter().map(finished).collect();
        let rank =
            |output: &FinishedSequence| if output.score.is_nan() { f32::NEG_INFINITY } else { output.score };
        outputs.sort_by(|a, b| rank(b).total_cmp(&rank(a))); // stable: of equals, the one drawn first
        outputs
    }
}

impl Sequence {
    /// A token and its log-probability: the most likely one, or the one at `uniform`.
    fn choice(
        &self,
        bounds: &SearchBounds,
        (logits, masks_misfits): (&[f32], bool),
        uniform: Option<f64>,
        scratch: &mut SearchScratch,
    ) -> (u32, f32) {
        let SearchScratch { constrained, sampling, .. } = scratch;
        let written = (&self.tokens[..], self.written.as_ref());
        let (logits, _) = bounds.constrain(written, (logits, Shift::NONE), masks_misfits, constrained);
        let shift = log_softmax(logits);
        let options = &bounds.generation.options;
        let place = match uniform {
            Some(uniform) => draw(logits, (shift.max, options), uniform, sampling),
            None => first_equal(logits, shift.max),
        };
        (bounds.places().token(place), shift.apply(logits[place]))
    }

    fn choose(&mut self, bounds: &SearchBounds, logits: &[f32], scratch: &mut SearchScratch) {
        let uniform = self.random.as_mut().map(|random| random.next_uniform());
        let (mut token, mut log_probability) = self.choice(bounds, (logits, false), uniform, scratch);
        if bounds.is_misfit(token) {
            (token, log_probability) = self.choice(bounds, (logits, true), uniform, scratch);
        }
        self.log_probability_sum += f64::from(log_probability);
        self.worst_log_probability = self.worst_log_probability.min(log_probability);
        self.num_tokens += 1;
        self.finish_reason = match bounds.is_stop_token(token) {
            true => Some(FinishReason::Stop),
            false => {
                self.tokens.push(token);
                bounds.generation.write(&mut self.written, token);
                bounds.end_after(&self.tokens)
            }
        };
    }
}
