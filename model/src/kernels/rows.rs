//! Operations on rows between products: quantization, scaling of integer sums, activation, rotation.
//!
//! libtorch spends microseconds on each of these small operations; here each is one pass over a row. A row's
//! result depends on the row alone. Int8 is symmetric: `x ~ scale * q` with `scale = max|x| / 127` per row of
//! activations and per row of weights, so a product is an exact integer sum times two scales.

use baton_lanes::max_abs_of;
use multiversion::multiversion;

use super::{activation::ActivationFunction, number::Number};

/// The integer sums of a product, and the factors that turn them into numbers: `sums[r][c] * row_scales[r] *
/// column_scales[c] + bias[c]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums<'a> {
    /// `[rows, columns]`
    pub(super) sums: &'a [i32],
    /// `[rows]`
    pub(super) row_scales: &'a [f32],
    /// `[columns]`
    pub(super) column_scales: &'a [f32],
    /// `[columns]`
    pub(super) bias: Option<&'a [f32]>,
}

impl<'a> Sums<'a> {
    fn rows(self) -> impl Iterator<Item = (&'a [i32], f32)> {
        self.sums.chunks_exact(self.column_scales.len()).zip(self.row_scales.iter().copied())
    }
}

/// Quantizes rows. `x`, `quantized`: `[rows, width]`; `scales`: `[rows]`; `scratch` is overwritten.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn quantize_rows<N: Number>(
    x: &[N],
    width: usize,
    (quantized, scales): (&mut [i8], &mut [f32]),
    scratch: &mut Vec<f32>,
) {
    scratch.resize(width, 0.0);
    let outputs = quantized.chunks_exact_mut(width).zip(scales);
    for (x, (quantized, row_scale)) in x.chunks_exact(width).zip(outputs) {
        for (wide, &x) in scratch.iter_mut().zip(x) {
            *wide = x.to_f32();
        }
        *row_scale = quantize(scratch, quantized);
    }
}

/// Integer sums as numbers. `output`: `[rows, columns]`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn scale_sums<N: Number>(sums: Sums<'_>, output: &mut [N]) {
    let width = sums.column_scales.len();
    for ((row, row_scale), output) in sums.rows().zip(output.chunks_exact_mut(width)) {
        for ((output, &sum), &column_scale) in output.iter_mut().zip(row).zip(sums.column_scales) {
            *output = N::from_f32(sum as f32 * (row_scale * column_scale));
        }
        if let Some(bias) = sums.bias {
            for (output, &bias) in output.iter_mut().zip(bias) {
                *output = N::from_f32(output.to_f32() + bias);
            }
        }
    }
}

/// Integer sums of one row with some outputs as numbers, which are those that [`scale_sums`] yields for them.
/// `sums`, `output`: `[outputs]`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn scale_some_sums(
    (sums, outputs): (&[i32], &[u32]),
    (row_scale, column_scales, bias): (f32, &[f32], Option<&[f32]>),
    numbers: &mut [f32],
) {
    for ((number, &sum), &output) in numbers.iter_mut().zip(sums).zip(outputs) {
        *number = sum as f32 * (row_scale * column_scales[output as usize]);
    }
    if let Some(bias) = bias {
        for (number, &output) in numbers.iter_mut().zip(outputs) {
            *number += bias[output as usize];
        }
    }
}

/// Integer sums as numbers, added to `x`, `[rows, columns]`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn add_scaled_sums(sums: Sums<'_>, x: &mut [f32]) {
    let width = sums.column_scales.len();
    for ((row, row_scale), x) in sums.rows().zip(x.chunks_exact_mut(width)) {
        for ((x, &sum), &column_scale) in x.iter_mut().zip(row).zip(sums.column_scales) {
            *x += sum as f32 * (row_scale * column_scale);
        }
        if let Some(bias) = sums.bias {
            for (x, &bias) in x.iter_mut().zip(bias) {
                *x += bias;
            }
        }
    }
}

/// `x += y`, of any format.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn add_rows<N: Number>(y: &[N], x: &mut [f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y.to_f32();
    }
}

