//! Positions that are added to embeddings: rows of a learned table, or sines.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::Compute;

/// The numbers that are added to each row for its place.
#[derive(Debug)]
pub(crate) enum EmbeddedPositions {
    Learned(LearnedPositions),
    Sinusoidal(SinusoidalPositions),
}

impl EmbeddedPositions {
    /// Adds the numbers to each row. `x`: `[rows, width]` f32; `positions`: `[rows]` int64, the place of each
    /// row in its own sequence, and the largest of them.
    ///
    /// # Panics
    /// A position is beyond the end of a learned table.
    pub(crate) fn add_to(&self, x: Tensor, positions: (&Tensor, i64)) -> Tensor {
        match self {
            Self::Learned(learned) => learned.add_to(x, positions),
            Self::Sinusoidal(sines) => sines.add_to(x, positions),
        }
    }
}

/// A table of the checkpoint.
#[derive(Debug)]
pub(crate) struct LearnedPositions {
    table: Tensor, // [positions, width]
}

impl LearnedPositions {
    /// `table`: `[rows, width]`, of which the first `unused` belong to no position.
    pub(crate) fn new(table: &Tensor, unused: usize) -> Self {
        let unused = unused as i64;
        Self { table: table.narrow(0, unused, table.size()[0] - unused) }
    }

    /// As [`EmbeddedPositions::add_to`].
    ///
    /// # Panics
    /// A position is beyond the table's end. A bundle whose limits allow that does not open.
    pub(crate) fn add_to(&self, x: Tensor, (positions, largest): (&Tensor, i64)) -> Tensor {
        let num_positions = self.table.size()[0];
        assert!(largest < num_positions, "position {largest} of a model that has {num_positions} positions");
        x + Tensor::embedding(&self.table, positions, -1, false, false).to_kind(Kind::Float)
    }
}

/// Sines and cosines of positions (Vaswani et al., arXiv 1706.03762): the first half of a row's channels are
/// sines, the second half cosines, at the same frequencies.
///
/// The table has all positions so far; it doubles when a later one comes.
#[derive(Debug)]
pub(crate) struct SinusoidalPositions {
    width: i64,
    divisor: f64,
    first: i64,
    compute: Compute,
    table: RefCell<Tensor>, // [positions, width] f32
}

/// Initial positions of the table.
const FIRST_POSITIONS: i64 = 256;

impl SinusoidalPositions {
    /// Channel `i` of either half turns by `10000^(-i / divisor)` a position; the first position counts as
    /// `first`.
    pub(crate) fn new(width: usize, (divisor, first): (f64, usize), compute: Compute) -> Self {
        let (width, first) = (width as i64, first as i64);
        let table = RefCell::new(Tensor::empty([0, width], (Kind::Float, compute.device)));
        let positions = Self { width, divisor, first, compute, table };
        positions.fill(FIRST_POSITIONS);
        positions
    }

    /// As [`EmbeddedPositions::add_to`].
    pub(crate) fn add_to(&self, x: Tensor, (positions, largest): (&Tensor, i64)) -> Tensor {
        let known = self.table.borrow().size()[0];
        if largest >= known {
            self.fill((largest + 1).max(2 * known));
        }
        x + self.table.borrow().index_select(0, positions)
    }

    fn fill(&self, positions: i64) {
        let options = (Kind::Double, self.compute.device);
        let turns = Tensor::arange(self.width / 2, options) * (-(10_000.0_f64.ln()) / self.divisor);
        let places = Tensor::arange_start(self.first, self.first + positions, options);
        let angles = places.unsqueeze(1) * turns.exp().unsqueeze(0);
        *self.table.borrow_mut() = Tensor::cat(&[angles.sin(), angles.cos()], 1).to_kind(Kind::Float);
    }
}
