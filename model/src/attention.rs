//! Attention over packed sequences, and the trait by which a family reads keys and values.
//!
//! A family's block computes queries, keys and values for all rows and hands them to an [`Attention`], so
//! each family's arithmetic is written once. Encoding uses [`PackedAttention`], one sequence at a time;
//! training uses [`PaddedAttention`](crate::PaddedAttention), all sequences at once. They agree up to
//! rounding. Only the first keeps a sequence's result independent of its neighbours to the last bit. Only the
//! second has a fast backward pass on CPUs. Generation uses the KV cache's implementation, which also
//! remembers earlier passes.

use tch::{Device, Kind, Tensor};

use crate::{
    RelativeBias,
    flop_count::count_attention,
    kernels::{PackedSequence, Scoring, packed_attention},
};

/// How a block's queries meet keys and values.
pub trait Attention {
    /// `layer`: index of the block. Result: `[rows, heads * head_dim]`, same type as the queries; none where
    /// keys and values were all that was wanted, so that the pass ends here.
    fn attend(&mut self, layer: usize, heads: Heads<'_>) -> Option<Tensor>;
}

/// A block's queries, keys and values, with positions already applied, and how they meet.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// Queries, `[rows, heads, head_dim]`.
    pub q: &'a Tensor,
    /// Keys, `[rows, kv_heads, head_dim]`.
    pub k: &'a Tensor,
    /// Values, `[rows, kv_heads, head_dim]`.
    pub v: &'a Tensor,
    /// The operation on the product of a query and a key.
    pub scoring: Scoring,
    /// The bias added to it.
    pub bias: Option<&'a RelativeBias>,
}

/// Attention of a decoder to the states of its encoder.
pub trait CrossAttention: Attention {
    /// As [`Attention::attend`], over the keys and values of each row's prompt instead of its own.
    fn attend_prompt(&mut self, layer: usize, prompt: PromptHeads<'_>) -> Tensor;

    /// One step of a block that is recurrent in place of attending to its own past: `c = f * c_before + (1 -
    /// f) * candidate`, where `f = sigmoid(gate)`; before a row's first token `c` is zero. `gates`: `[rows, 2
    /// d]` f32, gates, then candidates; result: `c`, `[rows, d]` f32.
    fn recur(&mut self, layer: usize, gates: &Tensor) -> Tensor;
}

/// A block's queries to the prompts.
#[derive(Debug, Clone, Copy)]
pub struct PromptHeads<'a> {
    /// Queries, `[rows, heads, head_dim]`.
    pub q: &'a Tensor,
    /// The operation on the product of a query and a key. It has no window.
    pub scoring: Scoring,
}

/// Which keys a query may see inside its own sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Itself and its predecessors.
    Causal,
    /// The whole sequence.
    Bidirectional,
    /// The prompt, whole, by everyone; the response causally (prefix-LM).
    PrefixLm,
}

/// Where the sequences of a packed batch begin and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayout {
    pub(crate) sequences: Vec<SequenceSpan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequenceSpan {
    pub(crate) prompt_len: i64,
    pub(crate) response_len: i64,
}

impl SequenceSpan {
    pub(crate) fn len(self) -> i64 {
        self.prompt_len + self.response_len
    }
}

impl PackedLayout {
    /// Sequences that are prompts alone.
    #[must_use]
    pub fn prompts(lens: impl IntoIterator<Item = usize>) -> Self {
        Self::prompts_and_responses(lens.into_iter().map(|len| (len, 0)))
    }

    /// Sequences of a prompt followed by a response, as (prompt, response) lengths.
    #[must_use]
    pub fn prompts_and_responses(lens: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let sequences = lens
            .into_iter()
            .map(|(prompt, response)| SequenceSpan {
                prompt_len: prompt as i64,
                response_len: response as i64,
            })
            .collect();
        Self { sequences }
    }

    /// Rows of the packed batch.
    #[must_use]
    pub fn total_tokens(&self) -> i64 {
        self.sequences.iter().map(|s| s.len()).sum()
    }

