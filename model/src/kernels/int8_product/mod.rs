//! Products of int8 rows with int8 weights, exact in i32. The weights are packed once, when a model is
//! loaded.
//!
//! libtorch's int8 product packs the weights again at every call. In a decode step of few rows, packing takes
//! longer than the product itself. On CPUs without dot products of bytes, libtorch's product is very slow.
//! Here the weights lie as the instructions read them, in pieces of 16 outputs by 4 inputs, 64 bytes. The
//! sums are integers, so all CPUs get the same.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod some_outputs;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::cell::{OnceCell, RefCell};

use tch::{Kind, Tensor};

use self::some_outputs::WeightRows;
use super::slices::{elements, elements_mut};

const PIECE_OUTPUTS: usize = 16;
const PIECE_INPUTS: usize = 4;
/// This many rows stay in the near caches while all weights pass by. A whole number of tiles of both kinds.
const BLOCK_ROWS: usize = 90;

thread_local! {
    /// A block's rows as the instructions read them.
    static WORDS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// The weights of a linear layer in int8.
#[derive(Debug)]
pub(crate) enum Int8Weight {
    /// For this crate's product.
    Packed(PackedWeight),
    /// For libtorch's: `[in, out]`, a transposed view.
    Plain(Tensor),
}

impl Int8Weight {
    /// `values`: `[out, in]` int8.
    pub(crate) fn new(values: &Tensor) -> Self {
        match Instructions::best() {
            Some(instructions) => Self::packed(values, instructions),
            None => Self::Plain(values.contiguous().tr()),
        }
    }

    fn packed(values: &Tensor, instructions: Instructions) -> Self {
        let values = values.contiguous();
        let (outputs, inputs) = values.size2().expect("a weight is [out, in]");
        // SAFETY: the values are only read.
        let values = unsafe { elements::<i8>(&values) };
        Self::Packed(PackedWeight::new(values, (outputs as usize, inputs as usize), instructions))
    }

    /// Its size in memory.
    pub(crate) fn num_bytes(&self) -> usize {
        match self {
            Self::Packed(PackedWeight { pieces, starts, .. }) => {
                size_of_val(pieces.as_slice()) + size_of_val(starts.as_slice())
            }
            Self::Plain(weight) => weight.numel(),
        }
    }

    /// Appends the sums of one row, `[in]`, with some outputs: the same numbers as the whole product has.
    pub(crate) fn append_sums(&self, x: &[i8], outputs: &[u32], sums: &mut Vec<i32>) {
        match self {
            Self::Packed(weight) => weight.rows().append_sums(x, outputs, sums),
            Self::Plain(weight) => {
                let weight = weight.tr();
                let (num_outputs, inputs) = weight.size2().expect("a weight is [out, in]");
                assert_eq!(inputs as usize, x.len(), "a layer reads rows of its width");
                // SAFETY: the values are only read, and no tensor operation runs before the slice ends.
                let weight = unsafe { elements::<i8>(&weight) };
                let dot = |&output: &u32| {
                    assert!(i64::from(output) < num_outputs, "an output of the layer");
                    let row = &weight[output as usize * x.len()..][..x.len()];
                    row.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>()
                };
                sums.extend(outputs.iter().map(dot));
            }
        }
    }

    /// `x`: `[rows, in]` int8; result `[rows, out]` int32.
    pub(crate) fn product(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Plain(weight) => x.internal_int_mm(weight),
            Self::Packed(weight) => {
                let x = x.contiguous();
                let (rows, inputs) = x.size2().expect("a layer reads rows");
                assert_eq!(inputs as usize, weight.inputs, "a layer reads rows of its width");
                let mut sums = Tensor::empty([rows, weight.outputs as i64], (Kind::Int, x.device()));
                // SAFETY: `sums` is new; `x` is only read; no tensor operation runs before the slices end.
                let (x, out) = unsafe { (elements::<i8>(&x), elements_mut::<i32>(&mut sums)) };
                weight.product(x, out);
                sums
            }
        }
    }
}

/// The instructions that a CPU has for multiplying bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// AVX-512 VNNI's dot product of four bytes.
    Vnni,
    /// AVX2's dot product of two 16-bit numbers.
    Avx2,
}

impl Instructions {
    /// The fastest that this CPU has, if it has any.
    pub(crate) fn best() -> Option<Self> {
        [Self::Vnni, Self::Avx2].into_iter().find(|instructions| instructions.are_there())
    }

