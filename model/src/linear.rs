//! Linear layers, with their inputs and outputs, in float or int8.
//!
//! A layer reads [`LinearInput`] and yields a [`Product`]. The consumer turns that in one pass into a tensor,
//! a sum with the residual stream, or the input of the next layer. Int8 layers therefore need no float
//! tensors between them, and a family's code is the same for all weight types.
//!
//! Int8 (W8A8): one scale per row of activations, found on the way, and one per output of the weight; the
//! sums are exact in i32. The scheme is LLM.int8()'s vector-wise one without the outlier part (Dettmers et
//! al., arXiv 2208.07339).

use tch::{Kind, Tensor};

use crate::{
    LowRank,
    compute::{Compute, WeightType},
    flop_count::count_product,
    kernels::{self, Activation, Int8Weight},
    transfer::download,
    weight_count::{count_bytes, count_weight},
};

/// A linear layer, `y = x W^T + b`.
///
/// A row's result does not depend, to the last bit, on the number of rows beside it, as long as libtorch runs
/// on one thread. libtorch's float products do not promise that: with few rows or few outputs they sum in
/// another order. Both are therefore padded.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    learned: Vec<(i64, LowRank)>, // beside the weight, with the first output of each
    compute: Compute,
}

#[derive(Debug)]
enum Weight {
    Float {
        weight: Tensor,       // [padded out, in], compute kind
        bias: Option<Tensor>, // [padded out], compute kind
        outputs: Option<i64>, // where some of the rows are padding
        min_rows: i64,
    },
    Int8 {
        weight: Int8Weight,
        scales: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
}

/// Rows as a linear layer reads them, `[rows, in]`.
#[derive(Debug)]
pub(crate) enum LinearInput {
    Float(Tensor),
    Int8(QuantizedRows),
}

/// Rows in int8 with a scale for each.
#[derive(Debug)]
pub(crate) struct QuantizedRows {
    pub(crate) values: Tensor, // [rows, width] int8
    pub(crate) scales: Vec<f32>,
}

/// The output of a linear layer, `[rows, out]`.
#[derive(Debug)]
pub(crate) enum Product<'a> {
    Float {
        values: Tensor,
        fused: bool,
    },
    Int8 {
        sums: Tensor, // [rows, out] int32
        row_scales: &'a [f32],
        column_scales: &'a [f32],
        bias: Option<&'a [f32]>,
    },
}

