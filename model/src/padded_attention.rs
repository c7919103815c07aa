//! Attention over all sequences of a packed batch at once, padded to the longest, by plain matrix products.
//!
//! Made for training: its backward pass is fast on CPUs. Batches are sorted by length, so padding is small,
//! and it is confined to attention: linear layers stay packed.

use tch::{Device, Kind, Tensor};

use crate::{
    Attention, CrossAttention, Heads, PackedLayout, PromptHeads, Scoring, Visibility,
    attention::{ByWindow, capped, within_window},
};

/// Attention in which each sequence of a packed batch sees itself alone.
#[derive(Debug)]
pub struct PaddedAttention {
    padding: Padding,
    visible: Tensor,         // [sequences, 1, padded_len, padded_len] bool
    masks: ByWindow<Tensor>, // the same, additive
    kind: Kind,
}

impl PaddedAttention {
    /// Attention for the passes over one packed batch. `like` gives the device and the type of queries to
    /// come.
    #[must_use]
    pub fn new(layout: &PackedLayout, visibility: Visibility, like: (Kind, Device)) -> Self {
        let lens: Vec<i64> = layout.sequences.iter().map(|span| span.len()).collect();
        let prompt_lens: Vec<i64> = layout.sequences.iter().map(|span| span.prompt_len).collect();
        let padding = Padding::new(&lens, like.1);
        let per_sequence = |lens: &[i64]| Tensor::from_slice(lens).to_device(like.1).view([-1, 1, 1, 1]);
        let places = Tensor::arange(padding.padded_len, (Kind::Int64, like.1));
        let (query, key) = (places.view([1, 1, -1, 1]), places.view([1, 1, 1, -1]));
        let visible = match visibility {
            Visibility::Causal => key.le_tensor(&query),
            Visibility::Bidirectional => key.lt_tensor(&per_sequence(&lens)),
            Visibility::PrefixLm => {
                key.le_tensor(&query).logical_or(&key.lt_tensor(&per_sequence(&prompt_lens)))
            }
        };
        let size = [padding.num_sequences, 1, padding.padded_len, padding.padded_len];
        let visible = visible.logical_and(&key.lt_tensor(&per_sequence(&lens))).expand(size, false);
        Self { padding, visible, masks: ByWindow::default(), kind: like.0 }
    }
}

impl Attention for PaddedAttention {
    fn attend(&mut self, _layer: usize, Heads { q, k, v, scoring, bias }: Heads<'_>) -> Option<Tensor> {
        let places = Tensor::arange(self.padding.padded_len, (Kind::Int64, q.device()));
        let (query, key) = (places.view([-1, 1]), places.view([1, -1]));
        let mask = self.masks.get_or_make(scoring.window, || {
            let visible = within_window(self.visible.shallow_clone(), (&query, &key), scoring.window);
            additive(&visible, self.kind)
        });
        // [heads, len, len]
        let bias = bias.map(|bias| bias.of_distances(&(&key - &query)).to_kind(q.kind()));
        let (queries, keys) = (self.padding.pad(q), [k, v].map(|t| self.padding.pad(t)));
        let attended = attend(&queries, &keys, (scoring, mask, bias.as_ref()));
        Some(self.padding.packed(&attended))
    }
}

/// Attention of responses to themselves, causally, and to the encoded prompts that they answer.
#[derive(Debug)]
pub struct PaddedCrossAttention {
    responses: PaddedAttention,
    prompts: Padding,
    keys_and_values: Vec<[Tensor; 2]>, // per layer, [prompt rows, heads, head_dim]
    mask: Tensor,                      // [sequences, 1, 1, padded prompt_len] additive
}

impl PaddedCrossAttention {
    /// `layout`: the sequences, each a prompt and its response; `keys_and_values`: the prompts' for each
    /// layer of the decoder, each `[prompt rows, heads, head_dim]`. `like` gives the device and the type of
    /// queries to come.
    #[must_use]
    pub fn new(layout: &PackedLayout, keys_and_values: Vec<[Tensor; 2]>, like: (Kind, Device)) -> Self {
        let lens: Vec<i64> = layout.sequences.iter().map(|span| span.prompt_len).collect();
        let prompts = Padding::new(&lens, like.1);
        let places = Tensor::arange(prompts.padded_len, (Kind::Int64, like.1));
        let lens = Tensor::from_slice(&lens).to_device(like.1).view([-1, 1, 1, 1]);
        let mask = additive(&places.view([1, 1, 1, -1]).lt_tensor(&lens), like.0);
        let responses = PaddedAttention::new(&layout.responses_only(), Visibility::Causal, like);
        Self { responses, prompts, keys_and_values, mask }
    }
}

impl Attention for PaddedCrossAttention {
    fn attend(&mut self, layer: usize, heads: Heads<'_>) -> Option<Tensor> {
        self.responses.attend(layer, heads)
    }
}

impl CrossAttention for PaddedCrossAttention {
    fn attend_prompt(&mut self, layer: usize, PromptHeads { q, scoring }: PromptHeads<'_>) -> Tensor {
        let padding = &self.responses.padding;
        let keys = self.keys_and_values[layer].each_ref().map(|t| self.prompts.pad(t));
        let attended = attend(&padding.pad(q), &keys, (scoring, &self.mask, None));
        padding.packed(&attended)
    }

