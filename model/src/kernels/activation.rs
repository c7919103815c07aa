//! The activation functions of feed-forward layers.
//!
//! An [`Activation`] is chosen once per call; kernels are compiled for each [`ActivationFunction`], so that
//! loops have no branch.

use baton_lanes::exp;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x / (1 + e^-x)`: Llama, Qwen.
    Silu,
    /// GELU (Hendrycks and Gimpel, arXiv 1606.08415) by its approximation with tanh: GPT-2's and T5's
    /// `gelu_new`, Gemma's `gelu_pytorch_tanh`.
    GeluTanh,
    /// GELU by its definition, with the error function: BART's.
    Gelu,
    /// `max(x, 0)`: T5 1.0.
    Relu,
}

/// A function as a type.
pub(super) trait ActivationFunction {
    /// Its value.
    fn of(x: f32) -> f32;
}

pub(super) struct Silu;
pub(super) struct GeluTanh;
pub(super) struct Gelu;
pub(super) struct Relu;

impl ActivationFunction for Silu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x / one_plus_exp_of_minus(x)
    }
}

impl ActivationFunction for GeluTanh {
    /// `(1 + tanh(u)) / 2` is `1 / (1 + e^-2u)`.
    #[inline(always)]
    fn of(x: f32) -> f32 {
        const TWICE_ROOT_OF_TWO_OVER_PI: f32 = 1.595_769;
        x / one_plus_exp_of_minus(TWICE_ROOT_OF_TWO_OVER_PI * (x * x * x).mul_add(0.044_715, x))
    }
}

impl ActivationFunction for Gelu {
    /// `x` times the share of a normal distribution that lies below it. The smaller tail, beyond `|x|`, is
    /// `erfc(|x| / sqrt 2) / 2`, by formula 7.1.26 of Abramowitz and Stegun, which is within 1e-7.
    #[inline(always)]
    fn of(x: f32) -> f32 {
        const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
        let magnitude = x.abs();
        let t = magnitude.mul_add(P, 1.0).recip();
        let polynomial = 1.061_405_4_f32
            .mul_add(t, -1.453_152)
            .mul_add(t, 1.421_413_7)
            .mul_add(t, -0.284_496_74)
            .mul_add(t, 0.254_829_6);
        let tail = 0.5 * polynomial * t * exp(-0.5 * magnitude * magnitude);
        let of_tail = x * tail;
        if x > 0.0 { x - of_tail } else { of_tail }
    }
}

impl ActivationFunction for Relu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        if x > 0.0 { x } else { 0.0 }
    }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    one_plus_exp_of_minus(x).recip()
}

/// `1 + e^-x`, a divisor.
#[inline(always)]
fn one_plus_exp_of_minus(x: f32) -> f32 {
    // Below -88 the quotient is zero in f32's precision; `exp` stops there.
    let negated = if -x < 88.0 { -x } else { 88.0 };
    1.0 + exp(negated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_agree_with_their_formulas_far_and_near() {
        let steps = -4000..=4000;
        let erf =
            tch::Tensor::from_slice(&steps.clone().map(|step| f64::from(step) * 0.01).collect::<Vec<_>>());
        let erf = Vec::<f64>::try_from((erf * std::f64::consts::FRAC_1_SQRT_2).erf()).unwrap();
        for (step, erf) in steps.zip(erf) {
            let x = f64::from(step) * 0.01;
            let silu = x / (1.0 + (-x).exp());
            let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh();
            for (found, expected) in [
                (Silu::of(x as f32), silu),
                (GeluTanh::of(x as f32), 0.5 * x * (1.0 + tanh)),
                (Gelu::of(x as f32), 0.5 * x * (1.0 + erf)),
            ] {
                let error = (f64::from(found) - expected).abs();
                assert!(error <= 1e-6 * (1.0 + expected.abs()), "{x}: {found} is not {expected}");
            }
        }
        for of in [Silu::of, GeluTanh::of, Gelu::of] {
            assert!(of(1e9) == 1e9 && of(-1e9).abs() < 1e-20 && of(f32::NAN).is_nan());
        }
    }
}