impl Linear {
    /// `weight`: `[out, in]`; `bias`: `[out]`; of any float type.
    #[must_use]
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, compute: Compute) -> Self {
        let weight = match compute.weights {
            WeightType::Float => {
                let to_compute = |t: &Tensor| t.to_device(compute.device).to_kind(compute.kind);
                let outputs = weight.size()[0];
                let num_missing = min_outputs(compute.kind) - outputs;
                let padded = |t: Tensor, padding: &[i64]| match num_missing > 0 {
                    true => t.constant_pad_nd(padding),
                    false => t,
                };
                let weight = padded(to_compute(weight), &[0, 0, 0, num_missing]);
                let bias = bias.map(|bias| padded(to_compute(bias), &[0, num_missing]));
                let min_rows = min_rows(&weight);
                count_weight(&weight);
                bias.iter().for_each(count_weight);
                Weight::Float { weight, bias, outputs: (num_missing > 0).then_some(outputs), min_rows }
            }
            WeightType::Int8 => {
                let QuantizedRows { values, scales } = kernels::quantize(&weight.to_kind(Kind::Float));
                let bias: Option<Vec<f32>> =
                    bias.map(|b| Vec::try_from(b.to_kind(Kind::Float)).expect("a bias has one dimension"));
                let weight = Int8Weight::new(&values);
                let num_floats = scales.len() + bias.as_ref().map_or(0, Vec::len);
                count_bytes(weight.num_bytes() + num_floats * size_of::<f32>());
                Weight::Int8 { weight, scales, bias }
            }
        };
        Self { weight, learned: Vec::new(), compute }
    }

    /// The same with an addition to its outputs from `first_output` on.
    ///
    /// # Panics
    /// The weight is int8.
    pub(crate) fn with_low_rank(mut self, first_output: i64, learned: LowRank) -> Self {
        assert!(matches!(self.weight, Weight::Float { .. }), "what learns is float");
        self.learned.push((first_output, learned));
        self
    }

    /// `x`: `[rows, in]` of any float type; result `[rows, out]` in the compute kind.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.product(&self.input(x)).into_tensor(self.compute.kind)
    }

    /// Rows in the format that the layer reads.
    pub(crate) fn input(&self, x: &Tensor) -> LinearInput {
        match self.weight {
            Weight::Float { .. } => LinearInput::Float(x.to_kind(self.compute.kind)),
            Weight::Int8 { .. } => LinearInput::Int8(kernels::quantize(x)),
        }
    }

    /// The product alone.
    ///
    /// # Panics
    /// `x` is in another format than [`input`](Self::input) gives.
    pub(crate) fn product<'a>(&'a self, x: &'a LinearInput) -> Product<'a> {
        match (&self.weight, x) {
            (Weight::Float { weight, bias, outputs, min_rows }, LinearInput::Float(x)) => {
                let (rows, inputs) = x.size2().expect("a layer reads rows");
                count_product(rows, inputs * outputs.unwrap_or_else(|| weight.size()[0]));
                let values = if rows < *min_rows {
                    let padded = x.constant_pad_nd([0, 0, 0, min_rows - rows]);
                    padded.linear(weight, bias.as_ref()).narrow(0, 0, rows)
                } else {
                    x.linear(weight, bias.as_ref())
                };
                let values = match outputs {
                    None => values,
                    Some(outputs) => values.narrow(1, 0, *outputs).contiguous(),
                };
                let values = self.learned.iter().fold(values, |values, (first_output, learned)| {
                    let width = values.size()[1];
                    values + learned.product(x, (*first_output, width))
                });
                Product::Float { values, fused: self.compute.fused }
            }
            (Weight::Int8 { weight, scales, bias }, LinearInput::Int8(x)) => {
                let (rows, inputs) = x.values.size2().expect("a layer reads rows");
                count_product(rows, inputs * scales.len() as i64);
                Product::Int8 {
                    sums: weight.product(&x.values),
                    row_scales: &x.scales,
                    column_scales: scales,
                    bias: bias.as_deref(),
                }
            }
            _ => panic!("a layer reads what `Linear::input` or a norm made for it"),
        }
    }

    /// Appends the numbers of each row of `x` to `numbers`, in f32: of the outputs asked for, or of all. They
    /// are the same bits either way.
    ///
    /// # Panics
    /// As for [`product`](Self::product), or there are not as many `asked` as rows.
    pub(crate) fn append_some(&self, x: &LinearInput, asked: &[Option<&[u32]>], numbers: &mut Vec<f32>) {
        if asked.iter().all(Option::is_none) {
            return self.product(x).append_to(numbers);
        }
        let LinearInput::Int8(x) = x else { return self.append_picked(x, asked, numbers) };
        let Weight::Int8 { weight, scales, bias } = &self.weight else {
            panic!("a layer reads what `Linear::input` or a norm made for it")
        };
        assert_eq!(x.scales.len(), asked.len(), "one question a row");
        let whole: Vec<usize> = (0..asked.len()).filter(|&row| asked[row].is_none()).collect();
        let mut of_whole = Vec::new();
        if !whole.is_empty() {
            self.product(&LinearInput::Int8(x.select(&whole))).append_to(&mut of_whole);
        }
        let mut of_whole = of_whole.chunks_exact(scales.len().max(1));
        for (row, outputs) in asked.iter().enumerate() {
            match outputs {
                None => numbers.extend(of_whole.next().expect("a product for each whole row")),
                Some(outputs) => {
                    count_product(1, x.values.size()[1] * outputs.len() as i64);
                    kernels::append_some_sums(weight, (scales, bias.as_deref()), (x, row), outputs, numbers);
                }
            }
        }
    }

    /// The same from the whole product: for float weights, where a product with fewer outputs has other bits.
    fn append_picked(&self, x: &LinearInput, asked: &[Option<&[u32]>], numbers: &mut Vec<f32>) {
        let mut all = Vec::new();
        self.product(x).append_to(&mut all);
        assert!(all.len().is_multiple_of(asked.len()), "one question a row");
        for (row, outputs) in all.chunks_exact((all.len() / asked.len()).max(1)).zip(asked) {
            match outputs {
                None => numbers.extend(row),
                Some(outputs) => numbers.extend(outputs.iter().map(|&output| row[output as usize])),
            }
        }
    }
}

impl QuantizedRows {
    /// Some of the rows.
    fn select(&self, rows: &[usize]) -> Self {
        let places: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        Self {
            values: self.values.index_select(0, &Tensor::from_slice(&places)),
            scales: rows.iter().map(|&row| self.scales[row]).collect(),
        }
    }
}