/// `activation(gate) * up` from integer sums in which each row holds all gates, then all ups; quantized.
/// `quantized`: `[rows, columns / 2]`, `scales`: `[rows]`; `scratch` is overwritten. Gated layers: Shazeer,
/// arXiv 2002.05202.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn gate_sums<A: ActivationFunction>(
    sums: Sums<'_>,
    (quantized, scales): (&mut [i8], &mut [f32]),
    scratch: &mut Vec<f32>,
) {
    let width = sums.column_scales.len() / 2;
    scratch.resize(width, 0.0);
    let (gate_scales, up_scales) = sums.column_scales.split_at(width);
    let outputs = quantized.chunks_exact_mut(width).zip(scales);
    for ((row, row_scale), (quantized, output_scale)) in sums.rows().zip(outputs) {
        let (gates, ups) = row.split_at(width);
        match sums.bias {
            None => {
                let columns = gates.iter().zip(ups).zip(gate_scales).zip(up_scales);
                for (product, (((&gate, &up), &gate_scale), &up_scale)) in scratch.iter_mut().zip(columns) {
                    let (gate_scale, up_scale) = (row_scale * gate_scale, row_scale * up_scale);
                    *product = A::of(gate as f32 * gate_scale) * (up as f32 * up_scale);
                }
            }
            Some(bias) => {
                for (column, product) in scratch.iter_mut().enumerate() {
                    let gate = gates[column] as f32 * (row_scale * gate_scales[column]) + bias[column];
                    let up = ups[column] as f32 * (row_scale * up_scales[column]) + bias[width + column];
                    *product = A::of(gate) * up;
                }
            }
        }
        *output_scale = quantize(scratch, quantized);
    }
}

/// `activation(gate) * up` of rows that hold all gates, then all ups. `gate_up`: `[rows, 2 * width]`;
/// `output`: `[rows, width]`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn gate_rows<A: ActivationFunction, N: Number>(gate_up: &[N], width: usize, output: &mut [N]) {
    for (row, output) in gate_up.chunks_exact(2 * width).zip(output.chunks_exact_mut(width)) {
        let (gates, ups) = row.split_at(width);
        for ((output, &gate), &up) in output.iter_mut().zip(gates).zip(ups) {
            *output = N::from_f32(A::of(gate.to_f32()) * up.to_f32());
        }
    }
}

/// `activation(y)` of integer sums `y`; quantized. `quantized`: `[rows, columns]`, `scales`: `[rows]`;
/// `scratch` is overwritten.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn activate_sums<A: ActivationFunction>(
    sums: Sums<'_>,
    (quantized, scales): (&mut [i8], &mut [f32]),
    scratch: &mut Vec<f32>,
) {
    let width = sums.column_scales.len();
    scratch.resize(width, 0.0);
    let outputs = quantized.chunks_exact_mut(width).zip(scales);
    for ((row, row_scale), (quantized, output_scale)) in sums.rows().zip(outputs) {
        for ((y, &sum), &column_scale) in scratch.iter_mut().zip(row).zip(sums.column_scales) {
            *y = sum as f32 * (row_scale * column_scale);
        }
        if let Some(bias) = sums.bias {
            for (y, &bias) in scratch.iter_mut().zip(bias) {
                *y += bias;
            }
        }
        for y in scratch.iter_mut() {
            *y = A::of(*y);
        }
        *output_scale = quantize(scratch, quantized);
    }
}

/// `activation(x)`, number by number, in place.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn activate_rows<A: ActivationFunction, N: Number>(x: &mut [N]) {
    for x in x {
        *x = N::from_f32(A::of(x.to_f32()));
    }
}

/// Rotary positions: rotates the first `rotated_heads` heads of each row in place, pairing channel `i` with
/// `i + head_dim / 2`.
///
/// `rows`: `[rows, row_width]`; `angles(row)`: cosines and sines of the row's position, `[head_dim / 2]`
/// each.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn rotate_rows<N: Number>(
    rows: &mut [N],
    (row_width, rotated_heads): (usize, usize),
    positions: &[i64],
    (cosines, sines): (&[f32], &[f32]), // [positions, half_dim]
    (head_dim, half_dim): (usize, usize),
) {
    for (row, &position) in rows.chunks_exact_mut(row_width).zip(positions) {
        let angles = position as usize * half_dim..(position as usize + 1) * half_dim;
        let (cosines, sines) = (&cosines[angles.clone()], &sines[angles]);
        for head in row.chunks_exact_mut(head_dim).take(rotated_heads) {
            let (first, second) = head[..2 * half_dim].split_at_mut(half_dim);
            for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                let (x, y) = (a.to_f32(), b.to_f32());
                *a = N::from_f32(x * cos - y * sin);
                *b = N::from_f32(y * cos + x * sin);
            }
        }
    }
}