    /// The prompts alone.
    #[must_use]
    pub fn prompts_only(&self) -> Self {
        Self::prompts(self.sequences.iter().map(|span| span.prompt_len as usize))
    }

    /// The responses alone, as sequences of their own.
    #[must_use]
    pub fn responses_only(&self) -> Self {
        Self::prompts(self.sequences.iter().map(|span| span.response_len as usize))
    }

    /// Position of each row inside its sequence, `[total_tokens]` int64 on the CPU.
    pub fn positions(&self) -> Tensor {
        let positions: Vec<i64> = self.sequences.iter().flat_map(|s| 0..s.len()).collect();
        Tensor::from_slice(&positions)
    }

    /// Neighbouring sequences of one shape, as (how many, the shape): they can be attended in one call
    /// without padding.
    fn runs(&self) -> Vec<(i64, SequenceSpan)> {
        let mut runs: Vec<(i64, SequenceSpan)> = Vec::new();
        for &span in &self.sequences {
            match runs.last_mut() {
                Some((count, last)) if *last == span => *count += 1,
                _ => runs.push((1, span)),
            }
        }
        runs
    }
}

/// Attention in which each sequence of a packed batch sees only itself, and nothing is remembered. Has no
/// gradient on the CPU.
#[derive(Debug)]
pub struct PackedAttention {
    sequences: Vec<PackedSequence>,
    by_tensors: Option<PackedByTensors>, // where the kernel cannot go
}

impl PackedAttention {
    /// Attention for the passes over one packed batch. `like` gives the device and the type of queries to
    /// come.
    #[must_use]
    pub fn new(layout: &PackedLayout, visibility: Visibility, like: (Kind, Device)) -> Self {
        let sequence = |span: &SequenceSpan| PackedSequence {
            len: span.len() as usize,
            seen_by_all: match visibility {
                Visibility::Causal => 0,
                Visibility::Bidirectional => span.len() as usize,
                Visibility::PrefixLm => span.prompt_len as usize,
            },
        };
        Self {
            sequences: layout.sequences.iter().map(sequence).collect(),
            by_tensors: (like.1 != Device::Cpu).then(|| PackedByTensors::new(layout, visibility, like)),
        }
    }
}

impl Attention for PackedAttention {
    fn attend(&mut self, _layer: usize, heads: Heads<'_>) -> Option<Tensor> {
        let window = heads.scoring.window;
        let seen = self.sequences.iter().map(|sequence| positions_seen(*sequence, window)).sum();
        count_attention(heads.q.size()[1..].iter().product::<i64>() as usize, seen);
        Some(match &mut self.by_tensors {
            None => {
                let bias = heads.bias.map(RelativeBias::table);
                packed_attention(&self.sequences, (heads.scoring, bias), (heads.q, heads.k, heads.v))
            }
            Some(by_tensors) => by_tensors.attend(heads),
        })
    }
}

/// How many keys the queries of a sequence see, all together.
fn positions_seen(sequence: PackedSequence, window: Option<usize>) -> usize {
    (0..sequence.len).map(|token| sequence.seen_by(token, window).len()).sum()
}

/// The same by libtorch: adjacent sequences of the same length are one batched call.
#[derive(Debug)]
struct PackedByTensors {
    runs: Vec<(i64, SequenceSpan)>,
    run_rows: Vec<i64>,
    // Per run: additive [len, len], or none where the visibility needs none.
    masks: ByWindow<Vec<Option<Tensor>>>,
    visibility: Visibility,
    like: (Kind, Device),
}

impl PackedByTensors {
    fn new(layout: &PackedLayout, visibility: Visibility, like: (Kind, Device)) -> Self {
        let runs = layout.runs();
        let run_rows = runs.iter().map(|(count, span)| count * span.len()).collect();
        Self { runs, run_rows, masks: ByWindow::default(), visibility, like }
    }

