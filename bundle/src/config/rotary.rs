//! Rotary positions in a `config.json`: base, partial rotation and scaling, wherever a version of
//! transformers writes them.

use serde_json::{Map, Value, json};

use super::{
    UnsupportedSetting,
    fields::Fields,
    rope_scaling::{LongRope, RopeScaling, Yarn},
};

/// The rotation of queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Part of a head's channels that is rotated: the first ones.
    pub partial_factor: f64,
    /// The change of the frequencies for long contexts.
    pub scaling: RopeScaling,
}

impl RotaryConfig {
    /// All channels, without scaling.
    #[must_use]
    pub fn plain(theta: f64) -> Self {
        Self { theta, partial_factor: 1.0, scaling: RopeScaling::None }
    }

    /// Channels of a head of `head_dim` that are rotated.
    #[must_use]
    pub fn rotated_channels(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial_factor) as usize
    }

    /// The frequency of each pair of rotated channels, in radians a position.
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        self.scaling.frequencies(self.theta, self.rotated_channels(head_dim) / 2)
    }

    /// Factor of sines and cosines.
    #[must_use]
    pub fn attention_factor(&self) -> f64 {
        self.scaling.attention_factor()
    }

    /// Positions from which on queries would need more than a rotation by their position.
    pub(super) fn max_positions(&self) -> Option<usize> {
        match &self.scaling {
            RopeScaling::LongRope(long) => Some(long.original_positions),
            RopeScaling::Yarn(yarn) => yarn.query_growth.map(|_| yarn.original_positions),
            _ => None,
        }
    }

    /// Refuses what [`rotated_channels`](Self::rotated_channels) of a head cannot be.
    pub(super) fn check(&self, head_dim: usize) -> Result<(), UnsupportedSetting> {
        let rotated = self.rotated_channels(head_dim);
        if !head_dim.is_multiple_of(2) {
            return Err(UnsupportedSetting::new("head_dim", &head_dim, "an even number"));
        }
        if rotated == 0 || rotated > head_dim || !rotated.is_multiple_of(2) {
            let supported = "a share of head_dim that is an even number of channels";
            return Err(UnsupportedSetting::new("partial_rotary_factor", &self.partial_factor, supported));
        }
        match &self.scaling {
            RopeScaling::LongRope(long) if long.short_factors.len() != rotated / 2 => {
                let (found, supported) = (long.short_factors.len(), "a factor for each pair of channels");
                Err(UnsupportedSetting::new("rope_scaling.short_factor", &found, supported))
            }
            _ => Ok(()),
        }
    }

    /// Reads them at the top level and from either of the two maps. `theta`: the family's default.
    pub(super) fn read(fields: &Fields<'_>, theta: f64) -> Result<Self, UnsupportedSetting> {
        let mut rotary = Self {
            theta: fields.positive("rope_theta", theta)?,
            partial_factor: fields.positive("partial_rotary_factor", 1.0)?,
            scaling: RopeScaling::None,
        };
        for field in ["rope_scaling", "rope_parameters"] {
            if let Some(map) = fields.get(field) {
                rotary.read_map(fields, field, map)?;
            }
        }
        Ok(rotary)
    }

    /// Takes what a map says. `field`: its path.
    pub(super) fn read_map(
        &mut self,
        fields: &Fields<'_>,
        field: &str,
        map: &Value,
    ) -> Result<(), UnsupportedSetting> {
        let Value::Object(map) = map else {
            return Err(UnsupportedSetting::new(field, map, "a map with rope_type and rope_theta"));
        };
        let map = RopeMap { field, map };
        self.theta = map.positive("rope_theta")?.unwrap_or(self.theta);
        self.partial_factor = map.positive("partial_rotary_factor")?.unwrap_or(self.partial_factor);
        let kind = map.kind()?;
        let known: &[&str] = match kind {
            "linear" => &["factor"],
            "llama3" => {
                &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
            }
            "yarn" => &[
                "factor",
                "beta_fast",
                "beta_slow",
                "original_max_position_embeddings",
                "attention_factor",
                "mscale",
                "mscale_all_dim",
                "truncate",
                "llama_4_scaling_beta",
                "max_position_embeddings",
            ],
            "longrope" => &[
                "factor",
                "short_factor",
                "long_factor",
                "original_max_position_embeddings",
                "attention_factor",
            ],
            _ => &[],
        };
        map.refuse_others(known)?;
        self.scaling = match kind {
            "linear" => RopeScaling::Linear { factor: map.required("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: map.required("factor")?,
                low_freq_factor: map.required("low_freq_factor")?,
                high_freq_factor: map.required("high_freq_factor")?,
                original_positions: map.original_positions(fields)?,
            },
            "yarn" => RopeScaling::Yarn(map.yarn(fields)?),
            "longrope" => RopeScaling::LongRope(map.long_rope(fields)?),
            _ => RopeScaling::None,
        };
        Ok(())
    }

    /// The map that [`read_map`](Self::read_map) reads.
    pub(super) fn to_map(&self) -> Value {
        let mut map = json!({"rope_theta": self.theta});
        let kind = match &self.scaling {
            RopeScaling::None => "default",
            RopeScaling::Linear { factor } => {
                map["factor"] = (*factor).into();
                "linear"
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
                map["factor"] = (*factor).into();
                map["low_freq_factor"] = (*low_freq_factor).into();
                map["high_freq_factor"] = (*high_freq_factor).into();
                map["original_max_position_embeddings"] = (*original_positions).into();
                "llama3"
            }
            RopeScaling::Yarn(yarn) => {
                map["factor"] = yarn.factor.into();
                map["beta_fast"] = yarn.beta_fast.into();
                map["beta_slow"] = yarn.beta_slow.into();
                map["original_max_position_embeddings"] = yarn.original_positions.into();
                map["truncate"] = yarn.truncate.into();
                if let Some(factor) = yarn.attention_factor {
                    map["attention_factor"] = factor.into();
                }
                if let Some(growth) = yarn.query_growth {
                    map["llama_4_scaling_beta"] = growth.into();
                }
                if let Some([scale, scale_of_all]) = yarn.mscales {
                    map["mscale"] = scale.into();
                    map["mscale_all_dim"] = scale_of_all.into();
                }
                "yarn"
            }
            RopeScaling::LongRope(long) => {
                map["short_factor"] = long.short_factors.clone().into();
                map["long_factor"] = long.long_factors.clone().into();
                map["factor"] = long.factor.into();
                map["original_max_position_embeddings"] = long.original_positions.into();
                if let Some(factor) = long.attention_factor {
                    map["attention_factor"] = factor.into();
                }
                "longrope"
            }
        };
        map["rope_type"] = kind.into();
        if self.partial_factor != 1.0 {
            map["partial_rotary_factor"] = self.partial_factor.into();
        }
        map
    }

    /// Both spellings: releases of transformers before 5 know `rope_theta` and `rope_scaling`, later ones
    /// `rope_parameters`.
    pub(super) fn write(&self) -> Vec<(&'static str, Value)> {
        let map = self.to_map();
        let mut fields = vec![("rope_theta", self.theta.into())];
        if self.partial_factor != 1.0 {
            fields.push(("partial_rotary_factor", self.partial_factor.into()));
        }
        if self.scaling != RopeScaling::None {
            fields.push(("rope_scaling", map.clone()));
        }
        if let RopeScaling::LongRope(long) = &self.scaling {
            fields.push(("original_max_position_embeddings", long.original_positions.into()));
        }
        fields.push(("rope_parameters", map));
        fields
    }
}

