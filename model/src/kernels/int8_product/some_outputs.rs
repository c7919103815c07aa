//! Products of one row with some outputs of a weight, exact in i32 like those with all.
//!
//! The weights lie row by row, so each output is one dot product over neighbouring bytes. Four outputs are
//! summed at once, which shares the sums across a register. Rows are filled up with zeros to whole registers.

use super::Instructions;

/// Bytes of a register of the widest instructions; a row is a whole number of these.
const ROW_ALIGN: usize = 64;

/// Weights row by row, `[outputs, width]`, with zeros from `inputs` on.
#[derive(Debug)]
pub(super) struct WeightRows {
    instructions: Option<Instructions>,
    inputs: usize,
    width: usize,
    values: Vec<i8>,
    /// The start of each output's sum, which cancels the offset of activations.
    starts: Vec<i32>,
}

impl WeightRows {
    /// `values`: `[outputs, inputs]`. Without instructions, sums are computed plainly.
    pub(super) fn new(values: &[i8], inputs: usize, instructions: Option<Instructions>) -> Self {
        let width = inputs.next_multiple_of(ROW_ALIGN);
        let outputs = values.len().checked_div(inputs).unwrap_or(0);
        let mut padded = vec![0; outputs * width];
        let mut starts = Vec::with_capacity(outputs);
        let offset = instructions.map_or(0, Instructions::offset);
        for (to, row) in padded.chunks_exact_mut(width.max(1)).zip(values.chunks_exact(inputs.max(1))) {
            to[..inputs].copy_from_slice(row);
            starts.push(-offset * row.iter().map(|&weight| i32::from(weight)).sum::<i32>());
        }
        Self { instructions, inputs, width, values: padded, starts }
    }

    /// Appends the sums of `x`, `[inputs]`, with each of these outputs.
    ///
    /// # Panics
    /// An output is not there, `x` has another length, or the CPU lacks the instructions.
    pub(super) fn append_sums(&self, x: &[i8], outputs: &[u32], sums: &mut Vec<i32>) {
        assert_eq!(x.len(), self.inputs, "a layer reads rows of its width");
        assert!(
            outputs.iter().all(|&output| (output as usize) < self.starts.len()),
            "an output of the layer"
        );
        let before = sums.len();
        sums.resize(before + outputs.len(), 0);
        let sums = &mut sums[before..];
        match self.instructions {
            None => self.sums_plainly(x, outputs, sums),
            Some(instructions) => self.sums_by(instructions, x, outputs, sums),
        }
    }

    fn row(&self, output: u32) -> &[i8] {
        &self.values[output as usize * self.width..][..self.width]
    }