    /// Additive mask `[len, len]` of a run: 0 where the row's query may see the column's key, -inf elsewhere.
    /// None where a causal call, or one without a mask, does the same.
    fn mask(&self, span: SequenceSpan, window: Option<usize>) -> Option<Tensor> {
        let needs_none = match self.visibility {
            Visibility::Causal | Visibility::Bidirectional => true,
            Visibility::PrefixLm => span.response_len == 0,
        };
        (!needs_none || window.is_some()).then(|| self.additive_mask(span, window))
    }

    /// The same with the bias of relative positions, `[heads, len, len]`.
    fn mask_with_bias(&self, span: SequenceSpan, window: Option<usize>, bias: &RelativeBias) -> Tensor {
        let places = Tensor::arange(span.len(), (Kind::Int64, self.like.1));
        let bias = bias.of_distances(&(places.view([1, -1]) - places.view([-1, 1])));
        self.additive_mask(span, window) + bias.to_kind(self.like.0)
    }

    fn additive_mask(&self, span: SequenceSpan, window: Option<usize>) -> Tensor {
        let (kind, device) = self.like;
        let places = Tensor::arange(span.len(), (Kind::Int64, device));
        let (query, key) = (places.view([-1, 1]), places.view([1, -1]));
        let seen_by_all = match self.visibility {
            Visibility::Causal => 0,
            Visibility::Bidirectional => span.len(),
            Visibility::PrefixLm => span.prompt_len,
        };
        let visible = key.le_tensor(&query).logical_or(&key.lt(seen_by_all));
        let visible = within_window(visible, (&query, &key), window);
        visible.zeros_like().to_kind(kind).masked_fill(&visible.logical_not(), f64::NEG_INFINITY)
    }

    /// As [`Attention::attend`].
    fn attend(&mut self, Heads { q, k, v, scoring, bias }: Heads<'_>) -> Tensor {
        let mut masks = std::mem::take(&mut self.masks);
        let run_masks = masks.get_or_make(scoring.window, || {
            self.runs.iter().map(|&(_, span)| self.mask(span, scoring.window)).collect()
        });
        let (rows, heads, head_dim) = q.size3().expect("queries are [rows, heads, head_dim]");
        let kv_heads = k.size()[1];
        let per_run = |t: &Tensor| t.split_with_sizes(&self.run_rows, 0);
        let (q, k, v) = (per_run(q), per_run(k), per_run(v));
        let mut outputs = Vec::with_capacity(self.runs.len());
        for (index, &(count, span)) in self.runs.iter().enumerate() {
            let len = span.len();
            // [count, h, len, head_dim]
            let batched = |t: &Tensor, h: i64| t.reshape([count, len, h, head_dim]).transpose(1, 2);
            let mask = match bias {
                None if scoring.cap.is_some() => Some(self.additive_mask(span, scoring.window)),
                None => run_masks[index].as_ref().map(Tensor::shallow_clone),
                Some(bias) => Some(self.mask_with_bias(span, scoring.window, bias)),
            };
            let queries = batched(&q[index], heads);
            let [keys, values] =
                [&k[index], &v[index]].map(|t| repeat_heads(&batched(t, kv_heads), heads / kv_heads));
            let scale = f64::from(scoring.scale);
            let attended = match (scoring.cap, &mask) {
                (Some(_), Some(mask)) => {
                    let scores = capped(queries.matmul(&keys.transpose(-1, -2)) * scale, scoring.cap);
                    (scores + mask).softmax(-1, None::<Kind>).matmul(&values)
                }
                (_, mask) => {
                    let causal = self.visibility == Visibility::Causal && mask.is_none();
                    let (mask, scale) = (mask.as_ref(), Some(scale));
                    Tensor::scaled_dot_product_attention(
                        &queries, &keys, &values, mask, 0.0, causal, scale, false,
                    )
                }
            };
            outputs.push(attended.transpose(1, 2).reshape([count * len, heads * head_dim]));
        }
        let attended = if outputs.len() == 1 { outputs.swap_remove(0) } else { Tensor::cat(&outputs, 0) };
        debug_assert_eq!(attended.size()[0], rows);
        self.masks = masks;
        attended
    }
}