/// Quantizes one row; returns its scale. A row of zeros has scale 0.
#[inline(always)]
pub(super) fn quantize(x: &[f32], quantized: &mut [i8]) -> f32 {
    // Adding this leaves the nearest integer, ties to even, in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let largest = max_abs_of(x);
    let inverse_scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (quantized, &x) in quantized.iter_mut().zip(x) {
        *quantized = x.mul_add(inverse_scale, ROUND).to_bits() as i8;
    }
    largest / 127.0
}

#[cfg(test)]
mod tests {
    use super::{
        super::activation::{GeluTanh, Relu, Silu},
        *,
    };

    /// Numbers in -2..2.
    fn pattern(len: usize, step: f64) -> Vec<f32> {
        (0..len).map(|i| (2.0 * (i as f64 * step).sin()) as f32).collect()
    }

    fn sums_of(rows: usize, columns: usize) -> (Vec<i32>, Vec<f32>, Vec<f32>) {
        let sums = (0..rows * columns).map(|i| (i as i32 * 7919) % 20_011 - 10_000).collect();
        (sums, pattern(rows, 1.1).iter().map(|x| x.abs() * 1e-2).collect(), pattern(columns, 0.3))
    }

    fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(found) - expected).abs();
            assert!(error <= tolerance * (1.0 + expected.abs()), "{index}: {found} is not {expected}");
        }
    }

    #[test]
    fn a_quantized_row_is_within_half_a_step_of_its_numbers() {
        let (width, rows) = (37, 4);
        let mut x = pattern(rows * width, 0.7);
        x[width..2 * width].fill(0.0);
        let (mut quantized, mut scales) = (vec![0_i8; x.len()], vec![0.0; rows]);
        quantize_rows(&x, width, (&mut quantized, &mut scales), &mut Vec::new());
        for ((x, quantized), scale) in x.chunks(width).zip(quantized.chunks(width)).zip(&scales) {
            for (&x, &q) in x.iter().zip(quantized) {
                assert!((f32::from(q) * scale - x).abs() <= scale * 0.5001, "{q} * {scale} is not {x}");
            }
            let largest = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            assert!(largest == 0.0 || quantized.iter().any(|q| q.unsigned_abs() == 127));
        }
        assert_eq!(scales[1], 0.0);
    }

    #[test]
    fn sums_are_scaled_by_row_and_column_and_shifted_by_the_bias() {
        let (rows, columns) = (3, 21);
        let (sums, row_scales, column_scales) = sums_of(rows, columns);
        let bias = pattern(columns, 0.9);
        for bias in [None, Some(bias.as_slice())] {
            let expected: Vec<f64> = (0..rows * columns)
                .map(|i| {
                    let (row, column) = (i / columns, i % columns);
                    let scale = f64::from(row_scales[row]) * f64::from(column_scales[column]);
                    f64::from(sums[i]) * scale + f64::from(bias.map_or(0.0, |bias| bias[column]))
                })
                .collect();
            let sums = Sums { sums: &sums, row_scales: &row_scales, column_scales: &column_scales, bias };
            let mut output = vec![0.0_f32; rows * columns];
            scale_sums(sums, &mut output);
            assert_close(&output, &expected, 1e-5);
            let mut x = pattern(rows * columns, 0.4);
            let total: Vec<f64> = x.iter().zip(&expected).map(|(&x, y)| f64::from(x) + y).collect();
            add_scaled_sums(sums, &mut x);
            assert_close(&x, &total, 1e-5);
        }
    }

    /// Both gated and plain: from quantized sums, and from the numbers that the sums represent.
    fn activations_of_sums_and_numbers_agree<A: ActivationFunction>(by_the_book: fn(f64) -> f64) {
        let (rows, width) = (3, 40);
        let (sums, row_scales, column_scales) = sums_of(rows, 2 * width);
        let bias = pattern(2 * width, 0.9);
        for bias in [None, Some(bias.as_slice())] {
            let sums = Sums { sums: &sums, row_scales: &row_scales, column_scales: &column_scales, bias };
            let mut numbers = vec![0.0_f32; rows * 2 * width];
            scale_sums(sums, &mut numbers);
            let gated: Vec<f64> = numbers
                .chunks(2 * width)
                .flat_map(|row| {
                    (0..width).map(|i| by_the_book(f64::from(row[i])) * f64::from(row[width + i]))
                })
                .collect();
            let mut found = vec![0.0_f32; rows * width];
            gate_rows::<A, f32>(&numbers, width, &mut found);
            assert_close(&found, &gated, 1e-5);
            let (mut quantized, mut scales) = (vec![0; rows * width], vec![0.0; rows]);
            gate_sums::<A>(sums, (&mut quantized, &mut scales), &mut Vec::new());
            assert_within_half_a_step((&quantized, &scales), &gated);

            let plain: Vec<f64> = numbers.iter().map(|&x| by_the_book(f64::from(x))).collect();
            let (mut quantized, mut scales) = (vec![0; 2 * rows * width], vec![0.0; rows]);
            activate_sums::<A>(sums, (&mut quantized, &mut scales), &mut Vec::new());
            assert_within_half_a_step((&quantized, &scales), &plain);
            activate_rows::<A, f32>(&mut numbers);
            assert_close(&numbers, &plain, 1e-5);
        }
    }

    fn assert_within_half_a_step((quantized, scales): (&[i8], &[f32]), expected: &[f64]) {
        let width = quantized.len() / scales.len();
        for (i, (&q, expected)) in quantized.iter().zip(expected).enumerate() {
            let scale = f64::from(scales[i / width]);
            let found = f64::from(q) * scale;
            assert!((found - expected).abs() <= 0.51 * scale, "{i}: {found} is not {expected}");
        }
    }

    #[test]
    fn activations_of_sums_equal_those_of_their_numbers() {
        activations_of_sums_and_numbers_agree::<Silu>(|x| x / (1.0 + (-x).exp()));
        activations_of_sums_and_numbers_agree::<Relu>(|x| x.max(0.0));
        activations_of_sums_and_numbers_agree::<GeluTanh>(|x| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        });
    }

    #[test]
    fn rotation_turns_each_pair_of_channels_by_its_angle_and_leaves_the_other_heads() {
        let (half_dim, heads) = (3, 3);
        let row_width = heads * 2 * half_dim;
        let angles: Vec<f64> = (0..5 * half_dim).map(|i| i as f64 * 0.37).collect();
        let [cosines, sines] = [f64::cos, f64::sin]
            .map(|of: fn(f64) -> f64| angles.iter().map(|&angle| of(angle) as f32).collect::<Vec<_>>());
        let before = pattern(2 * row_width, 0.7);
        let mut rows = before.clone();
        rotate_rows(&mut rows, (row_width, 2), &[4, 0], (&cosines, &sines), (2 * half_dim, half_dim));
        let expected: Vec<f64> = (0..2 * row_width)
            .map(|i| {
                let (row, head, channel) = (i / row_width, i % row_width / 6, i % 6);
                let (pair, position) = (channel % half_dim, [4, 0][row]);
                let head_start = row * row_width + head * 6;
                let (x, y) =
                    (f64::from(before[head_start + pair]), f64::from(before[head_start + pair + half_dim]));
                let (sin, cos) = angles[position * half_dim + pair].sin_cos();
                match (head < 2, channel < half_dim) {
                    (false, _) => f64::from(before[i]),
                    (true, true) => x * cos - y * sin,
                    (true, false) => y * cos + x * sin,
                }
            })
            .collect();
        assert_close(&rows, &expected, 1e-6);
    }

    #[test]
    fn a_row_gets_the_same_bits_in_any_batch() {
        let (rows, width) = (4, 50);
        let (sums, row_scales, column_scales) = sums_of(rows, 2 * width);
        let all = Sums { sums: &sums, row_scales: &row_scales, column_scales: &column_scales, bias: None };
        let (mut quantized, mut scales) = (vec![0; rows * width], vec![0.0; rows]);
        gate_sums::<Silu>(all, (&mut quantized, &mut scales), &mut Vec::new());
        for row in 0..rows {
            let alone = Sums {
                sums: &sums[row * 2 * width..(row + 1) * 2 * width],
                row_scales: &row_scales[row..=row],
                ..all
            };
            let (mut values, mut scale) = (vec![0; width], vec![0.0]);
            gate_sums::<Silu>(alone, (&mut values, &mut scale), &mut Vec::new());
            assert_eq!(values, quantized[row * width..(row + 1) * width]);
            assert_eq!(scale[0].to_bits(), scales[row].to_bits());
        }
    }
}
