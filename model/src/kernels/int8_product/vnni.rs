//! The product by AVX-512 VNNI: `vpdpbusd` multiplies four unsigned with four signed bytes and adds them to
//! an i32. A piece of weights is a register.

use std::arch::x86_64::{
    _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_set1_epi32,
    _mm512_setzero_si512,
};

use super::{Instructions, Output, PIECE_INPUTS, PIECE_OUTPUTS, PackedWeight, Piece};

/// Rows at once. With four registers of weights they fill 24 of the 32 registers with sums.
const TILE_ROWS: usize = 6;

/// `words`: the rows, by [`append_words`]; `out`: `[rows, outputs]`.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn product_of_block(weight: &PackedWeight, words: &[u32], out: &mut [i32]) {
    let PackedWeight { outputs, inputs, pieces, starts, .. } = weight;
    let (outputs, num_words) = (*outputs, inputs.div_ceil(PIECE_INPUTS));
    let (panel_pieces, num_registers) = (Instructions::Vnni.panel_pieces(), starts.len() / PIECE_OUTPUTS);
    for first_register in (0..num_registers).step_by(panel_pieces) {
        let width = panel_pieces.min(num_registers - first_register);
        let panel = &pieces[first_register * num_words..][..width * num_words];
        let first_output = first_register * PIECE_OUTPUTS;
        let starts = &starts[first_output..][..width * PIECE_OUTPUTS];
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

/// Rows plus 128, four inputs to a word: `[rows, inputs / 4]`.
pub(super) fn append_words(x: &[i8], inputs: usize, words: &mut Vec<u32>) {
    let word = |bytes: &[i8]| {
        let mut word = [0; PIECE_INPUTS]; // what is added to no input meets weights of zero
        word.iter_mut().zip(bytes).for_each(|(word, &byte)| *word = byte as u8 ^ 0x80);
        u32::from_le_bytes(word)
    };
    match inputs % PIECE_INPUTS {
        0 => words.extend(x.as_chunks::<PIECE_INPUTS>().0.iter().map(|bytes| word(bytes))),
        _ => words.extend(x.chunks_exact(inputs).flat_map(|row| row.chunks(PIECE_INPUTS).map(word))),
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn tile_of_rows<const WIDTH: usize>(rows: usize, words: &[u32], panel: (&[Piece], &[i32]), out: Output<'_>) {
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
    (panel, starts): (&[Piece], &[i32]),
    Output { sums, outputs, first_output }: Output<'_>,
) {
    let num_words = words.len() / ROWS;
    assert_eq!((words.len(), panel.len()), (ROWS * num_words, WIDTH * num_words));
    assert_eq!((starts.len(), sums.len()), (WIDTH * PIECE_OUTPUTS, ROWS * outputs));
    // Loops by index: closures would be calls, since the functions that take them lack the instruction set.
    let mut begin = [_mm512_setzero_si512(); WIDTH];
    for (register, begin) in begin.iter_mut().enumerate() {
        // SAFETY: `starts` has WIDTH registers of numbers.
        *begin = unsafe { _mm512_loadu_si512(starts.as_ptr().add(register * PIECE_OUTPUTS).cast()) };
    }
    let mut tile = [begin; ROWS];
    for index in 0..num_words {
        let mut weights = [_mm512_setzero_si512(); WIDTH];
        for (register, weights) in weights.iter_mut().enumerate() {
            // SAFETY: the panel has WIDTH registers for each of `num_words`; a piece is as large as a
            // register, and aligned.
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
            let first = first_output + register * PIECE_OUTPUTS;
            let out = &mut sums[first..outputs.min(first + PIECE_OUTPUTS)];
            let mask = u16::MAX >> (PIECE_OUTPUTS - out.len());
            // SAFETY: as many numbers are stored as `out` has.
            unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr(), mask, sum) };
        }
    }
}
