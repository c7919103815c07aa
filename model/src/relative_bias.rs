//! T5's relative positions: a learned number for each head and each bucket of distances, added to scores.
//!
//! Half of the buckets are for single distances. The others are for ever wider ranges; from some distance on,
//! all distances share the last bucket. An encoder has buckets for both directions. Reference: Raffel et al.,
//! arXiv 1910.10683, section 2.1.

use tch::{Kind, Tensor};

use crate::{Compute, kernels::BiasTable};

/// How distances fall into buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) num_buckets: usize,
    /// Distance from which on all are in one bucket.
    pub(crate) max_distance: usize,
    /// Whether keys after the query have buckets of their own.
    pub(crate) bidirectional: bool,
}

impl Buckets {
    /// Bucket of each distance from a query to a key, `-max_distance` to `max_distance`:
    /// `[2 * max_distance + 1]` int64.
    ///
    /// In f32 as transformers computes it, so that a distance at the edge of a bucket falls on the same side.
    fn of_distances(self) -> Tensor {
        let options = (Kind::Int64, tch::Device::Cpu);
        let reach = self.max_distance as i64;
        let distances = Tensor::arange_start(-reach, reach + 1, options); // key - query
        let (num_buckets, offsets, distances) = if self.bidirectional {
            let num_buckets = self.num_buckets as i64 / 2;
            (num_buckets, distances.gt(0).to_kind(Kind::Int64) * num_buckets, distances.abs())
        } else {
            (self.num_buckets as i64, distances.zeros_like(), distances.clamp_max(0).neg())
        };
        let num_exact = num_buckets / 2;
        let growth = (self.max_distance as f64 / num_exact as f64).ln();
        let wide = ((distances.to_kind(Kind::Float) / num_exact as f64).log() / growth
            * (num_buckets - num_exact) as f64)
            .clamp_min(0.0) // distance 0 has a bucket of its own
            .to_kind(Kind::Int64)
            + num_exact;
        let wide = wide.clamp_max(num_buckets - 1);
        offsets + distances.where_self(&distances.lt(num_exact), &wide)
    }
}

/// The numbers that one stack of blocks adds to its scores.
#[derive(Debug)]
pub struct RelativeBias {
    table: Tensor,     // [heads, 2 * reach + 1] f32, for distances -reach to reach
    numbers: Vec<f32>, // the same, where the kernels read it
    reach: usize,
}

impl RelativeBias {
    /// `weight`: `[num_buckets, heads]` of any float type.
    pub(crate) fn new(weight: &Tensor, buckets: Buckets, compute: Compute) -> Self {
        let distances = buckets.of_distances().to_device(compute.device);
        let weight = weight.to_device(compute.device).to_kind(Kind::Float);
        let table = weight.index_select(0, &distances).transpose(0, 1).contiguous();
        let on_cpu = table.detach().to_device(tch::Device::Cpu).contiguous().view([-1]);
        let numbers = Vec::try_from(on_cpu).expect("a table of one dimension of f32");
        Self { table, numbers, reach: buckets.max_distance }
    }

    /// For the kernels.
    pub(crate) fn table(&self) -> BiasTable<'_> {
        BiasTable { numbers: &self.numbers, reach: self.reach }
    }

    /// For distances from query to key, int64 of any shape: `[heads, ...]` f32. Has a gradient.
    pub(crate) fn of_distances(&self, distances: &Tensor) -> Tensor {
        let reach = self.reach as i64;
        let columns = distances.clamp(-reach, reach) + reach;
        let heads = self.table.size()[0];
        let mut size = vec![heads];
        size.extend(distances.size());
        self.table.index_select(1, &columns.view([-1])).view(size.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(num_buckets: usize, max_distance: usize, bidirectional: bool) -> Vec<i64> {
        Vec::try_from(Buckets { num_buckets, max_distance, bidirectional }.of_distances()).expect("int64")
    }

    /// Of T5's defaults, as transformers gives them.
    #[test]
    fn distances_fall_into_the_buckets_of_transformers() {
        let both = buckets(32, 128, true);
        let of = |distance: i64| both[(distance + 128) as usize];
        assert_eq!(
            [0, -1, -7, -8, -11, -12, -15, -16, -127, -128].map(of),
            [0, 1, 7, 8, 8, 9, 9, 10, 15, 15]
        );
        assert_eq!([1, 7, 8, 16, 32, 64, 90, 91, 128].map(of), [17, 23, 24, 26, 28, 30, 30, 31, 31]);
        let back = buckets(32, 128, false);
        let of = |distance: i64| back[(distance + 128) as usize];
        assert_eq!(
            [5, 0, -1, -15, -16, -20, -31, -32, -112, -128].map(of),
            [0, 0, 1, 15, 16, 17, 21, 21, 30, 31]
        );
    }
}
