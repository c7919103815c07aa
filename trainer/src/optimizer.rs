//! AdamW over the master weights (Loshchilov and Hutter, arXiv 1711.05101), with clipping of the global
//! gradient norm.
//!
//! Its moments are plain named tensors, so that a checkpoint can hold them; tch's own optimizers keep theirs
//! to themselves.

use tch::{Kind, Tensor, no_grad};

use crate::weights::Weights;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.98;
const EPS: f64 = 1e-9;

/// First and second moments of every weight.
#[derive(Debug)]
pub(crate) struct AdamW {
    pub(crate) first_moments: Weights,
    pub(crate) second_moments: Weights,
    weight_decay: f64,
    clip_norm: f64,
}

impl AdamW {
    pub(crate) fn new(weights: &Weights, weight_decay: f64, clip_norm: f64) -> Self {
        let zeros = || weights.iter().map(|(name, w)| (name.clone(), w.zeros_like())).collect();
        Self { first_moments: zeros(), second_moments: zeros(), weight_decay, clip_norm }
    }

    /// One update from the gradients of the weights, which are then cleared. `age_of` gives the number of a
    /// weight's updates, or nothing if it must not learn yet; `rate_of` gives its learning rate. Returns the
    /// norm of the learning weights' gradient before clipping.
    pub(crate) fn update(
        &mut self,
        weights: &mut Weights,
        age_of: impl Fn(&str) -> Option<usize>,
        rate_of: impl Fn(&str) -> f64,
    ) -> f64 {
        no_grad(|| {
            let mut gradients: Vec<(&String, Tensor, usize)> = Vec::new();
            for (name, weight) in weights.iter().filter(|(_, w)| w.grad().defined()) {
                match age_of(name) {
                    Some(age) => gradients.push((name, weight.grad(), age)),
                    None => drop(weight.grad().zero_()),
                }
            }
            let squares: Vec<Tensor> =
                gradients.iter().map(|(_, g, _)| g.square().sum(Kind::Float)).collect();
            let norm = f64::try_from(Tensor::stack(&squares, 0).sum(Kind::Double).sqrt())
                .expect("a norm is one number");
            let scale = (self.clip_norm / (norm + 1e-6)).min(1.0);
            for (name, gradient, age) in gradients {
                let bias1 = 1.0 - BETA1.powi(age as i32 + 1);
                let bias2 = 1.0 - BETA2.powi(age as i32 + 1);
                let learning_rate = rate_of(name);
                let mut weight = weights[name].shallow_clone();
                let mut gradient = gradient;
                let _ = gradient.g_mul_scalar_(scale);
                let first = self.first_moments.get_mut(name).expect("every weight has its moments");
                let second = self.second_moments.get_mut(name).expect("every weight has its moments");
                let _ = first.lerp_(&gradient, 1.0 - BETA1);
                let _ = second.g_mul_scalar_(BETA2).addcmul_(&gradient, &gradient);
                // The second moment is kept unscaled by (1 - BETA2); the factor is folded into the root.
                let root = ((1.0 - BETA2) / bias2).sqrt();
                let denominator = second.sqrt().g_mul_scalar_(root).g_add_scalar_(EPS);
                let is_matrix = weight.dim() >= 2;
                if is_matrix {
                    let _ = weight.g_mul_scalar_(1.0 - learning_rate * self.weight_decay);
                }
                let _ = weight.addcdiv_(&(&*first * (-learning_rate / bias1)), &denominator);
                let _ = gradient.zero_();
            }
            norm
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected weights come from three steps of torch.optim.AdamW 2.13 after clip_grad_norm_(1.0), on
    /// the loss mean((x w^T + b)^2). AdamW has betas 0.9 and 0.98, eps 1e-9, and decay 0.1 of `w` only.
    #[test]
    fn three_steps_equal_those_of_pytorch() {
        let leaf = |t: Tensor| t.set_requires_grad(true);
        let mut weights = Weights::from([
            ("w".to_owned(), leaf(Tensor::from_slice(&[1.0f32, -2.0, 3.0, 0.5]).view([2, 2]))),
            ("b".to_owned(), leaf(Tensor::from_slice(&[0.1f32, -0.3]))),
        ]);
        let x = Tensor::from_slice(&[1.0f32, 2.0, -1.0, 0.5, 0.3, -0.7]).view([3, 2]);
        let mut optimizer = AdamW::new(&weights, 0.1, 1.0);
        let mut norms = Vec::new();
        for step in 0..3 {
            x.linear(&weights["w"], Some(&weights["b"])).square().mean(Kind::Float).backward();
            norms.push(optimizer.update(&mut weights, |_| Some(step), |_| 0.01));
        }
        let close = |found: &[f64], expected: &[f64]| {
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 1e-5, "{found:?} is not {expected:?}");
            }
        };
        let values =
            |name: &str| Vec::<f64>::try_from(weights[name].flatten(0, -1).to_kind(Kind::Double)).unwrap();
        close(&norms, &[4.126_504, 4.080_779, 4.035_236]);
        close(&values("w"), &[1.026_887_5, -1.964_035_9, 2.961_035_5, 0.468_534_56]);
        close(&values("b"), &[0.129_994_14, -0.329_948_81]);
    }

    #[test]
    fn a_weight_with_a_later_start_is_unchanged_until_then_and_starts_like_any_other() {
        let weights = || {
            let leaf = |value: f32| Tensor::from_slice(&[value]).set_requires_grad(true);
            Weights::from([("early".to_owned(), leaf(1.0)), ("late".to_owned(), leaf(2.0))])
        };
        let loss = |weights: &Weights| (&weights["early"] + &weights["late"]).square().sum(Kind::Float);
        let value = |weights: &Weights, name: &str| weights[name].double_value(&[0]);

        let mut staged = weights();
        let mut optimizer = AdamW::new(&staged, 0.0, 1e9);
        loss(&staged).backward();
        let age_of =
            |step: usize| move |name: &str| if name == "early" { Some(step) } else { step.checked_sub(1) };
        let norm = optimizer.update(&mut staged, age_of(0), |_| 0.01);
        assert_eq!((value(&staged, "late"), norm), (2.0, 6.0), "its gradient does not count either");
        assert!(value(&staged, "early") < 1.0);
        loss(&staged).backward();
        optimizer.update(&mut staged, age_of(1), |_| 0.01);

        let mut at_once = weights();
        let mut optimizer = AdamW::new(&at_once, 0.0, 1e9);
        loss(&at_once).backward();
        optimizer.update(&mut at_once, |_| Some(0), |_| 0.01);
        assert!((value(&staged, "late") - value(&at_once, "late")).abs() < 1e-6);
    }
}
