//! Norms of rows: RMS norm and layer norm, into numbers or quantized, and RMS norm of each head of a row.
//!
//! One pass over a row for its statistics, one for its result. A row's result depends on the row alone.

use baton_lanes::sum_of;
use multiversion::multiversion;

use super::{number::Number, rows::quantize};

/// A norm with its weights.
pub(super) trait RowNorm {
    /// Numbers in a row.
    fn width(&self) -> usize;

    /// One row.
    fn norm<N: Number>(&self, x: &[f32], normed: &mut [N]);
}

/// `x / sqrt(mean(x^2) + eps) * weight`
#[derive(Debug, Clone, Copy)]
pub(super) struct RmsNorm<'a> {
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
}

impl RowNorm for RmsNorm<'_> {
    #[inline(always)]
    fn width(&self) -> usize {
        self.weight.len()
    }

    #[inline(always)]
    fn norm<N: Number>(&self, x: &[f32], normed: &mut [N]) {
        let mean_square = sum_of(x, |x| x * x) / x.len() as f32;
        let scale = (mean_square + self.eps).sqrt().recip();
        for ((normed, &x), &weight) in normed.iter_mut().zip(x).zip(self.weight) {
            *normed = N::from_f32(x * scale * weight);
        }
    }
}

/// `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerNorm<'a> {
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) eps: f32,
}

impl RowNorm for LayerNorm<'_> {
    #[inline(always)]
    fn width(&self) -> usize {
        self.weight.len()
    }

    #[inline(always)]
    fn norm<N: Number>(&self, x: &[f32], normed: &mut [N]) {
        let mean = sum_of(x, |x| x) / x.len() as f32;
        let variance = sum_of(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
        let scale = (variance + self.eps).sqrt().recip();
        let columns = normed.iter_mut().zip(x).zip(self.weight).zip(self.bias);
        for (((normed, &x), &weight), &bias) in columns {
            *normed = N::from_f32(((x - mean) * scale).mul_add(weight, bias));
        }
    }
}

/// Row by row. `x`, `normed`: `[rows, width]`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn norm_rows<R: RowNorm, N: Number>(x: &[f32], norm: R, normed: &mut [N]) {
    let width = norm.width();
    for (x, normed) in x.chunks_exact(width).zip(normed.chunks_exact_mut(width)) {
        norm.norm(x, normed);
    }
}

/// The same, quantized: `quantized` is `[rows, width]`, `scales` is `[rows]`; `scratch` is overwritten.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn norm_and_quantize_rows<R: RowNorm>(
    x: &[f32],
    norm: R,
    (quantized, scales): (&mut [i8], &mut [f32]),
    scratch: &mut Vec<f32>,
) {
    let width = norm.width();
    scratch.resize(width, 0.0);
    let outputs = quantized.chunks_exact_mut(width).zip(scales);
    for (x, (quantized, row_scale)) in x.chunks_exact(width).zip(outputs) {
        norm.norm(x, scratch);
        *row_scale = quantize(scratch, quantized);
    }
}

/// The same; `x` also receives the normed numbers.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn norm_in_place_and_quantize_rows<R: RowNorm>(
    x: &mut [f32],
    norm: R,
    (quantized, scales): (&mut [i8], &mut [f32]),
    scratch: &mut Vec<f32>,
) {
    let width = norm.width();
    scratch.resize(width, 0.0);
    let outputs = quantized.chunks_exact_mut(width).zip(scales);
    for (x, (quantized, row_scale)) in x.chunks_exact_mut(width).zip(outputs) {
        norm.norm(x, scratch);
        *row_scale = quantize(scratch, quantized);
        x.copy_from_slice(scratch);
    }
}