impl Product<'_> {
    /// The numbers, `[rows, out]`, in `kind`.
    pub(crate) fn into_tensor(self, kind: Kind) -> Tensor {
        match self {
            Product::Float { values, .. } => values.to_kind(kind),
            sums @ Product::Int8 { .. } => kernels::scale_sums(&sums, kind),
        }
    }

    /// The numbers, `[rows, out]`, in the compute kind of the layer that made them.
    pub(crate) fn into_compute_kind(self, layer: &Linear) -> Tensor {
        self.into_tensor(layer.compute.kind)
    }

    /// Appends the numbers to `output` in host memory, row by row, in f32.
    pub(crate) fn append_to(self, output: &mut Vec<f32>) {
        match self {
            Product::Float { values, .. } => {
                let values = download(values.to_kind(Kind::Float).contiguous());
                let start = output.len();
                output.resize(start + values.numel(), 0.0);
                values.copy_data(&mut output[start..], values.numel());
            }
            sums @ Product::Int8 { .. } => kernels::append_scaled_sums(&sums, output),
        }
    }

    /// `x + y`, where `y` is this product. `x`: `[rows, out]` f32; its memory may be reused for the result.
    pub(crate) fn add_to(self, x: Tensor, dropout: f64) -> Tensor {
        match self {
            Product::Float { values, fused: false } => x + values.dropout(dropout, dropout > 0.0),
            Product::Float { values, fused: true } => kernels::add(x, &values),
            sums @ Product::Int8 { .. } => kernels::add_scaled_sums(x, &sums),
        }
    }

    /// `activation(gate) * up`, where the product is gates, then ups, `[rows, 2 width]`; as the input,
    /// `[rows, width]`, of a layer of the same weight type. Gated layers: Shazeer, arXiv 2002.05202.
    pub(crate) fn gated(self, activation: Activation) -> LinearInput {
        match self {
            Product::Float { values, fused: false } => {
                let halves = values.chunk(2, -1);
                LinearInput::Float(activate(&halves[0], activation) * &halves[1])
            }
            Product::Float { values, fused: true } => LinearInput::Float(kernels::gate(&values, activation)),
            sums @ Product::Int8 { .. } => LinearInput::Int8(kernels::gate_sums(&sums, activation)),
        }
    }

    /// `activation(y)`, where `y` is the product; as the input of a layer of the same weight type.
    pub(crate) fn activated(self, activation: Activation) -> LinearInput {
        match self {
            Product::Float { values, fused: false } => LinearInput::Float(activate(&values, activation)),
            Product::Float { values, fused: true } => {
                LinearInput::Float(kernels::activate(values, activation))
            }
            sums @ Product::Int8 { .. } => LinearInput::Int8(kernels::activate_sums(&sums, activation)),
        }
    }
}

/// By libtorch, with gradients.
fn activate(x: &Tensor, activation: Activation) -> Tensor {
    match activation {
        Activation::Silu => x.silu(),
        Activation::GeluTanh => x.gelu("tanh"),
        Activation::Gelu => x.gelu("none"),
        Activation::Relu => x.relu(),
    }
}

/// Fewest outputs for which libtorch's CPU product of a row does not depend on the row's place. Found by
/// experiment with libtorch 2.13: f32 changes below 12 outputs. Only toys have so few.
fn min_outputs(kind: Kind) -> i64 {
    match kind {
        Kind::Float => 12,
        _ => 1,
    }
}

/// Fewest rows for which libtorch's CPU product of a row stays the same when more are added. Found by
/// experiment with libtorch 2.13: f32 changes below 4 rows on AMD's CPUs and below 16 on Intel's; bf16
/// changes with one row and more than 1024 columns. Products in bf16 of at most 16^3 multiplications bypass
/// the bf16 kernels.
fn min_rows(weight: &Tensor) -> i64 {
    const SMALL_PRODUCT: i64 = 16 * 16 * 16;
    let (out, input) = weight.size2().expect("a weight is [out, in]");
    match weight.kind() {
        Kind::Float => 16,
        _ => (SMALL_PRODUCT / (out * input).max(1) + 1).max(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gets_the_same_bits_at_any_place_among_any_number_of_rows() {
        crate::set_num_threads(1);
        let pattern = |size: &[i64], step: f64| {
            let numel: i64 = size.iter().product();
            (Tensor::arange(numel, (Kind::Double, tch::Device::Cpu)) * step).sin().view(size)
        };
        for compute in [Compute::CPU_F32, Compute::CPU_BF16, Compute::CPU_INT8] {
            for (input, outputs) in [(5, 4), (9, 8), (40, 11), (33, 12), (80, 200), (384, 1024), (1536, 576)]
            {
                let weight = pattern(&[outputs, input], 0.7);
                let bias = pattern(&[outputs], 0.3);
                let row = pattern(&[1, input], 0.9).to_kind(Kind::Float);
                for bias in [None, Some(&bias)] {
                    let layer = Linear::new(&weight, bias, compute);
                    let alone = layer.forward(&row);
                    assert_eq!(alone.size(), [1, outputs]);
                    for rows in [2, 3, 4, 7, 15, 19, 64, 114] {
                        let found = layer.forward(&row.repeat([rows, 1]));
                        assert!(
                            found.equal(&alone.repeat([rows, 1])),
                            "{compute:?} {input} {outputs} {rows}"
                        );
                    }
                }
            }
        }
    }
}