    /// The reference.
    fn sums_plainly(&self, x: &[i8], outputs: &[u32], sums: &mut [i32]) {
        for (sum, &output) in sums.iter_mut().zip(outputs) {
            *sum = self.row(output).iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn sums_by(&self, instructions: Instructions, x: &[i8], outputs: &[u32], sums: &mut [i32]) {
        assert!(instructions.are_there(), "rows are summed by instructions that the CPU has");
        match instructions {
            Instructions::Vnni => {
                let mut bytes: Vec<u8> = x.iter().map(|&x| x as u8 ^ 0x80).collect();
                bytes.resize(self.width, 0); // meets weights of zero
                // SAFETY: the CPU has the instructions, and the outputs are there.
                self.by_fours(outputs, sums, |rows| unsafe { x86::sums_by_vnni(&bytes, rows) });
                for (sum, &output) in sums.iter_mut().zip(outputs) {
                    *sum += self.starts[output as usize];
                }
            }
            Instructions::Avx2 => {
                let mut words: Vec<i16> = x.iter().map(|&x| i16::from(x)).collect();
                words.resize(self.width, 0);
                // SAFETY: the CPU has the instructions, and the outputs are there.
                self.by_fours(outputs, sums, |rows| unsafe { x86::sums_by_avx2(&words, rows) });
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn sums_by(&self, _: Instructions, x: &[i8], outputs: &[u32], sums: &mut [i32]) {
        self.sums_plainly(x, outputs, sums);
    }

    /// Four outputs at a time; the last ones are filled up with output 0.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn by_fours(&self, outputs: &[u32], sums: &mut [i32], sums_of: impl Fn([&[i8]; 4]) -> [i32; 4]) {
        for (outputs, sums) in outputs.chunks(4).zip(sums.chunks_mut(4)) {
            let row = |place: usize| self.row(outputs.get(place).copied().unwrap_or(0));
            let four = sums_of([row(0), row(1), row(2), row(3)]);
            sums.copy_from_slice(&four[..sums.len()]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi32, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi32,
        _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_setzero_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
        _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm512_castsi512_si256, _mm512_dpbusd_epi32,
        _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_setzero_si512,
    };

    use super::ROW_ALIGN;

    /// `x`: the activations plus 128; all of one length, a multiple of 64.
    #[target_feature(enable = "avx2,avx512f,avx512vnni")]
    pub(super) fn sums_by_vnni(x: &[u8], rows: [&[i8]; 4]) -> [i32; 4] {
        assert!(x.len().is_multiple_of(ROW_ALIGN) && rows.iter().all(|row| row.len() == x.len()));
        let mut sums = [_mm512_setzero_si512(); 4];
        for place in (0..x.len()).step_by(64) {
            // SAFETY: each has 64 bytes from `place` on.
            let x = unsafe { _mm512_loadu_si512(x.as_ptr().add(place).cast()) };
            for (sum, row) in sums.iter_mut().zip(rows) {
                // SAFETY: as above.
                let weights = unsafe { _mm512_loadu_si512(row.as_ptr().add(place).cast()) };
                *sum = _mm512_dpbusd_epi32(*sum, x, weights);
            }
        }
        let mut halves = [_mm256_setzero_si256(); 4];
        for (half, sum) in halves.iter_mut().zip(sums) {
            *half = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
        }
        totals(halves)
    }

    /// All of one length, a multiple of 64.
    #[target_feature(enable = "avx2")]
    pub(super) fn sums_by_avx2(x: &[i16], rows: [&[i8]; 4]) -> [i32; 4] {
        assert!(x.len().is_multiple_of(ROW_ALIGN) && rows.iter().all(|row| row.len() == x.len()));
        let mut sums = [_mm256_setzero_si256(); 4];
        for place in (0..x.len()).step_by(16) {
            // SAFETY: each has 16 numbers from `place` on.
            let x = unsafe { _mm256_loadu_si256(x.as_ptr().add(place).cast::<__m256i>()) };
            for (sum, row) in sums.iter_mut().zip(rows) {
                // SAFETY: as above.
                let weights = unsafe { _mm_loadu_si128(row.as_ptr().add(place).cast::<__m128i>()) };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, _mm256_cvtepi8_epi16(weights)));
            }
        }
        totals(sums)
    }

    /// The sum of the numbers of each register.
    #[target_feature(enable = "avx2")]
    fn totals([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
        let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        // Of each 128 bits: two numbers of ab and of cd in turn, then one sum of each of the four.
        let all = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
        let four = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
        let mut totals = [0; 4];
        // SAFETY: four numbers fit there.
        unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast(), four) };
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_equal_integer_sums_for_every_instruction_set_and_choice_of_outputs() {
        let bytes =
            |len: usize, step: usize| -> Vec<i8> { (0..len).map(|i| (i * step % 256) as u8 as i8).collect() };
        let here = [Instructions::Vnni, Instructions::Avx2].into_iter().filter(|set| set.are_there());
        let sets: Vec<Option<Instructions>> = here.map(Some).chain([None]).collect();
        for (inputs, num_outputs) in [(1, 1), (7, 5), (64, 9), (70, 30), (256, 100), (384, 17)] {
            let (x, w) = (bytes(inputs, 89), bytes(inputs * num_outputs, 151));
            for step in [1, 3, 7] {
                let outputs: Vec<u32> = (0..num_outputs as u32).step_by(step).collect();
                let dot = |&output: &u32| {
                    let row = &w[output as usize * inputs..][..inputs];
                    row.iter().zip(&x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>()
                };
                let expected: Vec<i32> = [77].into_iter().chain(outputs.iter().map(dot)).collect();
                for &set in &sets {
                    let mut sums = vec![77];
                    WeightRows::new(&w, inputs, set).append_sums(&x, &outputs, &mut sums);
                    assert_eq!(sums, expected, "{set:?}, {inputs} inputs");
                }
            }
        }
    }

    #[test]
    fn no_outputs_make_no_sums() {
        let mut sums = Vec::new();
        WeightRows::new(&[1, 2], 2, Instructions::best()).append_sums(&[1, 1], &[], &mut sums);
        assert!(sums.is_empty());
    }
}
