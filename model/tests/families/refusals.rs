//! Checkpoints that do not belong to their config.

use std::collections::BTreeMap;

use baton_model::{Checkpoint, Compute, LanguageModel, ModelError, ModelParts, TensorSource};
use tch::{Kind, Tensor};

use crate::{FIXTURES, checkpoint, config, hidden_states, model};

/// A checkpoint with one tensor missing or of another shape.
struct Spoiled<'a> {
    checkpoint: &'a Checkpoint,
    name: &'a str,
    shape: Option<&'a [i64]>,
}

impl TensorSource for Spoiled<'_> {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let tensor = self.checkpoint.tensor(name, shape)?;
        let mut tensors = BTreeMap::from([(name.to_owned(), tensor)]);
        if name == self.name {
            tensors.clear();
            if let Some(other) = self.shape {
                tensors.insert(name.to_owned(), Tensor::zeros(other, (Kind::Float, tch::Device::Cpu)));
            }
        }
        tensors.tensor(name, shape)
    }
}

#[test]
fn a_missing_tensor_and_a_wrong_shape_are_refused_by_name() {
    for fixture in FIXTURES {
        let (config, checkpoint) = (config(fixture), checkpoint(fixture));
        for (name, shape) in config.tensor_shapes() {
            let mut swapped: Vec<i64> = shape.iter().rev().map(|&size| size as i64).collect();
            swapped[0] += 1;
            for shape in [None, Some(swapped.as_slice())] {
                let source = Spoiled { checkpoint: &checkpoint, name: &name, shape };
                let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
                let error = LanguageModel::load(&config, &source, parts, Compute::CPU_F32).unwrap_err();
                let right = match shape {
                    None => matches!(&error, ModelError::MissingTensor { name: found } if *found == name),
                    Some(_) => matches!(&error, ModelError::Shape { name: found, .. } if *found == name),
                };
                assert!(right, "{fixture}, {name}: {error}");
            }
        }
    }
}

#[test]
fn more_blocks_than_there_are_are_refused() {
    let config = config("gpt2-tied");
    let parts = ModelParts { blocks: config.num_hidden_layers + 1, lm_head: false };
    let error = LanguageModel::load(&config, &checkpoint("gpt2-tied"), parts, Compute::CPU_F32).unwrap_err();
    assert!(error.to_string().contains("4 blocks are asked for, config.json has 3 layers"), "{error}");
}

#[test]
#[should_panic(expected = "position 72 of a model that has 72 positions")]
fn a_position_beyond_the_table_of_gpt2_is_not_looked_up() {
    let compute = Compute::CPU_F32;
    let _ = hidden_states(&model("gpt2-tied", None, compute), compute, &[vec![3; 73]]);
}
