//! Products of int8 rows with int8 weights, exact in i32, of weights that are packed once, when a model is loaded.
//!
//! libtorch's int8 product packs the weights again at every call. In a decode step, which has few rows, that takes longer than the product
//! itself. Here the weights lie as the instruction reads them: 16 outputs by 4 inputs in a register of 64 bytes, registers of up to four
//! such columns side by side. The instruction (AVX-512 VNNI's `vpdpbusd`) multiplies unsigned with signed bytes; so 128 is added to every
//! activation, and 128 times an output's weights is taken off. CPUs without it have libtorch's product.

use tch::{Kind, Tensor};

use super::slices::{elements, elements_mut};

const REGISTER_OUTPUTS: usize = 16;
const WORD_INPUTS: usize = 4;
const PANEL_REGISTERS: usize = 4;
/// Rows at once. With four registers of weights they fill 24 of the 32 registers with sums.
const TILE_ROWS: usize = 6;
const BLOCK_ROWS: usize = 16 * TILE_ROWS;

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
        let values = values.contiguous();
        let (outputs, inputs) = values.size2().expect("a weight is [out, in]");
        if has_vnni() {
            // SAFETY: the values are only read.
            let values = unsafe { elements::<i8>(&values) };
            Self::Packed(PackedWeight::new(values, (outputs as usize, inputs as usize)))
        } else {
            Self::Plain(values.tr())
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

/// Whether the CPU has what [`PackedWeight::product`] needs.
fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// One register: for each of 16 outputs, the weights of 4 inputs.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Register([[i8; WORD_INPUTS]; REGISTER_OUTPUTS]);

/// Weights in panels of up to four registers: `[panel][inputs / 4][registers of the panel]`, outputs and inputs filled up with zeros.
#[derive(Debug)]
pub(crate) struct PackedWeight {
    outputs: usize,
    inputs: usize,
    registers: Vec<Register>,
    /// What each output's sum begins with: minus 128 times its weights. Filled up to whole registers.
    starts: Vec<i32>,
}

impl PackedWeight {
    /// `values`: `[out, in]`.
    fn new(values: &[i8], (outputs, inputs): (usize, usize)) -> Self {
        let num_words = inputs.div_ceil(WORD_INPUTS);
        let columns: Vec<usize> = (0..outputs.div_ceil(REGISTER_OUTPUTS)).collect();
        let mut registers = Vec::with_capacity(columns.len() * num_words);
        for panel in columns.chunks(PANEL_REGISTERS) {
            for word in 0..num_words {
                registers.extend(panel.iter().map(|column| {
                    let weight = |output: usize, input: usize| {
                        let is_there = output < outputs && input < inputs;
                        if is_there { values[output * inputs + input] } else { 0 }
                    };
                    Register(std::array::from_fn(|lane| {
                        let output = column * REGISTER_OUTPUTS + lane;
                        std::array::from_fn(|place| weight(output, word * WORD_INPUTS + place))
                    }))
                }));
            }
        }
        let sum = |row: &[i8]| row.iter().map(|&weight| i32::from(weight)).sum::<i32>();
        let mut starts: Vec<i32> = match inputs {
            0 => vec![0; outputs],
            _ => values.chunks_exact(inputs).map(|row| -128 * sum(row)).collect(),
        };
        starts.resize(outputs.next_multiple_of(REGISTER_OUTPUTS), 0);
        Self { outputs, inputs, registers, starts }
    }

    /// `x`: `[rows, in]`; `out`: `[rows, out]`.
    ///
    /// # Panics
    /// The CPU lacks the instruction, or the lengths do not fit.
    fn product(&self, x: &[i8], out: &mut [i32]) {
        assert!(has_vnni(), "weights are packed only for CPUs that have the instruction");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has the instructions.
        unsafe {
            vnni::product(self, x, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (x, out);
    }
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::{
        arch::x86_64::{
            _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_si512, _mm512_mask_storeu_epi32,
            _mm512_set1_epi32, _mm512_setzero_si512,
        },
        cell::RefCell,
    };

    use super::{
        BLOCK_ROWS, PANEL_REGISTERS, PackedWeight, REGISTER_OUTPUTS, Register, TILE_ROWS, WORD_INPUTS,
    };

    thread_local! {
        /// Rows plus 128, four inputs to a word: `[rows, inputs / 4]`.
        static WORDS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn product(weight: &PackedWeight, x: &[i8], out: &mut [i32]) {
        let PackedWeight { outputs, inputs, .. } = weight;
        let outputs = *outputs;
        if outputs == 0 || out.is_empty() {
            return;
        }
        let num_rows = out.len() / outputs;
        assert_eq!(
            (out.len(), x.len()),
            (num_rows * outputs, num_rows * inputs),
            "rows of the layer's widths"
        );
        WORDS.with_borrow_mut(|words| {
            // So many rows stay in the first cache while all weights pass by.
            for first_row in (0..num_rows).step_by(BLOCK_ROWS) {
                let rows = first_row..num_rows.min(first_row + BLOCK_ROWS);
                to_words(&x[rows.start * inputs..rows.end * inputs], *inputs, words);
                product_of_block(weight, words, &mut out[rows.start * outputs..rows.end * outputs]);
            }
        });
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn product_of_block(weight: &PackedWeight, words: &[u32], out: &mut [i32]) {
        let PackedWeight { outputs, inputs, registers, starts } = weight;
        let (outputs, num_words) = (*outputs, inputs.div_ceil(WORD_INPUTS));
        let num_registers = starts.len() / REGISTER_OUTPUTS;
        for first_register in (0..num_registers).step_by(PANEL_REGISTERS) {
            let width = PANEL_REGISTERS.min(num_registers - first_register);
            let panel = &registers[first_register * num_words..][..width * num_words];
            let first_output = first_register * REGISTER_OUTPUTS;
            let starts = &starts[first_output..][..width * REGISTER_OUTPUTS];
            for (tile, out) in out.chunks_mut(TILE_ROWS * outputs).enumerate() {
                let rows = out.len() / outputs;
                let words = &words[tile * TILE_ROWS * num_words..][..rows * num_words];
                let out = Output { sums: out, outputs, first_output };
                match width {
                    1 => tile_of_rows::<1>(rows, words, (panel, starts), out),
                    2 => tile_of_rows::<2>(rows, words, (panel, starts), out),
                    3 => tile_of_rows::<3>(rows, words, (panel, starts), out),
                    _ => tile_of_rows::<4>(rows, words, (panel, starts), out),
                }
            }
        }
    }

    fn to_words(x: &[i8], inputs: usize, words: &mut Vec<u32>) {
        words.clear();
        if inputs == 0 {
            return;
        }
        let word = |bytes: &[i8]| {
            let mut word = [0; WORD_INPUTS]; // what is added to no input meets weights of zero
            word.iter_mut().zip(bytes).for_each(|(word, &byte)| *word = byte as u8 ^ 0x80);
            u32::from_le_bytes(word)
        };
        match inputs % WORD_INPUTS {
            0 => words.extend(x.as_chunks::<WORD_INPUTS>().0.iter().map(|bytes| word(bytes))),
            _ => words.extend(x.chunks_exact(inputs).flat_map(|row| row.chunks(WORD_INPUTS).map(word))),
        }
    }

    /// Where some rows' sums go: `[rows, outputs]`, from an output on.
    struct Output<'a> {
        sums: &'a mut [i32],
        outputs: usize,
        first_output: usize,
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn tile_of_rows<const WIDTH: usize>(
        rows: usize,
        words: &[u32],
        panel: (&[Register], &[i32]),
        out: Output<'_>,
    ) {
        match rows {
            1 => tile::<1, WIDTH>(words, panel, out),
            2 => tile::<2, WIDTH>(words, panel, out),
            3 => tile::<3, WIDTH>(words, panel, out),
            4 => tile::<4, WIDTH>(words, panel, out),
            5 => tile::<5, WIDTH>(words, panel, out),
            _ => tile::<TILE_ROWS, WIDTH>(words, panel, out),
        }
    }

    /// `ROWS` rows by `WIDTH` registers of outputs; all sums stay in registers.
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn tile<const ROWS: usize, const WIDTH: usize>(
        words: &[u32],
        (panel, starts): (&[Register], &[i32]),
        Output { sums, outputs, first_output }: Output<'_>,
    ) {
        let num_words = words.len() / ROWS;
        assert_eq!((words.len(), panel.len()), (ROWS * num_words, WIDTH * num_words));
        assert_eq!((starts.len(), sums.len()), (WIDTH * REGISTER_OUTPUTS, ROWS * outputs));
        // Loops by index: closures would be calls, since the functions that take them lack the instruction set.
        let mut begin = [_mm512_setzero_si512(); WIDTH];
        for (register, begin) in begin.iter_mut().enumerate() {
            // SAFETY: `starts` has WIDTH registers of numbers.
            *begin = unsafe { _mm512_loadu_si512(starts.as_ptr().add(register * REGISTER_OUTPUTS).cast()) };
        }
        let mut tile = [begin; ROWS];
        for index in 0..num_words {
            let mut weights = [_mm512_setzero_si512(); WIDTH];
            for (register, weights) in weights.iter_mut().enumerate() {
                // SAFETY: the panel has WIDTH registers for each of `num_words`; a `Register` is as large as the CPU's, and aligned.
                *weights = unsafe { _mm512_load_si512(panel.as_ptr().add(index * WIDTH + register).cast()) };
            }
            for (row, sums) in tile.iter_mut().enumerate() {
                // SAFETY: `words` has ROWS rows of `num_words`.
                let word = _mm512_set1_epi32(unsafe { *words.get_unchecked(row * num_words + index) } as i32);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, word, weights);
                }
            }
        }
        for (sums, registers) in sums.chunks_exact_mut(outputs).zip(tile) {
            for (register, sum) in registers.into_iter().enumerate() {
                let first = first_output + register * REGISTER_OUTPUTS;
                let out = &mut sums[first..outputs.min(first + REGISTER_OUTPUTS)];
                let mask = u16::MAX >> (REGISTER_OUTPUTS - out.len());
                // SAFETY: as many numbers are stored as `out` has.
                unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr(), mask, sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Bytes from -128 to 127 that need no generator.
    fn bytes(numel: usize, step: usize) -> Vec<i8> {
        (0..numel).map(|i| (i * step % 256) as u8 as i8).collect()
    }

    #[test]
    fn sums_are_those_of_integers_whatever_the_shape() {
        for (rows, inputs, outputs) in [
            (1, 4, 16),
            (1, 1, 1),
            (2, 5, 17),
            (3, 64, 64),
            (5, 7, 70),
            (6, 33, 130),
            (7, 384, 48),
            (13, 12, 65),
            (19, 100, 200),
        ] {
            let (x, w) = (bytes(rows * inputs, 89), bytes(outputs * inputs, 151));
            let tensor =
                |values: &[i8], rows: usize| Tensor::from_slice(values).view([rows as i64, inputs as i64]);
            let found = Int8Weight::new(&tensor(&w, outputs)).product(&tensor(&x, rows));
            assert_eq!((found.size(), found.kind()), (vec![rows as i64, outputs as i64], Kind::Int));
            let dot = |row: &[i8], column: &[i8]| {
                row.iter().zip(column).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>()
            };
            let expected: Vec<i32> = x
                .chunks(inputs)
                .flat_map(|row| w.chunks(inputs).map(move |column| dot(row, column)))
                .collect();
            let found: Vec<i32> = Vec::try_from(found.flatten(0, -1)).unwrap();
            assert_eq!(found, expected, "{rows} rows, {inputs} inputs, {outputs} outputs");
        }
    }

    #[test]
    fn sums_of_the_largest_numbers_do_not_saturate() {
        let [x, w] = [-128i64, -128].map(|value| Tensor::full([8, 4096], value, (Kind::Int8, Device::Cpu)));
        let found = Int8Weight::new(&w).product(&x);
        assert!(bool::try_from(found.eq(128 * 128 * 4096).all()).unwrap());
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