/// Scores kept below `cap`, if there is one: `cap * tanh(scores / cap)`.
pub(crate) fn capped(scores: Tensor, cap: Option<f32>) -> Tensor {
    match cap.map(f64::from) {
        None => scores,
        Some(cap) => (scores / cap).tanh() * cap,
    }
}

/// The visible places that are near enough. `visible`: bool; `query`, `key`: int64 places that broadcast to
/// its shape.
pub(crate) fn within_window(
    visible: Tensor,
    (query, key): (&Tensor, &Tensor),
    window: Option<usize>,
) -> Tensor {
    match window {
        None => visible,
        Some(window) => visible.logical_and(&(query - key).abs().lt(window as i64)),
    }
}

/// Something that each kind of window needs once; a model has one or two.
#[derive(Debug)]
pub(crate) struct ByWindow<T>(Vec<(Option<usize>, T)>);

impl<T> Default for ByWindow<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByWindow<T> {
    pub(crate) fn get_or_make(&mut self, window: Option<usize>, make: impl FnOnce() -> T) -> &T {
        let place = self.0.iter().position(|(known, _)| *known == window).unwrap_or_else(|| {
            self.0.push((window, make()));
            self.0.len() - 1
        });
        &self.0[place].1
    }
}

/// Grouped queries: each key and value head serves `groups` query heads. `[b, kv, len, dim]` to
/// `[b, kv * groups, len, dim]`.
fn repeat_heads(t: &Tensor, groups: i64) -> Tensor {
    if groups == 1 {
        return t.shallow_clone();
    }
    let (batch, kv_heads, len, head_dim) = t.size4().expect("[batch, kv_heads, len, head_dim]");
    t.unsqueeze(2).expand([batch, kv_heads, groups, len, head_dim], false).reshape([
        batch,
        kv_heads * groups,
        len,
        head_dim,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compute, relative_bias::Buckets};

    #[test]
    fn the_kernel_and_libtorch_attend_alike_within_sequences_of_any_length() {
        let layout =
            PackedLayout::prompts_and_responses([(1, 0), (5, 3), (5, 3), (63, 2), (64, 0), (70, 66), (2, 1)]);
        let rows = layout.total_tokens();
        let pattern = |heads: i64, step: f64| {
            (Tensor::arange(rows * heads * 20, (Kind::Double, Device::Cpu)) * step)
                .sin()
                .view([rows, heads, 20])
                * 2
        };
        let buckets = Buckets { num_buckets: 32, max_distance: 40, bidirectional: true };
        let weight = (Tensor::arange(32 * 6, (Kind::Float, Device::Cpu)) * 0.9).sin().view([32, 6]);
        let bias = RelativeBias::new(&weight, buckets, Compute::CPU_F32);
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 3e-2)] {
            let [q, k, v] =
                [pattern(6, 0.7), pattern(2, 0.31), pattern(2, 0.53)].map(|t: Tensor| t.to_kind(kind));
            for visibility in [Visibility::Causal, Visibility::Bidirectional, Visibility::PrefixLm] {
                let like = (kind, Device::Cpu);
                let mut by_kernel = PackedAttention::new(&layout, visibility, like);
                let mut by_tensors = PackedByTensors::new(&layout, visibility, like);
                for (window, cap, bias) in [
                    (None, None, None),
                    (Some(5), None, None),
                    (Some(70), None, None),
                    (None, Some(0.7), None),
                    (Some(5), Some(0.7), None),
                    (None, None, Some(&bias)),
                ] {
                    let scoring = Scoring { scale: 0.2, window, cap };
                    let heads = Heads { q: &q, k: &k, v: &v, scoring, bias };
                    let (by_kernel, by_tensors) =
                        (by_kernel.attend(0, heads).unwrap(), by_tensors.attend(heads));
                    assert_eq!((by_kernel.size(), by_kernel.kind()), (by_tensors.size(), kind));
                    let difference = (by_kernel - by_tensors).abs().max().double_value(&[]);
                    assert!(
                        difference <= tolerance,
                        "{kind:?} {visibility:?} {window:?} {bias:?}: {difference}"
                    );
                }
            }
        }
    }
}
