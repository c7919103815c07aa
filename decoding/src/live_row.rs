//! A row in the batch: its search, its slots, and its draft.

use crate::drafting::Draft;
use crate::search::{Search, SearchScratch};
use crate::{DraftCounts, Fork, LogitRows, Rewind, RowId, SlotId};

/// A row's reservation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub(crate) num_slots: usize,
    pub(crate) max_new_tokens: usize,
    /// Of one sequence.
    pub(crate) capacity_tokens: usize,
    /// Of all its sequences.
    pub(crate) cache_tokens: usize,
}

#[derive(Debug)]
pub(crate) struct LiveRow {
    pub(crate) row: RowId,
    pub(crate) needs: Needs,
    pub(crate) search: Search,
    /// All that the row has reserved.
    pub(crate) slots: Vec<SlotId>,
    /// Where each live sequence is, as an index into `slots`.
    pub(crate) places: Vec<usize>,
    /// The next `places`, kept for its memory.
    pub(crate) next_places: Vec<usize>,
    /// Copies to be made before its next step.
    pub(crate) forks: Vec<Fork>,
    /// The place of its first sequence in the current step.
    pub(crate) first_step_row: Option<usize>,
    pub(crate) draft: Option<Draft>,
    pub(crate) draft_counts: DraftCounts,
    /// The place of its last token in the drafting model's current step.
    pub(crate) draft_step_row: Option<usize>,
}

impl LiveRow {
    pub(crate) fn begin_draft(&mut self) {
        if let (Some(draft), Some(written)) = (&mut self.draft, self.search.single_tokens()) {
            draft.begin(&self.search, self.needs.max_new_tokens - written.len());
        }
    }

    /// Chooses the next token, and continues as long as the choices equal the draft. Returns the number of
    /// correct draft tokens.
    pub(crate) fn advance(
        &mut self,
        (logits, first_row): (LogitRows<'_>, usize),
        scratch: &mut SearchScratch,
    ) -> usize {
        let drafted = self.draft.as_ref().map_or(&[][..], Draft::tokens);
        let mut num_accepted = 0;
        loop {
            self.search.advance((logits, first_row + num_accepted), scratch);
            let chosen = self.search.single_tokens().and_then(<[u32]>::last);
            let is_over = self.search.parents().is_empty();
            if is_over || chosen.is_none() || chosen != drafted.get(num_accepted) {
                return num_accepted;
            }
            num_accepted += 1;
        }
    }

    pub(crate) fn count_draft(&mut self, num_accepted: usize) {
        if let Some(draft) = &self.draft {
            self.draft_counts.drafted += draft.tokens().len() as u64;
            self.draft_counts.accepted += num_accepted as u64;
            self.draft_counts.passes += 1;
        }
    }

    /// Makes both models forget the wrong part of a draft.
    pub(crate) fn end_draft(
        &mut self,
        num_accepted: usize,
        [wrong, wrong_of_drafter]: [&mut Vec<Rewind>; 2],
    ) {
        let (Some(draft), Some(written)) = (&mut self.draft, self.search.single_tokens()) else { return };
        let slot = self.slots[self.places[0]];
        let num_tokens = draft.tokens().len() - num_accepted;
        wrong.extend((num_tokens > 0).then_some(Rewind { slot, num_tokens }));
        wrong_of_drafter.extend(draft.end(slot, num_accepted, written.len()));
    }

    /// Gives each sequence its place after a choice: the first continuation of a sequence stays in its place,
    /// its siblings get copies in unused places.
    pub(crate) fn move_sequences(&mut self, vacated: &mut Vec<SlotId>) {
        let Self { search, slots, places, next_places, forks, needs, .. } = self;
        let parents = search.parents();
        let goes_on = |sequence: usize| parents.contains(&sequence);
        let abandoned = places.iter().enumerate().filter(|(sequence, _)| !goes_on(*sequence));
        vacated.extend(abandoned.map(|(_, &place)| slots[place]));

        let is_needed =
            |place: usize| places.iter().enumerate().any(|(sequence, &p)| p == place && goes_on(sequence));
        let mut free_places = (0..slots.len()).filter(|&place| !is_needed(place));
        next_places.clear();
        next_places.extend(parents.iter().enumerate().map(|(child, &parent)| {
            if !parents[..child].contains(&parent) {
                return places[parent];
            }
            let place = free_places.next().expect("a row has a slot for each of its sequences");
            let (from, to) = (slots[places[parent]], slots[place]);
            forks.push(Fork { from, to, capacity_tokens: needs.capacity_tokens });
            place
        }));
        std::mem::swap(places, next_places);
    }
}
