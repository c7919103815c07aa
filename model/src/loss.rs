//! The training loss.

use tch::{Kind, Reduction, Tensor};

/// Mean cross-entropy of the response tokens with label smoothing; the prompt takes no part.
///
/// `logits`: `[rows, vocab]` of any float type, the rows that predict a response token; `targets`: `[rows]`
/// int64. Result: a scalar, nats per token.
pub fn response_cross_entropy(logits: &Tensor, targets: &Tensor, label_smoothing: f64) -> Tensor {
    logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(
        targets,
        None,
        Reduction::Mean,
        -100,
        label_smoothing,
    )
}
