//! Generation options as one source says them, and how those of several sources add up.
//!
//! A bundle proposes options, a job file overrules it, flags overrule both. Each is a [`GenerationLayer`]; what they come to is the
//! [`GenerationOptions`] of the job.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{GenerationOptions, JobError};

/// Options that choose sampling.
const SAMPLING: [&str; 4] = ["temperature", "top_k", "top_p", "min_p"];

/// The fields of [`GenerationOptions`] that one source sets, and no others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationLayer(Map<String, Value>);

impl GenerationLayer {
    /// What a structure with the fields of [`GenerationOptions`] sets; null and an empty list set nothing.
    ///
    /// # Panics
    /// It does not become a JSON object.
    pub fn of(fields: &impl Serialize) -> Self {
        match serde_json::to_value(fields) {
            Ok(Value::Object(mut fields)) => {
                fields.retain(|_, value| !value.is_null() && *value != json!([]));
                Self(fields)
            }
            other => unreachable!("{other:?} is no structure of options"),
        }
    }

    /// The section `[generation]` of a job file, which [`JobSpec::from_toml`](crate::JobSpec::from_toml) has accepted.
    pub fn of_job_file(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct JobFile {
            generation: GenerationLayer,
        }
        toml::from_str::<JobFile>(text).unwrap_or_default().generation
    }

    /// Whether it sets nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sets(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }
}

/// As in `beams = 4, copy_bias = 6`.
impl fmt::Display for GenerationLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (field, value)) in self.0.iter().enumerate() {
            f.write_str(if place > 0 { ", " } else { "" })?;
            match value.as_f64().filter(|_| value.is_f64()) {
                Some(number) => write!(f, "{field} = {}", number as f32)?, // most are of 32 bits, and 0.1 looks long in 64
                None => write!(f, "{field} = {value}")?,
            }
        }
        Ok(())
    }
}

impl GenerationOptions {
    /// What layers add up to, each overruling those before it field by field. Where a layer chooses another method (beam search, sampling,
    /// greedy by `beams = 1`), the options of the method before it fall away.
    ///
    /// # Errors
    /// [`JobError::GenerationLayer`] for a field that there is not, or a value of a wrong type. Whether the options go together is not checked.
    pub fn from_layers<'a>(layers: impl IntoIterator<Item = &'a GenerationLayer>) -> Result<Self, JobError> {
        let mut fields = Map::new();
        for layer in layers {
            for field in overruled_methods(layer) {
                fields.remove(field);
            }
            fields.extend(layer.0.clone());
        }
        serde_json::from_value(Value::Object(fields))
            .map_err(|error| JobError::GenerationLayer { message: error.to_string() })
    }

    /// The options that differ from the defaults.
    pub fn said(&self) -> GenerationLayer {
        let mut said = GenerationLayer::of(self);
        let defaults = GenerationLayer::of(&Self::default());
        said.0.retain(|field, value| defaults.0.get(field) != Some(value));
        said
    }
}

/// Options of methods that are no longer meant once a layer has chosen its own.
fn overruled_methods(layer: &GenerationLayer) -> Vec<&'static str> {
    let mut overruled = Vec::new();
    if layer.sets("beams") {
        overruled.extend(SAMPLING);
        overruled.push("seed");
    }
    if layer.0.get("beams") == Some(&json!(1)) {
        overruled.extend(["length_penalty", "early_stopping", "n_best"]);
    }
    if SAMPLING.iter().any(|field| layer.sets(field)) {
        overruled.extend(["beams", "length_penalty", "early_stopping"]);
    }
    overruled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(toml: &str) -> GenerationLayer {
        toml::from_str(toml).unwrap()
    }

    fn options(layers: &[&str]) -> GenerationOptions {
        let layers: Vec<GenerationLayer> = layers.iter().map(|toml| layer(toml)).collect();
        GenerationOptions::from_layers(&layers).unwrap()
    }

    #[test]
    fn no_layers_are_the_defaults() {
        assert_eq!(options(&[]), GenerationOptions::default());
        assert!(options(&[]).said().is_empty());
    }

    #[test]
    fn a_later_layer_overrules_field_by_field() {
        let options = options(&[
            "beams = 4\ncopy_bias = 6.0\nstop_strings = ['x']",
            "copy_bias = 0.5",
            "length_penalty = 0.5\nstop_strings = ['y', 'z']",
        ]);
        let expected = GenerationOptions {
            beams: 4,
            copy_bias: 0.5,
            length_penalty: Some(0.5),
            stop_strings: vec!["y".into(), "z".into()],
            ..Default::default()
        };
        assert_eq!(options, expected);
        assert_eq!(
            options.said(),
            layer("beams = 4\ncopy_bias = 0.5\nlength_penalty = 0.5\nstop_strings = ['y', 'z']")
        );
    }

    #[test]
    fn a_method_that_a_later_layer_chooses_takes_the_place_of_an_earlier_one() {
        let beams = "beams = 4\nlength_penalty = 0.5\nearly_stopping = 'never'\nn_best = 2\ncopy_bias = 6.0";
        let sampled = options(&[beams, "temperature = 0.7"]);
        assert_eq!(sampled, options(&["n_best = 2\ncopy_bias = 6.0\ntemperature = 0.7"]));
        sampled.validate().unwrap();

        assert_eq!(options(&[beams, "beams = 1"]), options(&["copy_bias = 6.0"]));
        assert_eq!(options(&[beams, "beams = 8"]).length_penalty, Some(0.5));

        let sampling = "temperature = 0.7\ntop_p = 0.9\nseed = 3";
        assert_eq!(options(&[sampling, "beams = 2"]), options(&["beams = 2"]));
        assert_eq!(options(&[sampling, "beams = 1"]), GenerationOptions::default());
    }

    #[test]
    fn one_layer_that_chooses_two_methods_is_still_refused() {
        assert!(options(&["beams = 4\ntemperature = 0.7"]).validate().is_err());
    }

    #[test]
    fn an_option_that_there_is_not_is_named() {
        let error = GenerationOptions::from_layers([&layer("beam = 4")]).unwrap_err().to_string();
        assert!(error.contains("unknown field `beam`"), "{error}");
    }

    #[test]
    fn a_job_files_section_sets_what_it_says() {
        let text = "bundle = 'b'\n[generation]\nbeams = 1\n[shard]\nmax_records = 8\n";
        assert_eq!(GenerationLayer::of_job_file(text), layer("beams = 1"));
        assert!(GenerationLayer::of_job_file("bundle = 'b'\n").is_empty());
        assert_eq!(layer("beams = 4\ncopy_bias = 6.0").to_string(), "beams = 4, copy_bias = 6");
    }
}
