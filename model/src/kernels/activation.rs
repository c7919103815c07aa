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
        for step in -4000..=4000 {
            let x = f64::from(step) * 0.01;
            let silu = x / (1.0 + (-x).exp());
            let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh();
            for (found, expected) in
                [(Silu::of(x as f32), silu), (GeluTanh::of(x as f32), 0.5 * x * (1.0 + tanh))]
            {
                let error = (f64::from(found) - expected).abs();
                assert!(error <= 1e-6 * (1.0 + expected.abs()), "{x}: {found} is not {expected}");
            }
        }
        assert_eq!((Silu::of(1e9), GeluTanh::of(1e9)), (1e9, 1e9));
        assert!(Silu::of(-1e9).abs() < 1e-20 && GeluTanh::of(-1e9).abs() < 1e-20);
    }
}
