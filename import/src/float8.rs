//! Matrices of 8-bit floats (`F8_E4M3`) with scales, as published FP8 checkpoints hold them.
//!
//! A scale is the factor of the whole matrix, of a row, or of a block of rows and columns. It is stored
//! beside the matrix as `NAME_scale_inv` or `NAME_scale`; in spite of the first name both are factors.
//! Reference: Micikevicius et al., arXiv 2209.05433.

/// The scales of a matrix, row by row, `[rows, columns]` of them.
pub(crate) struct Scales {
    pub(crate) factors: Vec<f32>,
    pub(crate) shape: [usize; 2],
    /// Rows and columns of the matrix for each.
    pub(crate) block: [usize; 2],
}

impl Scales {
    /// The block size of scales of this shape for a matrix; none if they do not fit. `block_size` is that of
    /// the checkpoint, if it has one.
    pub(crate) fn block_of(
        scales: &[usize],
        [rows, columns]: [usize; 2],
        block_size: Option<[usize; 2]>,
    ) -> Option<([usize; 2], [usize; 2])> {
        match *scales {
            [] | [1] | [1, 1] => Some(([1, 1], [rows, columns])),
            [count] | [count, 1] if count == rows => Some(([count, 1], [1, columns])),
            [down, across] => {
                let [height, width] = block_size?;
                let fits = height > 0
                    && width > 0
                    && [rows.div_ceil(height), columns.div_ceil(width)] == [down, across];
                fits.then_some(([down, across], [height, width]))
            }
            _ => None,
        }
    }
}

/// The numbers of a matrix with `columns` columns, from its bytes.
pub(crate) fn numbers(bytes: &[u8], columns: usize, scales: &Scales) -> Vec<f32> {
    let [_, across] = scales.shape;
    let [height, width] = scales.block;
    let rows = bytes.chunks(columns.max(1)).enumerate();
    rows.flat_map(|(row, bytes)| {
        let factors = &scales.factors[row / height * across..];
        bytes.iter().enumerate().map(move |(column, &byte)| number(byte) * factors[column / width])
    })
    .collect()
}

/// One number: a sign, four bits of exponent with a bias of 7, three bits of significand; no infinities.
fn number(byte: u8) -> f32 {
    let (exponent, significand) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => significand * 2.0_f32.powi(-9),
        _ => (8.0 + significand) * 2.0_f32.powi(exponent - 10),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_numbers_of_the_format() {
        for (byte, expected) in [
            (0x00, 0.0),
            (0x01, 0.001_953_125), // the smallest, 2^-9
            (0x07, 0.013_671_875),
            (0x08, 0.015_625), // the smallest normal, 2^-6
            (0x38, 1.0),
            (0x3c, 1.5),
            (0xc0, -2.0),
            (0x7e, 448.0), // the largest
        ] {
            assert_eq!(number(byte), expected, "{byte:#x}");
        }
        assert!(number(0x7f).is_nan() && number(0xff).is_nan());
        assert!(number(0x80).is_sign_negative() && number(0x80) == 0.0);
    }

    #[test]
    fn scales_may_belong_to_blocks_rows_or_the_whole() {
        let bytes = [0x38; 6]; // ones, two rows of three
        let of = |scales: &[usize], block, factors: &[f32]| {
            let (shape, block) = Scales::block_of(scales, [2, 3], block)?;
            Some(numbers(&bytes, 3, &Scales { factors: factors.to_vec(), shape, block }))
        };
        assert_eq!(of(&[], None, &[2.0]), Some(vec![2.0; 6]));
        assert_eq!(of(&[2, 1], None, &[2.0, 3.0]), Some(vec![2.0, 2.0, 2.0, 3.0, 3.0, 3.0]));
        let in_blocks = of(&[1, 2], Some([2, 2]), &[2.0, 3.0]);
        assert_eq!(in_blocks, Some(vec![2.0, 2.0, 3.0, 2.0, 2.0, 3.0]));
        assert_eq!(of(&[1, 2], None, &[2.0, 3.0]), None);
        assert_eq!(of(&[2, 2], Some([2, 2]), &[1.0; 4]), None);
    }
}
