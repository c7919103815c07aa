//! The LLM's states in the prompt of a small model that reads its own tokens. Each token takes the projected
//! mean of the states aligned with it (`baton_bundle::TokenAlignment`), added to its embedding.
//!
//! A token that is aligned with none keeps its embedding alone: not even the projector's bias is added.

use baton_bundle::{Reading, TokenAlignment};
use tch::{Device, Tensor};

use crate::{PackedLayout, Projector, transfer::upload_indices};

const MEAN: i64 = 1; // of embedding_bag's modes

/// Which rows of a packed batch of LLM states which rows of a packed batch of prompts take.
#[derive(Debug)]
pub struct AlignedRows {
    rows: Tensor,         // [aligned] int64, of the prompts, rising
    positions: Tensor,    // [taken] int64, of the states
    starts: Tensor,       // [aligned] int64, of each row's share of `positions`
    layout: PackedLayout, // the rows of each prompt
}

impl AlignedRows {
    /// The rows of texts, each read once by the LLM, and of all their segments, one after the other.
    #[must_use]
    pub fn of_readings(readings: &[Reading], device: Device) -> Self {
        let mut first_state = 0;
        let alignments = readings.iter().flat_map(|reading| {
            let first = first_state;
            first_state += reading.llm_tokens.len();
            reading.segments.iter().map(move |segment| (first, segment.tokens.len(), &segment.alignment))
        });
        Self::new(alignments, device)
    }

    /// The rows of prompts, one after the other. Each prompt has the row of the state at its alignment's
    /// position 0, its length in tokens, and its alignment.
    #[must_use]
    pub fn new<'a>(
        prompts: impl Iterator<Item = (usize, usize, &'a TokenAlignment)>,
        device: Device,
    ) -> Self {
        let (mut rows, mut positions, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut first_row, mut lens) = (0, Vec::new());
        for (first_state, num_tokens, alignment) in prompts {
            let num_rows = rows.len();
            for (token, taken) in alignment.aligned() {
                rows.push((first_row + token) as i64);
                starts.push(positions.len() as i64);
                positions.extend(taken.iter().map(|&position| first_state as i64 + i64::from(position)));
            }
            first_row += num_tokens;
            lens.push(rows.len() - num_rows);
        }
        let layout = PackedLayout::prompts(lens.into_iter().filter(|&len| len > 0));
        let upload = |indices: &[i64]| upload_indices(indices, device);
        Self { rows: upload(&rows), positions: upload(&positions), starts: upload(&starts), layout }
    }

    /// Prompt states `[rows, d_slm]` f32. `embeddings`: the small model's, of the same shape and type;
    /// `hidden_states`: as [`Projector::forward`] reads them, of all texts one after the other.
    pub fn add_projected(&self, embeddings: Tensor, projector: &Projector, hidden_states: &Tensor) -> Tensor {
        if self.rows.numel() == 0 {
            return embeddings;
        }
        let states = projector.scaled(hidden_states);
        let (means, ..) = Tensor::embedding_bag::<Tensor>(
            &states,
            &self.positions,
            &self.starts,
            false,
            MEAN,
            false,
            None,
            false,
        );
        embeddings.index_add(0, &self.rows, &projector.project(&means, &self.layout))
    }
}
