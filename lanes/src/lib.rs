//! Sums and maxima over slices in a fixed number of lanes.
//!
//! Element `i` belongs to lane `i % LANES`; lanes are joined pairwise at the end. A sum's order therefore
//! depends only on the slice, and not on the width of the CPU's vectors. The compiler may use vectors of any
//! width. All functions are inlined, so they are compiled for their caller's instruction set.

/// Independent accumulators of a reduction: one AVX-512 register, two of AVX2, four of NEON.
pub const LANES: usize = 16;

/// Joins lanes by a tree: 16 to 8 to 4 to 2 to 1.
#[inline(always)]
fn join(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

/// Reduces `map(x)` over a slice, starting each lane from `start`.
#[inline(always)]
fn reduce<T: Copy>(
    values: &[T],
    start: f32,
    accumulate: impl Fn(f32, T) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = accumulate(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = accumulate(*lane, value);
    }
    join(lanes, combine)
}

/// Sum of `map(value)`.
#[inline(always)]
pub fn sum_of<T: Copy>(values: &[T], map: impl Fn(T) -> f32) -> f32 {
    reduce(values, 0.0, |sum, value| sum + map(value), |a, b| a + b)
}

/// The largest value; NaNs are ignored; minus infinity if there is none.
#[inline(always)]
pub fn max_of(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    reduce(values, f32::NEG_INFINITY, larger, larger)
}

/// The largest magnitude; NaNs are ignored; 0 if there is none.
#[inline(always)]
pub fn max_abs_of(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    reduce(values, 0.0, |max, value| larger(max, value.abs()), larger)
}

/// `e^x` for `x` at most 88, within 2 units in the last place; zero below -87.
///
/// Argument reduction and polynomial as in Cephes' `expf` (Moshier): `e^x = 2^n e^r` with `|r| <= ln(2) / 2`.
/// Unlike the standard library's it has no branch and no call, so loops over it become vector code.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding this leaves round(x / ln 2) + 127, the exponent field of 2^n, in the low bits of the sum.
    const ROUND_AND_BIAS: f32 = 12_582_912.0 + 127.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND_AND_BIAS);
    let n = shifted - ROUND_AND_BIAS;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let polynomial = 1.987_569_1e-4_f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 0.166_666_65)
        .mul_add(r, 0.5);
    let exp_r = polynomial.mul_add(r * r, r) + 1.0;
    let two_to_n = f32::from_bits(shifted.to_bits() << 23);
    if x < -87.0 { 0.0 } else { exp_r * two_to_n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for step in 0..=1_750_000 {
            let x = -87.0 + step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from((exact as f32).next_up() - exact as f32);
            let error = (f64::from(exp(x)) - exact).abs() / unit;
            assert!(error <= 2.0, "exp({x}) is off by {error} units");
        }
    }

    #[test]
    fn exp_of_very_negative_numbers_is_zero_and_of_nan_is_nan() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_agree_with_a_plain_loop() {
        for len in [0, 1, 15, 16, 17, 40, 1000] {
            let values: Vec<f32> = (0..len).map(|i| ((i * 37 + 11) % 64) as f32 - 40.0).collect();
            assert_eq!(sum_of(&values, |x| x * x), values.iter().map(|x| x * x).sum::<f32>());
            assert_eq!(max_of(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
        assert_eq!(max_of(&[f32::NAN, 1.0, f32::NAN]), 1.0);
    }
}
