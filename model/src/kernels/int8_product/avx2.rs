//! The product by AVX2. Bytes become 16-bit numbers; `vpmaddwd` multiplies two pairs of them and adds the
//! products to an i32. A piece of weights is two pairs of inputs, each for two registers of outputs.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_load_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_madd_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256,
};

use super::{Output, PIECE_INPUTS, PIECE_OUTPUTS, PackedWeight, Piece};

/// Rows at once. With the two registers of weights they fill 10 of the 16 registers with sums; six would
/// spill.
const TILE_ROWS: usize = 5;
const PAIRS: usize = PIECE_INPUTS / 2;
const REGISTER_OUTPUTS: usize = 8;

/// `words`: the rows, by [`append_words`]; `out`: `[rows, outputs]`.
#[target_feature(enable = "avx2")]
pub(super) fn product_of_block(weight: &PackedWeight, words: &[u32], out: &mut [i32]) {
    let PackedWeight { outputs, inputs, pieces, .. } = weight;
    let (outputs, num_pieces) = (*outputs, inputs.div_ceil(PIECE_INPUTS));
    let row_len = PAIRS * num_pieces;
    for first_output in (0..outputs).step_by(PIECE_OUTPUTS) {
        let panel = &pieces[first_output / PIECE_OUTPUTS * num_pieces..][..num_pieces];
        for (index, sums) in out.chunks_mut(TILE_ROWS * outputs).enumerate() {
            let rows = sums.len() / outputs;
            let words = &words[index * TILE_ROWS * row_len..][..rows * row_len];
            let out = Output { sums, outputs, first_output };
            match rows {
                1 => tile::<1>(words, panel, out),
                2 => tile::<2>(words, panel, out),
                3 => tile::<3>(words, panel, out),
                4 => tile::<4>(words, panel, out),
                _ => tile::<TILE_ROWS>(words, panel, out),
            }
        }
    }
}

/// Rows as 16-bit numbers, two inputs to a word: `[rows, inputs / 2]`, filled up with zeros to whole pieces.
pub(super) fn append_words(x: &[i8], inputs: usize, words: &mut Vec<u32>) {
    let word = |first: i8, second: i8| {
        u32::from(i16::from(first) as u16) | u32::from(i16::from(second) as u16) << 16
    };
    for row in x.chunks_exact(inputs) {
        let (pairs, rest) = row.as_chunks::<2>();
        words.extend(pairs.iter().map(|&[first, second]| word(first, second)));
        words.extend(rest.iter().map(|&last| word(last, 0)));
        words.resize(words.len().next_multiple_of(PAIRS), 0);
    }
}

/// `ROWS` rows by 16 outputs; all sums stay in registers.
#[target_feature(enable = "avx2")]
fn tile<const ROWS: usize>(
    words: &[u32],
    panel: &[Piece],
    Output { sums, outputs, first_output }: Output<'_>,
) {
    let row_len = PAIRS * panel.len();
    assert_eq!((words.len(), sums.len()), (ROWS * row_len, ROWS * outputs));
    let mut tile = [[_mm256_setzero_si256(); 2]; ROWS];
    for (index, piece) in panel.iter().enumerate() {
        for pair in 0..PAIRS {
            let bytes = piece.0.as_ptr().cast::<__m128i>();
            // SAFETY: a piece is four such registers, and aligned.
            let halves =
                unsafe { [_mm_load_si128(bytes.add(2 * pair)), _mm_load_si128(bytes.add(2 * pair + 1))] };
            let weights = [_mm256_cvtepi8_epi16(halves[0]), _mm256_cvtepi8_epi16(halves[1])];
            for (row, sums) in tile.iter_mut().enumerate() {
                // SAFETY: `words` has ROWS rows of `row_len`.
                let word = unsafe { *words.get_unchecked(row * row_len + PAIRS * index + pair) };
                let word = _mm256_set1_epi32(word as i32);
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(word, weights[0]));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(word, weights[1]));
            }
        }
    }
    for (sums, registers) in sums.chunks_exact_mut(outputs).zip(tile) {
        for (register, sum) in registers.into_iter().enumerate() {
            let first = outputs.min(first_output + register * REGISTER_OUTPUTS);
            store(&mut sums[first..outputs.min(first + REGISTER_OUTPUTS)], sum);
        }
    }
}

/// As many numbers as `out` has, of eight.
#[target_feature(enable = "avx2")]
fn store(out: &mut [i32], sum: __m256i) {
    let mut numbers = [0; REGISTER_OUTPUTS];
    let len = out.len();
    let target = if len == REGISTER_OUTPUTS { out.as_mut_ptr() } else { numbers.as_mut_ptr() };
    // SAFETY: eight numbers fit there.
    unsafe { _mm256_storeu_si256(target.cast(), sum) };
    if len < REGISTER_OUTPUTS {
        out.copy_from_slice(&numbers[..len]);
    }
}
