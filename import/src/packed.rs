//! Matrices of whole numbers in a few bits, as GPTQ and AWQ checkpoints hold them. Each group of inputs has a
//! scale and a zero: a weight is `(number - zero) * scale`.
//!
//! A module has four tensors in place of its `weight`, `[outputs, inputs]`:
//!
//! | tensor | shape with GPTQ | with AWQ |
//! |---|---|---|
//! | `qweight`, words of 32 bits | `[inputs / n, outputs]` | `[inputs, outputs / n]` |
//! | `qzeros`, words of 32 bits | `[groups, outputs / n]` | `[groups, outputs / n]` |
//! | `scales` | `[groups, outputs]` | `[groups, outputs]` |
//! | `g_idx`, each input's group | `[inputs]`, may be missing | never |
//!
//! `n` is the count of numbers in a word, the lowest bits first. AWQ stores those of a word in another order.
//! The first format of GPTQ stores zeros less one. References: Frantar et al., arXiv 2210.17323; Lin et al.,
//! arXiv 2306.00978; the packing of AutoGPTQ and AutoAWQ.

use serde::Deserialize;

/// Names of the tensors, with the dot before them.
pub(crate) const WORDS: &str = ".qweight";
pub(crate) const ZEROS: &str = ".qzeros";
pub(crate) const SCALES: &str = ".scales";
pub(crate) const GROUPS: &str = ".g_idx";
pub(crate) const SUFFIXES: [&str; 4] = [WORDS, ZEROS, SCALES, GROUPS];

/// The place in a word of AWQ of each of eight neighbouring outputs.
const AWQ_PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The part of `quantization_config` that says how numbers are packed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Settings {
    quant_method: String,
    #[serde(default)]
    bits: Option<usize>,
    /// Inputs of a group; -1 is all.
    #[serde(default)]
    group_size: Option<i64>,
    #[serde(default)]
    checkpoint_format: Option<String>,
}

/// How a checkpoint packs its matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    layout: Layout,
    bits: usize,
    group_size: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Gptq { zeros_less_one: bool },
    Awq,
}

/// The tensors of a module.
pub(crate) struct PackedMatrix {
    /// `qweight`.
    pub(crate) words: Vec<u32>,
    /// `qzeros`.
    pub(crate) zeros: Vec<u32>,
    /// `scales`.
    pub(crate) scales: Vec<f32>,
    /// `g_idx`, if the module has it.
    pub(crate) groups: Option<Vec<u32>>,
}

impl Packing {
    /// The packing of a checkpoint with these settings; none of one whose matrices are floats. Settings that
    /// are not implemented were refused before (`bundle/src/config/fields.rs`).
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let layout = match settings.quant_method.as_str() {
            "gptq" => {
                Layout::Gptq { zeros_less_one: settings.checkpoint_format.as_deref() != Some("gptq_v2") }
            }
            "awq" => Layout::Awq,
            _ => return None,
        };
        let group_size = settings.group_size.and_then(|size| usize::try_from(size).ok());
        Some(Self { layout, bits: settings.bits.unwrap_or(4), group_size })
    }

    /// Shapes of `qweight`, `qzeros`, `scales` and `g_idx` of a matrix, if one of this shape can be packed.
    pub(crate) fn shapes(&self, [outputs, inputs]: [usize; 2]) -> Option<[Vec<usize>; 4]> {
        let num_per_word = self.num_per_word();
        let packed = match self.layout {
            Layout::Gptq { .. } => inputs,
            Layout::Awq => outputs,
        };
        if packed % num_per_word != 0 || outputs % num_per_word != 0 {
            return None;
        }
        let words = match self.layout {
            Layout::Gptq { .. } => vec![inputs / num_per_word, outputs],
            Layout::Awq => vec![inputs, outputs / num_per_word],
        };
        let num_groups = inputs.div_ceil(self.group_of(inputs));
        Some([words, vec![num_groups, outputs / num_per_word], vec![num_groups, outputs], vec![inputs]])
    }

    /// The shape of a matrix, `[outputs, inputs]`, from that of its `qweight`.
    pub(crate) fn matrix_shape(&self, [down, across]: [usize; 2]) -> [usize; 2] {
        match self.layout {
            Layout::Gptq { .. } => [across, down * self.num_per_word()],
            Layout::Awq => [across * self.num_per_word(), down],
        }
    }

    /// The numbers of a matrix of this shape, row by row; none if a group does not exist. Its tensors have
    /// the shapes that [`Self::shapes`] says.
    pub(crate) fn numbers(&self, matrix: &PackedMatrix, [outputs, inputs]: [usize; 2]) -> Option<Vec<f32>> {
        let (num_per_word, group_size) = (self.num_per_word(), self.group_of(inputs));
        let num_groups = inputs.div_ceil(group_size);
        let group_of = |input: usize| match &matrix.groups {
            Some(groups) => groups[input] as usize,
            None => input / group_size,
        };
        let groups: Vec<usize> = (0..inputs).map(group_of).collect();
        if groups.iter().any(|&group| group >= num_groups) {
            return None;
        }
        let words_across = outputs / num_per_word;
        let in_row = |words: &[u32], row: usize, output: usize| {
            let place = output % num_per_word;
            let place = if self.layout == Layout::Awq { AWQ_PLACES[place] } else { place };
            self.number(words[row * words_across + output / num_per_word], place)
        };
        let (mut numbers, mut zeros) = (Vec::with_capacity(outputs * inputs), vec![0.0; num_groups]);
        for output in 0..outputs {
            for (group, zero) in zeros.iter_mut().enumerate() {
                *zero = in_row(&matrix.zeros, group, output) + self.zero_offset();
            }
            numbers.extend(groups.iter().enumerate().map(|(input, &group)| {
                let number = match self.layout {
                    Layout::Awq => in_row(&matrix.words, input, output),
                    Layout::Gptq { .. } => {
                        let word = matrix.words[input / num_per_word * outputs + output];
                        self.number(word, input % num_per_word)
                    }
                };
                (number - zeros[group]) * matrix.scales[group * outputs + output]
            }));
        }
        Some(numbers)
    }

    fn num_per_word(&self) -> usize {
        u32::BITS as usize / self.bits
    }

    fn group_of(&self, inputs: usize) -> usize {
        self.group_size.unwrap_or(inputs).max(1)
    }

    fn zero_offset(&self) -> f32 {
        if self.layout == (Layout::Gptq { zeros_less_one: true }) { 1.0 } else { 0.0 }
    }

    /// The number at a place of a word.
    fn number(&self, word: u32, place: usize) -> f32 {
        (word >> (self.bits * place) & ((1 << self.bits) - 1)) as f32
    }
}

/// Words of 32 bits from their bytes, little-endian.
pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
}

#[cfg(test)]
#[path = "packed/tests.rs"]
mod tests;