    /// All steps at once. With `c_t = a_t c_(t-1) + b_t` for each step, each round joins neighbouring spans
    /// of steps to spans twice as long (a scan: Hillis and Steele, doi 10.1145/7902.7903).
    fn recur(&mut self, _layer: usize, gates: &Tensor) -> Tensor {
        let padding = &self.responses.padding;
        let gates = padding.pad(&gates.unsqueeze(1)).squeeze_dim(2); // [sequences, padded_len, 2 d]
        let parts = gates.chunk(2, -1);
        let mut kept = parts[0].sigmoid();
        let mut states = (1.0 - &kept) * &parts[1];
        let mut reach = 1;
        while reach < padding.padded_len {
            let earlier = |t: &Tensor| t.narrow(1, 0, padding.padded_len - reach);
            let later = |t: &Tensor| t.narrow(1, reach, padding.padded_len - reach);
            let first = |t: &Tensor| t.narrow(1, 0, reach);
            let joined = later(&kept) * earlier(&states) + later(&states);
            states = Tensor::cat(&[first(&states), joined], 1);
            kept = Tensor::cat(&[first(&kept), later(&kept) * earlier(&kept)], 1);
            reach *= 2;
        }
        padding.packed(&states)
    }
}

/// Added to the score of a key that may not be seen: its weight becomes zero in every float type.
const MASKED_SCORE: f32 = -30_000.0;

fn additive(visible: &Tensor, kind: Kind) -> Tensor {
    visible.logical_not().to_kind(kind) * f64::from(MASKED_SCORE)
}

/// `softmax(cap(scale * q k^T) + bias + mask) v`. `q`: `[sequences, q_len, heads, head_dim]`; keys and
/// values: `[sequences, kv_len, kv_heads, head_dim]`; `mask`: broadcast to `[sequences, 1, q_len, kv_len]`;
/// `bias`: `[heads, q_len, kv_len]`. Result as `q`.
fn attend(
    q: &Tensor,
    keys: &[Tensor; 2],
    (scoring, mask, bias): (Scoring, &Tensor, Option<&Tensor>),
) -> Tensor {
    let (sequences, len, heads, head_dim) = q.size4().expect("[sequences, len, heads, head_dim]");
    let (_, kv_len, kv_heads, _) = keys[0].size4().expect("[sequences, len, heads, head_dim]");
    let groups = heads / kv_heads;
    let q = q.view([sequences, len, kv_heads, groups, head_dim]).permute([0, 2, 3, 1, 4]);
    let q = q.reshape([sequences, kv_heads, groups * len, head_dim]) * f64::from(scoring.scale);
    let [k, v] = keys.each_ref().map(|t| t.transpose(1, 2));
    // [sequences, kv_heads, groups * len, kv_len]
    let mut scores = capped(q.matmul(&k.transpose(-1, -2)), scoring.cap);
    if let Some(bias) = bias {
        scores += bias.reshape([1, kv_heads, groups * len, kv_len]);
    }
    let mask = if mask.size()[2] == 1 { mask.shallow_clone() } else { mask.repeat([1, 1, groups, 1]) };
    let weights = (scores + mask).softmax(-1, None::<Kind>);
    weights
        .matmul(&v)
        .view([sequences, kv_heads, groups, len, head_dim])
        .permute([0, 3, 1, 2, 4])
        .reshape([sequences, len, heads, head_dim])
}

/// Where the rows of a packed batch are when its sequences are padded to the longest.
#[derive(Debug)]
struct Padding {
    num_sequences: i64,
    padded_len: i64,
    // [sequences * padded_len] int64: packed row of each padded place; padding points at row 0.
    padded_from_packed: Tensor,
    packed_from_padded: Tensor, // [rows] int64
}

impl Padding {
    fn new(lens: &[i64], device: Device) -> Self {
        let padded_len = lens.iter().copied().max().unwrap_or(0);
        let (mut padded_from_packed, mut packed_from_padded) = (vec![], vec![]);
        let mut first_row = 0;
        for (sequence, &len) in lens.iter().enumerate() {
            padded_from_packed.extend((0..padded_len).map(|t| if t < len { first_row + t } else { 0 }));
            let first_place = sequence as i64 * padded_len;
            packed_from_padded.extend(first_place..first_place + len);
            first_row += len;
        }
        let to_device = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        Self {
            num_sequences: lens.len() as i64,
            padded_len,
            padded_from_packed: to_device(&padded_from_packed),
            packed_from_padded: to_device(&packed_from_padded),
        }
    }

    /// `t`: `[rows, heads, head_dim]`; result `[sequences, padded_len, heads, head_dim]`. An embedding lookup
    /// is a row gather whose backward pass is fast.
    fn pad(&self, t: &Tensor) -> Tensor {
        let (rows, heads, head_dim) = t.size3().expect("heads are [rows, heads, head_dim]");
        let flat = t.reshape([rows, heads * head_dim]);
        Tensor::embedding(&flat, &self.padded_from_packed, -1, false, false).view([
            self.num_sequences,
            self.padded_len,
            heads,
            head_dim,
        ])
    }

    /// The way back: `[sequences, padded_len, heads, head_dim]` to `[rows, heads * head_dim]`.
    fn packed(&self, t: &Tensor) -> Tensor {
        let flat = t.reshape([self.num_sequences * self.padded_len, -1]);
        Tensor::embedding(&flat, &self.packed_from_padded, -1, false, false)
    }
}
