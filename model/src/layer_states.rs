//! The states of packed prompts between two parts of a reader: on their way from a device to another one, or
//! to another process.
//!
//! They lie in host memory, in f32, as the residual stream is. No number changes on the way.

use std::ops::Range;

use bytes::Bytes;
use tch::{Device, Kind, Tensor};

use crate::{
    ModelError, PackedLayout,
    transfer::{download, upload},
};

const BYTES_PER_F32: usize = 4;

/// States after some blocks, of the tokens of packed prompts. The last are the residual stream, which the
/// next part of the reader continues; those before it are of layers that the projector mixes.
#[derive(Debug)]
pub struct LayerStates {
    prompt_lens: Vec<usize>,
    layers: Vec<Tensor>, // [rows, d] f32 in host memory
}

impl LayerStates {
    /// Of no prompt, with as many layers as will be [put together](Self::extend).
    pub(crate) fn none(num_layers: usize, d: usize) -> Self {
        let empty = || Tensor::zeros([0, d as i64], (Kind::Float, Device::Cpu));
        Self { prompt_lens: Vec::new(), layers: (0..num_layers).map(|_| empty()).collect() }
    }

    /// Of prompts that a device has read. `layers`: `[rows, d]` f32 each.
    pub(crate) fn of_layers(prompt_lens: Vec<usize>, layers: Vec<Tensor>) -> Self {
        Self { prompt_lens, layers: layers.into_iter().map(download).collect() }
    }

    /// States from their bytes: those of one layer after the other, `[rows, d]` f32, little-endian.
    ///
    /// # Errors
    /// The number of bytes does not fit the dimensions.
    pub fn from_bytes(
        prompt_lens: Vec<usize>,
        (num_layers, d): (usize, usize),
        bytes: &[u8],
    ) -> Result<Self, ModelError> {
        let rows: usize = prompt_lens.iter().sum();
        let layer_num_bytes = rows * d * BYTES_PER_F32;
        if layer_num_bytes == 0 || bytes.len() != num_layers * layer_num_bytes {
            let (num_prompts, num_bytes) = (prompt_lens.len(), bytes.len());
            return Err(ModelError::LayerStates { num_prompts, rows, d, num_layers, num_bytes });
        }
        let layer = |bytes| {
            Tensor::f_from_data_size(bytes, &[rows as i64, d as i64], Kind::Float)
                .map_err(|source| ModelError::Torch { doing: "copying states into a tensor", source })
        };
        let layers = bytes.chunks_exact(layer_num_bytes).map(layer).collect::<Result<_, _>>()?;
        Ok(Self { prompt_lens, layers })
    }

    /// The bytes of each layer.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<Bytes> {
        let layer = |layer: &Tensor| {
            let num_bytes = layer.numel() * BYTES_PER_F32;
            let mut bytes = vec![0; num_bytes];
            layer.contiguous().view_dtype(Kind::Uint8).copy_data_u8(&mut bytes, num_bytes);
            Bytes::from(bytes)
        };
        self.layers.iter().map(layer).collect()
    }

    /// Length of each prompt.
    #[must_use]
    pub fn prompt_lens(&self) -> &[usize] {
        &self.prompt_lens
    }

    /// Takes the residual stream out, for the next part.
    ///
    /// # Panics
    /// It is out already.
    #[must_use]
    pub fn take_stream(&mut self) -> Self {
        let stream = self.layers.pop().expect("the stream is taken by one part at a time");
        Self { prompt_lens: self.prompt_lens.clone(), layers: vec![stream] }
    }

    /// Puts in what the next part has made of the stream.
    pub fn continue_with(&mut self, next: Self) {
        self.layers.extend(next.layers);
    }

    /// Appends other prompts.
    pub(crate) fn extend(&mut self, other: Self) {
        self.prompt_lens.extend(other.prompt_lens);
        for (layer, more) in self.layers.iter_mut().zip(other.layers) {
            *layer = if layer.numel() == 0 { more } else { Tensor::cat(&[&*layer, &more], 0) };
        }
    }

    /// A copy of the layers of some of the prompts on `device`, where memory may be reused.
    pub(crate) fn copied_to(&self, prompts: &Range<usize>, device: Device) -> Vec<Tensor> {
        let rows = |lens: &[usize]| lens.iter().sum::<usize>() as i64;
        let (start, len) =
            (rows(&self.prompt_lens[..prompts.start]), rows(&self.prompt_lens[prompts.clone()]));
        self.layers.iter().map(|layer| upload(layer.narrow(0, start, len).copy(), device)).collect()
    }

    /// The layout of some of the prompts.
    pub(crate) fn layout(&self, prompts: &Range<usize>) -> PackedLayout {
        PackedLayout::prompts(self.prompt_lens[prompts.clone()].iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(prompt_lens: &[usize], first: i64) -> LayerStates {
        let rows: usize = prompt_lens.iter().sum();
        let layer = |first: i64| {
            Tensor::arange_start(first, first + 2 * rows as i64, (Kind::Float, Device::Cpu)).view([-1, 2])
        };
        LayerStates::of_layers(prompt_lens.to_vec(), vec![layer(first), layer(first + 100)])
    }

    #[test]
    fn states_survive_the_way_by_bytes() {
        let sent = states(&[1, 2], 0);
        let bytes = sent.to_bytes().concat();
        let received = LayerStates::from_bytes(vec![1, 2], (2, 2), &bytes).unwrap();
        assert!(received.layers.iter().zip(&sent.layers).all(|(received, sent)| received.equal(sent)));
        let error = LayerStates::from_bytes(vec![1, 2], (3, 2), &bytes).unwrap_err().to_string();
        assert!(error.contains("48 bytes"), "{error}");
        assert!(LayerStates::from_bytes(vec![], (2, 2), &[]).is_err());
    }

    #[test]
    fn a_part_takes_the_stream_and_puts_its_layers_after_the_earlier_ones() {
        let mut all = states(&[3], 0);
        let stream = all.take_stream();
        assert_eq!((all.layers.len(), stream.layers.len(), stream.prompt_lens()), (1, 1, &[3][..]));
        assert_eq!(stream.layers[0].double_value(&[0, 0]), 100.0);
        all.continue_with(states(&[3], 200));
        let firsts: Vec<f64> = all.layers.iter().map(|layer| layer.double_value(&[0, 0])).collect();
        assert_eq!(firsts, [0.0, 200.0, 300.0]);
    }

    #[test]
    fn some_prompts_are_a_copy_of_their_rows() {
        let mut all = LayerStates::none(2, 2);
        all.extend(states(&[1, 2], 0));
        all.extend(states(&[4], 10));
        assert_eq!(all.prompt_lens(), [1, 2, 4]);
        let mut rows = all.copied_to(&(1..3), Device::Cpu).remove(0);
        assert_eq!((rows.size(), rows.double_value(&[0, 0])), (vec![6, 2], 2.0));
        let _ = rows.fill_(7.0);
        assert_eq!(all.layers[0].double_value(&[1, 0]), 2.0, "the original stays");
    }
}
