//! The model's result after a step: next-token logits, one row of the vocabulary's size for each stepped row.

/// Next-token logits in host memory, f32, `[rows, vocab_size]`.
#[derive(Debug, Clone, Copy)]
pub struct LogitRows<'a> {
    values: &'a [f32],
    vocab_size: usize,
}

impl<'a> LogitRows<'a> {
    /// Logits row after row.
    ///
    /// # Panics
    /// `values` is not a whole number of rows.
    #[must_use]
    pub fn new(values: &'a [f32], vocab_size: usize) -> Self {
        assert!(values.len().is_multiple_of(vocab_size), "logits come in whole rows");
        Self { values, vocab_size }
    }

    /// How many rows there are.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.values.len() / self.vocab_size
    }

    /// Logits of one row, `[vocab_size]`, in the order of the step's rows.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.vocab_size..(index + 1) * self.vocab_size]
    }
}
