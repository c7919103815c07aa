//! The model's result after a step: next-token logits, one row for each stepped row.

/// Next-token logits in host memory, f32, row after row. A row has a logit for each token of the vocabulary,
/// or for each of its candidates.
#[derive(Debug, Clone, Copy)]
pub struct LogitRows<'a> {
    values: &'a [f32],
    rows: Rows<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Rows<'a> {
    /// All of this length.
    Whole(usize),
    /// Each ends here.
    Ending(&'a [usize]),
}

impl<'a> LogitRows<'a> {
    /// Logits of rows without candidates.
    ///
    /// # Panics
    /// `values` is not a whole number of rows.
    #[must_use]
    pub fn new(values: &'a [f32], vocab_size: usize) -> Self {
        assert!(values.len().is_multiple_of(vocab_size), "logits come in whole rows");
        Self { values, rows: Rows::Whole(vocab_size) }
    }

    /// Logits of rows that may have candidates; each row ends in `values` where `ends` says.
    ///
    /// # Panics
    /// The last row does not end with the values.
    #[must_use]
    pub fn ending(values: &'a [f32], ends: &'a [usize]) -> Self {
        assert_eq!(ends.last().copied().unwrap_or(0), values.len(), "logits come in whole rows");
        Self { values, rows: Rows::Ending(ends) }
    }

    /// How many rows there are.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        match self.rows {
            Rows::Whole(vocab_size) => self.values.len() / vocab_size,
            Rows::Ending(ends) => ends.len(),
        }
    }

    /// Logits of one row, in the order of the step's rows.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        match self.rows {
            Rows::Whole(vocab_size) => &self.values[index * vocab_size..(index + 1) * vocab_size],
            Rows::Ending(ends) => {
                let start = index.checked_sub(1).map_or(0, |before| ends[before]);
                &self.values[start..ends[index]]
            }
        }
    }
}