/// RMS norm of each query head by `norms[0]` and each key head by `norms[1]`, in place. `rows`: `[rows,
/// row_width]`, first `heads[0]` query heads, then `heads[1]` key heads; the rest stays unchanged. `scratch`
/// is overwritten.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn norm_heads<N: Number>(
    rows: &mut [N],
    row_width: usize,
    (heads, norms): ([usize; 2], [RmsNorm<'_>; 2]),
    scratch: &mut Vec<f32>,
) {
    let head_dim = norms[0].width();
    scratch.resize(head_dim, 0.0);
    for row in rows.chunks_exact_mut(row_width) {
        let mut all_heads = row.chunks_exact_mut(head_dim);
        for (num_heads, norm) in heads.into_iter().zip(norms) {
            for head in all_heads.by_ref().take(num_heads) {
                for (wide, x) in scratch.iter_mut().zip(&*head) {
                    *wide = x.to_f32();
                }
                norm.norm(scratch, head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rows::quantize_rows, *};

    /// Numbers in -2..2.
    fn pattern(len: usize, step: f64) -> Vec<f32> {
        (0..len).map(|i| (2.0 * (i as f64 * step).sin()) as f32).collect()
    }

    fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(found) - expected).abs();
            assert!(error <= tolerance * (1.0 + expected.abs()), "{index}: {found} is not {expected}");
        }
    }

    fn rms_norm_by_the_book(x: &[f32], weight: &[f32], eps: f64) -> Vec<f64> {
        let normed = x.chunks(weight.len()).flat_map(|row| {
            let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / row.len() as f64;
            row.iter().zip(weight).map(move |(&x, &w)| f64::from(x) / (mean + eps).sqrt() * f64::from(w))
        });
        normed.collect()
    }

    #[test]
    fn an_rms_norm_agrees_with_its_formula() {
        for width in [1, 15, 16, 37, 576] {
            let (x, weight) = (pattern(3 * width, 0.7), pattern(width, 0.2));
            let mut normed = vec![0.0_f32; x.len()];
            norm_rows(&x, RmsNorm { weight: &weight, eps: 1e-5 }, &mut normed);
            assert_close(&normed, &rms_norm_by_the_book(&x, &weight, 1e-5), 1e-6);
        }
    }

    #[test]
    fn a_layer_norm_agrees_with_its_formula() {
        for width in [2, 15, 16, 37, 576] {
            let x: Vec<f32> = pattern(3 * width, 0.7).iter().map(|x| x + 1.5).collect();
            let (weight, bias) = (pattern(width, 0.2), pattern(width, 0.3));
            let mut normed = vec![0.0_f32; x.len()];
            norm_rows(&x, LayerNorm { weight: &weight, bias: &bias, eps: 1e-5 }, &mut normed);
            let expected: Vec<f64> = x
                .chunks(width)
                .flat_map(|row| {
                    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
                    let squares: f64 = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
                    let deviation = (squares / width as f64 + 1e-5).sqrt();
                    row.iter().zip(&weight).zip(&bias).map(move |((&x, &w), &b)| {
                        (f64::from(x) - mean) / deviation * f64::from(w) + f64::from(b)
                    })
                })
                .collect();
            assert_close(&normed, &expected, 2e-6);
        }
    }

    #[test]
    fn a_norm_quantizes_as_if_it_were_two_steps() {
        let (x, weight) = (pattern(5 * 40, 0.7), pattern(40, 0.2));
        let norm = RmsNorm { weight: &weight, eps: 1e-5 };
        let mut normed = vec![0.0_f32; x.len()];
        norm_rows(&x, norm, &mut normed);
        let (mut expected, mut expected_scales) = (vec![0; x.len()], vec![0.0; 5]);
        quantize_rows(&normed, 40, (&mut expected, &mut expected_scales), &mut Vec::new());
        let (mut quantized, mut scales) = (vec![0; x.len()], vec![0.0; 5]);
        norm_and_quantize_rows(&x, norm, (&mut quantized, &mut scales), &mut Vec::new());
        assert_eq!((&quantized, &scales), (&expected, &expected_scales));
        let mut in_place = x.clone();
        norm_in_place_and_quantize_rows(&mut in_place, norm, (&mut quantized, &mut scales), &mut Vec::new());
        assert_eq!((quantized, scales, in_place), (expected, expected_scales, normed));
    }

    #[test]
    fn each_head_is_normed_alone_and_values_are_left() {
        let (head_dim, row_width) = (6, 6 * 6); // 3 query heads, 2 key heads, a value head
        let (q_weight, k_weight) = (pattern(head_dim, 0.2), pattern(head_dim, 0.5));
        let before = pattern(2 * row_width, 0.7);
        let mut rows = before.clone();
        let norms = [&q_weight, &k_weight].map(|weight| RmsNorm { weight, eps: 1e-5 });
        norm_heads(&mut rows, row_width, ([3, 2], norms), &mut Vec::new());
        for (row, before) in rows.chunks(row_width).zip(before.chunks(row_width)) {
            assert_close(&row[..18], &rms_norm_by_the_book(&before[..18], &q_weight, 1e-5), 1e-6);
            assert_close(&row[18..30], &rms_norm_by_the_book(&before[18..30], &k_weight, 1e-5), 1e-6);
            assert_eq!(row[30..], before[30..]);
        }
    }
}