/// A map of rotary settings, and its path in the file.
struct RopeMap<'a> {
    field: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> RopeMap<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn refused(
        &self,
        key: &str,
        value: &dyn std::fmt::Display,
        supported: &'static str,
    ) -> UnsupportedSetting {
        UnsupportedSetting::new(format!("{}.{key}", self.field), value, supported)
    }

    fn kind(&self) -> Result<&'a str, UnsupportedSetting> {
        let mut kind = "default";
        for key in ["type", "rope_type"] {
            if let Some(value) = self.get(key) {
                kind = match value.as_str() {
                    // The name that Phi-3 first had for it.
                    Some("su") => "longrope",
                    Some(known @ ("default" | "linear" | "llama3" | "yarn" | "longrope")) => known,
                    _ => {
                        return Err(self.refused(key, value, "default, linear, llama3, yarn or longrope"));
                    }
                };
            }
        }
        Ok(kind)
    }

    fn refuse_others(&self, known: &[&str]) -> Result<(), UnsupportedSetting> {
        const OF_ALL: [&str; 4] = ["type", "rope_type", "rope_theta", "partial_rotary_factor"];
        let is_unknown = |key: &str| !OF_ALL.contains(&key) && !known.contains(&key);
        match self.map.iter().find(|(key, value)| is_unknown(key) && !value.is_null()) {
            None => Ok(()),
            Some((key, value)) => Err(self.refused(key, value, "what its rope_type is known to need")),
        }
    }

    fn positive(&self, key: &str) -> Result<Option<f64>, UnsupportedSetting> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
            _ => Err(self.refused(key, value, "a positive number")),
        }
    }

    fn required(&self, key: &str) -> Result<f64, UnsupportedSetting> {
        self.positive(key)?.ok_or_else(|| self.refused(key, &"missing", "a positive number"))
    }

    fn factors(&self, key: &str) -> Result<Vec<f64>, UnsupportedSetting> {
        let value = self.get(key);
        let numbers = value.and_then(Value::as_array).and_then(|list| {
            let positive = |value: &Value| value.as_f64().filter(|&number| number > 0.0);
            list.iter().map(positive).collect::<Option<Vec<f64>>>()
        });
        let found = || value.map_or("missing".to_owned(), ToString::to_string);
        numbers.ok_or_else(|| self.refused(key, &found(), "a list of positive numbers"))
    }

    /// The length before the stretching: in the map, beside it, or else the model's longest sequence.
    fn original_positions(&self, fields: &Fields<'_>) -> Result<usize, UnsupportedSetting> {
        const KEY: &str = "original_max_position_embeddings";
        let found = match self.get(KEY) {
            Some(value) => value.as_u64().and_then(|size| usize::try_from(size).ok()),
            None => match fields.optional_size(KEY)? {
                Some(size) => Some(size),
                None => fields.optional_size("max_position_embeddings")?,
            },
        };
        let found = found.filter(|size| (2..=1 << 24).contains(size));
        found.ok_or_else(|| self.refused(KEY, &"missing or out of bounds", "a number from 2 to 2^24"))
    }

    /// How much longer sequences become; by the two lengths if the map does not say.
    fn factor(&self, fields: &Fields<'_>) -> Result<f64, UnsupportedSetting> {
        if let Some(factor) = self.positive("factor")? {
            return Ok(factor);
        }
        let longest = fields.size("max_position_embeddings")?;
        Ok(longest as f64 / self.original_positions(fields)? as f64)
    }

    fn yarn(&self, fields: &Fields<'_>) -> Result<Yarn, UnsupportedSetting> {
        let mscales = [self.positive("mscale")?, self.positive("mscale_all_dim")?];
        let truncate = match self.get("truncate") {
            None => true,
            Some(value) => value.as_bool().ok_or_else(|| self.refused("truncate", value, "true or false"))?,
        };
        Ok(Yarn {
            factor: self.factor(fields)?,
            beta_fast: self.positive("beta_fast")?.unwrap_or(32.0),
            beta_slow: self.positive("beta_slow")?.unwrap_or(1.0),
            original_positions: self.original_positions(fields)?,
            attention_factor: self.positive("attention_factor")?,
            mscales: match mscales {
                [Some(scale), Some(scale_of_all)] => Some([scale, scale_of_all]),
                _ => None,
            },
            truncate,
            query_growth: self.positive("llama_4_scaling_beta")?,
        })
    }

    fn long_rope(&self, fields: &Fields<'_>) -> Result<LongRope, UnsupportedSetting> {
        Ok(LongRope {
            short_factors: self.factors("short_factor")?,
            long_factors: self.factors("long_factor")?,
            factor: self.factor(fields)?,
            original_positions: self.original_positions(fields)?,
            attention_factor: self.positive("attention_factor")?,
        })
    }
}
