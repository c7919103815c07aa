//! Blocks with sliding attention: `layer_types` and `sliding_window`.

use serde_json::Value;

use super::{ModelConfig, UnsupportedSetting, fields::Fields};

/// Blocks whose tokens see only so far back, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingLayers {
    /// Tokens that a token sees, itself included.
    pub window: usize,
    /// For each block, whether the window holds there.
    pub layers: Vec<bool>,
}

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

impl SlidingLayers {
    /// Reads `layer_types`, or takes `default` for each block where the file has none. `window` is the file's
    /// `sliding_window`.
    ///
    /// Returns none if no block has a window.
    pub(super) fn read(
        fields: &Fields<'_>,
        window: Option<usize>,
        default: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>, UnsupportedSetting> {
        let num_layers = fields.size("num_hidden_layers")?.min(1000);
        let supported = "a list of \"full_attention\" and \"sliding_attention\", one for each layer";
        let layers: Vec<bool> = match fields.get("layer_types") {
            None => (0..num_layers).map(default).collect(),
            Some(Value::Array(types)) if types.len() == num_layers => types
                .iter()
                .enumerate()
                .map(|(layer, kind)| match kind.as_str() {
                    Some(SLIDING) => Ok(true),
                    Some(FULL) => Ok(false),
                    _ => {
                        let supported = "\"full_attention\" or \"sliding_attention\"";
                        Err(UnsupportedSetting::new(format!("layer_types[{layer}]"), kind, supported))
                    }
                })
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(UnsupportedSetting::new("layer_types", other, supported)),
        };
        match (layers.contains(&true), window) {
            (false, _) => Ok(None),
            (true, Some(window)) if window > 0 => Ok(Some(Self { window, layers })),
            (true, Some(window)) => {
                Err(UnsupportedSetting::new("sliding_window", &window, "a number of at least 1"))
            }
            (true, None) => {
                let supported = "a number where layers have sliding attention";
                Err(UnsupportedSetting::new("sliding_window", &"missing", supported))
            }
        }
    }

    /// The window of a block, if it has one.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.layers.get(layer).is_some_and(|&sliding| sliding).then_some(self.window)
    }

    /// The field `layer_types`.
    fn types(sliding: Option<&Self>, num_layers: usize) -> Value {
        let name = |layer| match sliding.and_then(|sliding| sliding.window(layer)) {
            Some(_) => SLIDING,
            None => FULL,
        };
        (0..num_layers).map(name).collect()
    }

    /// The fields `sliding_window` and `layer_types`.
    pub(super) fn fields(sliding: Option<&Self>, num_layers: usize) -> [(&'static str, Value); 2] {
        let window = sliding.map(|sliding| sliding.window);
        [("sliding_window", window.into()), ("layer_types", Self::types(sliding, num_layers))]
    }

    /// Refuses a list for another number of blocks, as a config made in memory may have.
    pub(super) fn check(sliding: Option<&Self>, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        match sliding {
            Some(sliding) if sliding.layers.len() != config.num_hidden_layers => {
                let supported = "one entry for each layer";
                Err(UnsupportedSetting::new("layer_types", &format!("{:?}", sliding.layers), supported))
            }
            _ => Ok(()),
        }
    }
}
