//! Attention over packed sequences, and the trait by which a family reads keys and values.
//!
//! A family's block computes queries, keys and values for all rows and hands them to an [`Attention`]. Encoding uses
//! [`PackedAttention`], one sequence at a time, and training uses [`PaddedAttention`], all sequences at once: they agree up to
//! rounding, but only the first keeps a sequence's result independent of its neighbours to the last bit, and only the second has a
//! fast backward pass on CPUs. Generation uses the KV cache's implementation, which also remembers earlier passes. So each
//! family's arithmetic is written once.

use tch::{Device, Kind, Tensor};

use crate::kernels::{PackedSequence, packed_attention};

/// How a block's queries meet keys and values.
pub trait Attention {
    /// `q`: `[rows, heads, head_dim]`; `k`, `v`: `[rows, kv_heads, head_dim]`, positions already applied; `layer`: index of the block.
    /// Result: `[rows, heads * head_dim]`, same type as `q`.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor;
}

/// Which keys a query may see inside its own sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Itself and what precedes it.
    Causal,
    /// The whole sequence.
    Bidirectional,
    /// The prompt, whole, by everyone; the response causally (prefix-LM).
    PrefixLm,
}

/// Where the sequences of a packed batch begin and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayout {
    sequences: Vec<SequenceSpan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SequenceSpan {
    prompt_len: i64,
    response_len: i64,
}

