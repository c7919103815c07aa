//! Options in job files, `bundle.json`, `_baton/job.json` and on the wire: maps from names to values.
//!
//! A layer has only its own values; resolved options have all fields, null if one is absent. Reading refuses
//! unknown names and values that are not allowed, by name. Writing refuses numbers that are not finite,
//! because JSON would turn them into null.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{GenerationLayer, GenerationOptions, Given, OPTIONS, OptionInfo};

/// The names that [`de::Error::unknown_field`] lists.
const NAMES: [&str; OPTIONS.len()] = {
    let mut names = [""; OPTIONS.len()];
    let mut place = 0;
    while place < names.len() {
        names[place] = OPTIONS[place].name;
        place += 1;
    }
    names
};

impl Serialize for GenerationLayer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let said: Vec<_> = self.said().collect();
        let mut map = serializer.serialize_map(Some(said.len()))?;
        for (option, given) in said {
            match given {
                Given::Null => map.serialize_entry(option.name, "none")?,
                given => map.serialize_entry(option.name, &given)?,
            }
        }
        map.end()
    }
}

impl Serialize for GenerationOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(OPTIONS.len()))?;
        for (option, given) in OPTIONS.iter().zip(self.given()) {
            map.serialize_entry(option.name, &given)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for GenerationLayer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LayerVisitor)
    }
}

impl<'de> Deserialize<'de> for GenerationOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let options = GenerationLayer::deserialize(deserializer)?.with_defaults();
        options.validate().map_err(de::Error::custom)?;
        Ok(options)
    }
}

struct LayerVisitor;

impl<'de> Visitor<'de> for LayerVisitor {
    type Value = GenerationLayer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("generation options by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<GenerationLayer, A::Error> {
        let mut layer = GenerationLayer::default();
        while let Some(option) = map.next_key_seed(NameSeed)? {
            if layer.says(option) {
                return Err(de::Error::duplicate_field(option.name));
            }
            map.next_value_seed(ValueSeed(option, &mut layer))?;
        }
        Ok(layer)
    }
}

/// Reads the name of an option.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = &'static OptionInfo;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(deserializer)?;
        OptionInfo::named(&name).ok_or_else(|| de::Error::unknown_field(&name, &NAMES))
    }
}

/// Reads an option's value into a layer. Fails at the value, so that a parser can report the line.
struct ValueSeed<'l>(&'static OptionInfo, &'l mut GenerationLayer);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self(option, layer) = self;
        let given = deserializer.deserialize_any(GivenVisitor)?;
        layer.set(option, &given).map_err(de::Error::custom)
    }
}

impl Serialize for Given {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Truth(truth) => serializer.serialize_bool(*truth),
            Self::Integer(integer) => match u64::try_from(*integer) {
                Ok(integer) => serializer.serialize_u64(integer),
                Err(_) => Err(S::Error::custom(format!("no option has the value {integer}"))),
            },
            Self::Number(number) if number.is_finite() => serializer.serialize_f64(*number),
            Self::Number(number) => Err(S::Error::custom(format!("{number} is not a finite number"))),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Texts(texts) => texts.serialize(serializer),
        }
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, true or false, a text, or a list of texts")
    }

    fn visit_unit<E>(self) -> Result<Given, E> {
        Ok(Given::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Given, E> {
        Ok(Given::Truth(truth))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Given, E> {
        Ok(Given::Integer(integer.into()))
    }

    fn visit_u64<E>(self, integer: u64) -> Result<Given, E> {
        Ok(Given::Integer(integer.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Given, E> {
        Ok(Given::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Given, E> {
        Ok(Given::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Given, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = sequence.next_element()? {
            texts.push(text);
        }
        Ok(Given::Texts(texts))
    }
}
