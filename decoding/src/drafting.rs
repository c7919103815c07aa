//! Drafts: a small model's guesses of a large model's output, so that the large one can check several tokens
//! in one pass.
//!
//! The large model chooses every token, with its own logits and, when sampling, its own random numbers. A
//! draft only says which tokens it is fed before it has chosen them. Tokens that it then chooses itself are
//! accepted; from the first other one, the rest is discarded. The output is therefore the large model's own,
//! token for token, whatever the draft.
//!
//!
//! The small model drafts by the same rules: the same constraints and, when sampling, the same random
//! numbers, which makes equal choices likely. Beams, and rows of several samples, are not drafted for.
//!
//! Reference: Leviathan et al., arXiv 2211.17192, and Chen et al., arXiv 2302.01318, who draw again where the
//! models differ; here both draw once, with common random numbers, which keeps the output independent of the
//! drafts.

use crate::search::Search;
use crate::{Rewind, SlotId, StepRow};

/// How rows are drafted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DraftOptions {
    /// Fed to the drafting model before its first token.
    pub begin_of_sequence: u32,
    /// Tokens drafted between two passes of the large model at most; at least 1. `DraftLength` says how many
    /// are.
    pub max_draft_tokens: usize,
}

/// The results of drafting so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DraftCounts {
    /// Tokens drafted.
    pub drafted: u64,
    /// Of these, those that the large model chose too.
    pub accepted: u64,
    /// Passes of the large model. Each chose one token more than it accepted.
    pub passes: u64,
}

impl DraftCounts {
    /// Adds another's.
    pub fn add(&mut self, other: DraftCounts) {
        self.drafted += other.drafted;
        self.accepted += other.accepted;
        self.passes += other.passes;
    }
}

const ONE_SEQUENCE: &str = "only a row of one sequence is drafted for";

/// One row's draft, and the drafting model's cache for it.
#[derive(Debug)]
pub(crate) struct Draft {
    begin_of_sequence: u32,
    length: DraftLength,
    /// Tokens in the drafting model's cache beyond the prompt: the begin token, the output, and drafts.
    num_fed: usize,
    /// Guesses, as far as they have come.
    guess: Option<Search>,
    tokens: Vec<u32>,
    /// How many are wanted in this round.
    wanted: usize,
}

impl Draft {
    pub(crate) fn new(options: DraftOptions) -> Self {
        Self {
            begin_of_sequence: options.begin_of_sequence,
            length: DraftLength::new(options.max_draft_tokens),
            num_fed: 0,
            guess: None,
            tokens: Vec::new(),
            wanted: 0,
        }
    }

    /// The tokens drafted in this round.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Begins a round for a row with the output of `search`, which may choose `num_left` more tokens. The
    /// last one is never worth a guess: the pass that checks a draft chooses one token more than the draft
    /// has.
    pub(crate) fn begin(&mut self, search: &Search, num_left: usize) {
        self.tokens.clear();
        self.wanted = self.length.get().min(num_left.saturating_sub(1));
        self.guess = if self.wanted > 0 { search.clone_single() } else { None };
    }

    /// Whether the drafting model has to step for the row.
    pub(crate) fn is_going_on(&self) -> bool {
        self.guess.is_some() && self.tokens.len() < self.wanted
    }

    /// The next input of the drafting model: all tokens that it has not seen. The last of them yields the
    /// next guess.
    pub(crate) fn feed(&mut self, slot: SlotId, step: &mut Vec<StepRow>) {
        let guess = self.guess.as_ref().expect("only a row that is drafted for is fed");
        let written = guess.single_tokens().expect(ONE_SEQUENCE);
        let unseen = self.num_fed..=written.len();
        step.extend(unseen.map(|position| StepRow {
            slot,
            token: match position.checked_sub(1) {
                None => self.begin_of_sequence,
                Some(index) => written[index],
            },
        }));
        self.num_fed = written.len() + 1;
    }

    /// Takes in the next guess, which `choose` makes. A guess that ends the row is dropped: nothing after it
    /// could be checked.
    pub(crate) fn absorb(&mut self, choose: impl FnOnce(&mut Search)) {
        let Some(guess) = &mut self.guess else { return };
        choose(guess);
        match (guess.parents().is_empty(), guess.single_tokens().expect(ONE_SEQUENCE).last()) {
            (false, Some(&token)) => self.tokens.push(token),
            _ => self.guess = None,
        }
    }

    /// Ends the round: of the guesses, `num_accepted` were right, and the row has `num_written` tokens. Gives
    /// how many tokens the drafting model has to forget.
    pub(crate) fn end(&mut self, slot: SlotId, num_accepted: usize, num_written: usize) -> Option<Rewind> {
        if !self.tokens.is_empty() {
            self.length.adapt(self.tokens.len(), num_accepted);
        }
        self.guess = None;
        // The begin token and all written tokens but the last, which the large model chose beyond the draft.
        let num_right = num_written.min(self.num_fed);
        let num_tokens = self.num_fed - num_right;
        self.num_fed = num_right;
        (num_tokens > 0).then_some(Rewind { slot, num_tokens })
    }
}

/// How many tokens are worth a guess: after a draft that was right to its end, one token more than before;
/// after any other, one more than were right. The first draft has 4.
#[derive(Debug)]
struct DraftLength {
    now: usize,
    max: usize,
}

impl DraftLength {
    const FIRST: usize = 4;

    fn new(max: usize) -> Self {
        Self { now: Self::FIRST.min(max).max(1), max: max.max(1) }
    }

    fn get(&self) -> usize {
        self.now
    }

    fn adapt(&mut self, num_drafted: usize, num_accepted: usize) {
        let was_right = num_accepted == num_drafted;
        self.now = (if was_right { self.now } else { num_accepted } + 1).min(self.max);
    }
}