impl SequenceSpan {
    fn len(self) -> i64 {
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

    /// Position of each row inside its sequence, `[total_tokens]` int64 on the CPU.
    pub fn positions(&self) -> Tensor {
        let positions: Vec<i64> = self.sequences.iter().flat_map(|s| 0..s.len()).collect();
        Tensor::from_slice(&positions)
    }

    /// Neighbouring sequences of one shape, as (how many, the shape): they can be attended in one call without padding.
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

/// Attention in which each sequence of a packed batch sees itself alone, and nothing is remembered. Has no gradient on the CPU.
#[derive(Debug)]
pub struct PackedAttention {
    sequences: Vec<PackedSequence>,
    by_tensors: Option<PackedByTensors>, // where the kernel cannot go
}

impl PackedAttention {
    /// Attention for the passes over one packed batch. `like` gives the device and the type of queries to come.
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
    fn attend(&mut self, _layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        match &self.by_tensors {
            None => packed_attention(&self.sequences, (q, k, v)),
            Some(by_tensors) => by_tensors.attend(q, k, v),
        }
    }
}

/// The same by libtorch: sequences of the same length that stand together are one batched call.
#[derive(Debug)]
struct PackedByTensors {
    runs: Vec<(i64, SequenceSpan)>,
    run_rows: Vec<i64>,
    masks: Vec<Option<Tensor>>, // per run: additive [len, len], or none where every key may be seen
    visibility: Visibility,
}

impl PackedByTensors {
    fn new(layout: &PackedLayout, visibility: Visibility, like: (Kind, Device)) -> Self {
        let runs = layout.runs();
        let run_rows = runs.iter().map(|(count, span)| count * span.len()).collect();
        let masks = runs
            .iter()
            .map(|(_, span)| match visibility {
                Visibility::PrefixLm if span.response_len > 0 => Some(prefix_lm_mask(*span, like)),
                _ => None,
            })
            .collect();
        Self { runs, run_rows, masks, visibility }
    }

    /// As [`Attention::attend`].
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (rows, heads, head_dim) = q.size3().expect("queries are [rows, heads, head_dim]");
        let kv_heads = k.size()[1];
        let per_run = |t: &Tensor| t.split_with_sizes(&self.run_rows, 0);
        let (q, k, v) = (per_run(q), per_run(k), per_run(v));
        let mut outputs = Vec::with_capacity(self.runs.len());
        for (index, &(count, span)) in self.runs.iter().enumerate() {
            let len = span.len();
            let batched = |t: &Tensor, h: i64| t.reshape([count, len, h, head_dim]).transpose(1, 2); // [count, h, len, head_dim]
            let mask = self.masks[index].as_ref();
            let causal = self.visibility == Visibility::Causal;
            let attended = Tensor::scaled_dot_product_attention(
                &batched(&q[index], heads),
                &repeat_heads(&batched(&k[index], kv_heads), heads / kv_heads),
                &repeat_heads(&batched(&v[index], kv_heads), heads / kv_heads),
                mask,
                0.0,
                causal,
                None,
                false,
            );
            outputs.push(attended.transpose(1, 2).reshape([count * len, heads * head_dim]));
        }
        let attended = if outputs.len() == 1 { outputs.swap_remove(0) } else { Tensor::cat(&outputs, 0) };
        debug_assert_eq!(attended.size()[0], rows);
        attended
    }
}

/// Additive mask `[len, len]`: 0 where the row's query may see the column's key, -inf elsewhere.
fn prefix_lm_mask(span: SequenceSpan, (kind, device): (Kind, Device)) -> Tensor {
    let len = span.len();
    let mask = Tensor::full([len, len], f64::NEG_INFINITY, (kind, device)).triu(1);
    let _ = mask.narrow(1, 0, span.prompt_len).fill_(0.0);
    mask
}

/// Attention over all sequences of a packed batch at once, padded to the longest, by plain matrix products.
///
/// Made for training. Batches are sorted by length, so padding is small, and it is confined to attention: linear layers stay packed.
#[derive(Debug)]
pub struct PaddedAttention {
    num_sequences: i64,
    padded_len: i64,
    padded_from_packed: Tensor, // [sequences * padded_len] int64: packed row of each padded place; padding points at row 0
    packed_from_padded: Tensor, // [total_tokens] int64
    mask: Tensor,               // [sequences, 1, padded_len, padded_len] additive
}

impl PaddedAttention {
    /// Attention for the passes over one packed batch. `like` gives the device and the type of queries to come.
    #[must_use]
    pub fn new(layout: &PackedLayout, visibility: Visibility, like: (Kind, tch::Device)) -> Self {
        let padded_len = layout.sequences.iter().map(|s| s.len()).max().unwrap_or(0);
        let num_sequences = layout.sequences.len() as i64;
        let (mut padded_from_packed, mut packed_from_padded, mut prompt_lens, mut lens) =
            (vec![], vec![], vec![], vec![]);
        let mut first_row = 0;
        for (sequence, span) in layout.sequences.iter().enumerate() {
            let len = span.len();
            padded_from_packed.extend((0..padded_len).map(|t| if t < len { first_row + t } else { 0 }));
            let first_place = sequence as i64 * padded_len;
            packed_from_padded.extend(first_place..first_place + len);
            prompt_lens.push(span.prompt_len);
            lens.push(len);
            first_row += len;
        }
        let to_device = |v: &[i64]| Tensor::from_slice(v).to_device(like.1);
        let per_sequence = |v: &[i64]| to_device(v).view([-1, 1, 1, 1]);
        let places = Tensor::arange(padded_len, (Kind::Int64, like.1));
        let (query, key) = (places.view([1, 1, -1, 1]), places.view([1, 1, 1, -1]));
        let visible = match visibility {
            Visibility::Causal => key.le_tensor(&query),
            Visibility::Bidirectional => key.lt_tensor(&per_sequence(&lens)),
            Visibility::PrefixLm => {
                key.le_tensor(&query).logical_or(&key.lt_tensor(&per_sequence(&prompt_lens)))
            }
        };
        let visible = visible
            .logical_and(&key.lt_tensor(&per_sequence(&lens)))
            .expand([num_sequences, 1, padded_len, padded_len], false);
        let mask = visible.logical_not().to_kind(like.0) * f64::from(MASKED_SCORE);
        Self {
            num_sequences,
            padded_len,
            padded_from_packed: to_device(&padded_from_packed),
            packed_from_padded: to_device(&packed_from_padded),
            mask,
        }
    }
}

/// Added to the score of a key that may not be seen: its weight becomes zero in every float type.
const MASKED_SCORE: f32 = -30_000.0;

impl Attention for PaddedAttention {
    fn attend(&mut self, _layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (rows, heads, head_dim) = q.size3().expect("queries are [rows, heads, head_dim]");
        let kv_heads = k.size()[1];
        let groups = heads / kv_heads;
        let (sequences, len) = (self.num_sequences, self.padded_len);
        // An embedding lookup is a row gather whose backward pass is fast.
        let pad = |t: &Tensor, h: i64| {
            Tensor::embedding(&t.reshape([rows, h * head_dim]), &self.padded_from_packed, -1, false, false)
        };
        let q = pad(q, heads).view([sequences, len, kv_heads, groups, head_dim]).permute([0, 2, 3, 1, 4]);
        let q = q.reshape([sequences, kv_heads, groups * len, head_dim]) * (head_dim as f64).powf(-0.5);
        let kv = |t: &Tensor| pad(t, kv_heads).view([sequences, len, kv_heads, head_dim]).transpose(1, 2);
        let scores = q.matmul(&kv(k).transpose(-1, -2)); // [sequences, kv_heads, groups * len, len]
        let weights = (scores + self.mask.repeat([1, 1, groups, 1])).softmax(-1, None::<Kind>);
        let attended = weights
            .matmul(&kv(v))
            .view([sequences, kv_heads, groups, len, head_dim])
            .permute([0, 3, 1, 2, 4])
            .reshape([sequences * len, heads * head_dim]);
        Tensor::embedding(&attended, &self.packed_from_padded, -1, false, false)
    }
}

/// Grouped queries: each key and value head serves `groups` query heads. `[b, kv, len, dim]` to `[b, kv * groups, len, dim]`.
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
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 3e-2)] {
            let [q, k, v] =
                [pattern(6, 0.7), pattern(2, 0.31), pattern(2, 0.53)].map(|t: Tensor| t.to_kind(kind));
            for visibility in [Visibility::Causal, Visibility::Bidirectional, Visibility::PrefixLm] {
                let like = (kind, Device::Cpu);
                let by_kernel = PackedAttention::new(&layout, visibility, like).attend(0, &q, &k, &v);
                let by_tensors = PackedByTensors::new(&layout, visibility, like).attend(&q, &k, &v);
                assert_eq!((by_kernel.size(), by_kernel.kind()), (by_tensors.size(), kind));
                let difference = (by_kernel - by_tensors).abs().max().double_value(&[]);
                assert!(difference <= tolerance, "{kind:?} {visibility:?}: {difference}");
            }
        }
    }
}