    #[cfg(target_arch = "x86_64")]
    fn are_there(self) -> bool {
        match self {
            Self::Vnni => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
            Self::Avx2 => is_x86_feature_detected!("avx2"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn are_there(self) -> bool {
        false
    }

    /// Pieces side by side in a panel: as many as a tile of sums is wide.
    fn panel_pieces(self) -> usize {
        match self {
            Self::Vnni => 4,
            Self::Avx2 => 1,
        }
    }

    /// Where in a piece the weight from an input to an output lies.
    fn place(self, output: usize, input: usize) -> usize {
        match self {
            Self::Vnni => PIECE_INPUTS * output + input,
            Self::Avx2 => 2 * PIECE_OUTPUTS * (input / 2) + 2 * output + input % 2,
        }
    }

    /// The offset added to every activation: VNNI multiplies unsigned with signed bytes.
    fn offset(self) -> i32 {
        match self {
            Self::Vnni => 128,
            Self::Avx2 => 0,
        }
    }
}

/// The weights of 16 outputs from 4 inputs, in the order of [`Instructions::place`].
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Piece([i8; PIECE_OUTPUTS * PIECE_INPUTS]);

/// Weights in panels: `[panel][inputs / 4][pieces of the panel]`, outputs and inputs filled up with zeros.
#[derive(Debug)]
pub(crate) struct PackedWeight {
    instructions: Instructions,
    outputs: usize,
    inputs: usize,
    pieces: Vec<Piece>,
    /// The start of each output's sum, which cancels the offset. Filled up to whole pieces.
    starts: Vec<i32>,
    /// The same weights row by row, once products with some outputs are asked for.
    rows: OnceCell<WeightRows>,
}

impl PackedWeight {
    /// `values`: `[out, in]`.
    fn new(values: &[i8], (outputs, inputs): (usize, usize), instructions: Instructions) -> Self {
        let num_words = inputs.div_ceil(PIECE_INPUTS);
        let columns: Vec<usize> = (0..outputs.div_ceil(PIECE_OUTPUTS)).collect();
        let mut pieces = Vec::with_capacity(columns.len() * num_words);
        for panel in columns.chunks(instructions.panel_pieces()) {
            for word in 0..num_words {
                pieces.extend(panel.iter().map(|column| {
                    let mut piece = [0; PIECE_OUTPUTS * PIECE_INPUTS];
                    for lane in 0..PIECE_OUTPUTS.min(outputs - column * PIECE_OUTPUTS) {
                        let row = &values[(column * PIECE_OUTPUTS + lane) * inputs..][..inputs];
                        for (input, &weight) in
                            row[word * PIECE_INPUTS..].iter().take(PIECE_INPUTS).enumerate()
                        {
                            piece[instructions.place(lane, input)] = weight;
                        }
                    }
                    Piece(piece)
                }));
            }
        }
        let sum = |row: &[i8]| row.iter().map(|&weight| i32::from(weight)).sum::<i32>();
        let mut starts: Vec<i32> = match inputs {
            0 => vec![0; outputs],
            _ => values.chunks_exact(inputs).map(|row| -instructions.offset() * sum(row)).collect(),
        };
        starts.resize(outputs.next_multiple_of(PIECE_OUTPUTS), 0);
        Self { instructions, outputs, inputs, pieces, starts, rows: OnceCell::new() }
    }

    fn rows(&self) -> &WeightRows {
        let Self { instructions, outputs, inputs, .. } = *self;
        self.rows.get_or_init(|| {
            let mut values = Vec::with_capacity(outputs * inputs);
            for output in 0..outputs {
                values.extend((0..inputs).map(|input| self.weight(output, input)));
            }
            WeightRows::new(&values, inputs, Some(instructions))
        })
    }

    /// The weight from an input to an output.
    fn weight(&self, output: usize, input: usize) -> i8 {
        let (num_words, panel_pieces) =
            (self.inputs.div_ceil(PIECE_INPUTS), self.instructions.panel_pieces());
        let (column, word) = (output / PIECE_OUTPUTS, input / PIECE_INPUTS);
        let first_column = column / panel_pieces * panel_pieces;
        let panel_width = panel_pieces.min(self.outputs.div_ceil(PIECE_OUTPUTS) - first_column);
        let piece = first_column * num_words + word * panel_width + (column - first_column);
        self.pieces[piece].0[self.instructions.place(output % PIECE_OUTPUTS, input % PIECE_INPUTS)]
    }

    /// `x`: `[rows, in]`; `out`: `[rows, out]`.
    ///
    /// # Panics
    /// The CPU lacks the instructions, or the lengths do not fit.
    fn product(&self, x: &[i8], out: &mut [i32]) {
        let Self { instructions, outputs, inputs, .. } = *self;
        assert!(instructions.are_there(), "weights are packed only for CPUs that have the instructions");
        if inputs == 0 || outputs == 0 {
            return out.fill(0);
        }
        let num_rows = out.len() / outputs;
        let lens = (num_rows * outputs, num_rows * inputs);
        assert_eq!((out.len(), x.len()), lens, "rows of the layer's widths");
        WORDS.with_borrow_mut(|words| {
            for (x, out) in x.chunks(BLOCK_ROWS * inputs).zip(out.chunks_mut(BLOCK_ROWS * outputs)) {
                self.product_of_block(x, words, out);
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    fn product_of_block(&self, x: &[i8], words: &mut Vec<u32>, out: &mut [i32]) {
        words.clear();
        match self.instructions {
            Instructions::Vnni => {
                vnni::append_words(x, self.inputs, words);
                // SAFETY: the CPU has the instructions.
                unsafe { vnni::product_of_block(self, words, out) };
            }
            Instructions::Avx2 => {
                avx2::append_words(x, self.inputs, words);
                // SAFETY: the CPU has the instructions.
                unsafe { avx2::product_of_block(self, words, out) };
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn product_of_block(&self, _: &[i8], _: &mut Vec<u32>, _: &mut [i32]) {
        unreachable!("no instructions of other CPUs are there");
    }
}

/// Where some rows' sums go: `[rows, outputs]`, from an output on.
#[cfg(target_arch = "x86_64")]
struct Output<'a> {
    sums: &'a mut [i32],
    outputs: usize,
    first_output: usize,
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Bytes from -128 to 127 that need no generator.
    fn bytes(numel: usize, step: usize) -> Vec<i8> {
        (0..numel).map(|i| (i * step % 256) as u8 as i8).collect()
    }

    /// A weight for each product that this CPU can do.
    fn every_kind(values: &Tensor) -> Vec<Int8Weight> {
        let here = [Instructions::Vnni, Instructions::Avx2].into_iter().filter(|set| set.are_there());
        let packed = here.map(|instructions| Int8Weight::packed(values, instructions));
        packed.chain([Int8Weight::new(values)]).collect()
    }

    #[test]
    fn sums_equal_integer_sums_for_any_shape() {
        for (rows, inputs, outputs) in [
            (1, 4, 16),
            (1, 1, 1),
            (2, 5, 17),
            (3, 64, 64),
            (4, 6, 24),
            (5, 7, 70),
            (6, 33, 130),
            (7, 384, 48),
            (13, 12, 65),
            (19, 100, 200),
            (200, 9, 30),
        ] {
            let (x, w) = (bytes(rows * inputs, 89), bytes(outputs * inputs, 151));
            let tensor =
                |values: &[i8], rows: usize| Tensor::from_slice(values).view([rows as i64, inputs as i64]);
            let dot = |row: &[i8], column: &[i8]| {
                row.iter().zip(column).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>()
            };
            let expected: Vec<i32> = x
                .chunks(inputs)
                .flat_map(|row| w.chunks(inputs).map(move |column| dot(row, column)))
                .collect();
            for weight in every_kind(&tensor(&w, outputs)) {
                let found = weight.product(&tensor(&x, rows));
                assert_eq!((found.size(), found.kind()), (vec![rows as i64, outputs as i64], Kind::Int));
                let found: Vec<i32> = Vec::try_from(found.flatten(0, -1)).unwrap();
                assert_eq!(found, expected, "{rows} rows, {inputs} inputs, {outputs} outputs");
                let some: Vec<u32> = (0..outputs as u32).filter(|output| output % 3 != 1).collect();
                for (row, expected) in x.chunks(inputs).zip(expected.chunks(outputs)) {
                    let mut found = Vec::new();
                    weight.append_sums(row, &some, &mut found);
                    let expected: Vec<i32> = some.iter().map(|&output| expected[output as usize]).collect();
                    assert_eq!(found, expected, "{inputs} inputs, some of {outputs} outputs");
                }
            }
        }
    }

    #[test]
    fn sums_of_the_largest_numbers_do_not_saturate() {
        let [x, w] = [-128i64, -128].map(|value| Tensor::full([8, 4096], value, (Kind::Int8, Device::Cpu)));
        for weight in every_kind(&w) {
            assert!(bool::try_from(weight.product(&x).eq(128 * 128 * 4096).all()).unwrap());
        }
    }

    #[test]
    fn no_rows_make_no_sums() {
        let w = Tensor::zeros([3, 4], (Kind::Int8, Device::Cpu));
        assert_eq!(
            Int8Weight::new(&w).product(&Tensor::zeros([0, 4], (Kind::Int8, Device::Cpu))).size(),
            [0, 3]
        );
    }
}
