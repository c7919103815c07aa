//! Everything that decides a segment's outputs, in two names: the segment's own part, which an encoder knows,
//! and the part of the whole job, which a decoder knows. Equal names mean equal outputs.
//!
//! Anything else that comes to decide outputs belongs here. A new generation option is here by itself, unless
//! it joins [`BEFORE_OR_AFTER`]. A new field of a [`View`] does not compile before it is here.

use std::fmt;
use std::ops::Range;

use baton_generation::{GenerationOptions, LanguageChoice};
use baton_text::View;

use crate::digest::{Fields, from_hex, hex};

/// Version of Baton's decoding. Raise it with every change that gives other outputs for the same models,
/// options and texts; kept outputs of earlier versions are then not found.
const DECODING_VERSION: u64 = 2;

/// Bytes of a key.
pub const KEY_NUM_BYTES: usize = 16;

/// Options that act on a text before the models see it, or on outputs after they are written. A [`View`]
/// shows what the former left; kept outputs come before the latter. All other options are part of a scope.
const BEFORE_OR_AFTER: [&str; 7] =
    ["other_language", "protect", "quality", "review", "strict", "terms", "unprotected"];

/// Names a segment's outputs within a [`Scope`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentKey([u8; KEY_NUM_BYTES]);

/// Names a record whose segments are read together: all that the models see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKey([u8; KEY_NUM_BYTES]);

/// Names everything that decides outputs beside the segments: bundle, mode, template, options, arithmetic of
/// the writing model, and Baton's version.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope([u8; KEY_NUM_BYTES]);

/// The parts of a scope.
#[derive(Debug, Clone, Copy)]
pub struct ScopeParts<'a> {
    /// SHA-256 of the bundle's manifest, which has the hashes of all its files.
    pub bundle_digest: &'a str,
    /// The mode.
    pub mode: &'a str,
    /// The prompt template.
    pub task: Option<&'a str>,
    /// The options.
    pub generation: &'a GenerationOptions,
    /// How the writing model computes, such as `int8 on a CPU`. Machines of one kind may still differ in the
    /// last bits of floating-point sums: outputs are then those of one of them.
    pub arithmetic: &'a str,
}

/// Makes the keys of segments.
#[derive(Debug, Clone)]
pub struct SegmentKeys {
    /// Over everything that all keys begin with.
    start: Fields,
}

impl SegmentKeys {
    /// Of segments that are read with this arithmetic.
    #[must_use]
    pub fn new(arithmetic: &str) -> Self {
        Self { start: Fields::of("segment").with(arithmetic.as_bytes()) }
    }

    /// The same, of segments whose records name languages of their own.
    #[must_use]
    pub fn speaking(&self, languages: &LanguageChoice) -> Self {
        if languages.is_empty() {
            return self.clone();
        }
        let LanguageChoice { source, target } = languages;
        let start = Fields::of("segment in languages").with(&self.start.clone().name());
        let start = start.with_any(source.as_ref().map(String::as_bytes));
        Self { start: start.with_any(target.as_ref().map(String::as_bytes)) }
    }

    /// The key of a segment that is read by itself; `max_new_tokens` is its record's own limit.
    #[must_use]
    pub fn of_view(&self, view: &View<'_>, max_new_tokens: Option<u32>) -> SegmentKey {
        let View { text, terms } = view;
        let limit = max_new_tokens.map(u32::to_le_bytes);
        let fields =
            self.start.clone().with(text.as_bytes()).with_any(limit.as_ref().map(|limit| &limit[..]));
        let fields = terms
            .iter()
            .fold(fields.with_number(terms.len() as u64), |fields, term| fields.with(term.as_bytes()));
        SegmentKey(fields.name())
    }

    /// The key of a record that is read as a whole: its text, and the places of its segments there.
    #[must_use]
    pub fn of_record(text: &str, segments: &[Range<usize>]) -> RecordKey {
        let fields = Fields::of("record").with(text.as_bytes());
        let fields = segments.iter().fold(fields, |fields, segment| {
            fields.with_number(segment.start as u64).with_number(segment.end as u64)
        });
        RecordKey(fields.name())
    }
}

impl SegmentKey {
    /// The key of the same segment if it is read as part of a record: its `number`th, from 0.
    #[must_use]
    pub fn within(self, record: RecordKey, number: usize) -> SegmentKey {
        SegmentKey(Fields::of("in record").with(&self.0).with(&record.0).with_number(number as u64).name())
    }

    /// The bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; KEY_NUM_BYTES] {
        self.0
    }

    /// The key of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_NUM_BYTES]) -> Self {
        Self(bytes)
    }

    /// The key in hexadecimal; `None` if it is none.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        from_hex(digits).map(Self)
    }
}

impl Scope {
    /// The scope of these parts.
    #[must_use]
    pub fn of(parts: &ScopeParts<'_>) -> Self {
        let &ScopeParts { bundle_digest, mode, task, generation, arithmetic } = parts;
        let fields = Fields::of("scope")
            .with_number(DECODING_VERSION)
            .with(env!("CARGO_PKG_VERSION").as_bytes())
            .with(bundle_digest.as_bytes())
            .with(mode.as_bytes())
            .with_any(task.map(str::as_bytes))
            .with(arithmetic.as_bytes());
        let options =
            serde_json::to_value(generation).expect("options are validated, so they are plain data");
        let options = options.as_object().expect("options are a map by name");
        let deciding = options.iter().filter(|(name, _)| !BEFORE_OR_AFTER.contains(&name.as_str()));
        let fields = deciding.fold(fields, |fields, (name, value)| {
            fields.with(name.as_bytes()).with(value.to_string().as_bytes())
        });
        Self(fields.name())
    }

    /// The same within one job, for what only one job shares.
    #[must_use]
    pub fn of_job(self, job_id: &str) -> Self {
        Self(Fields::of("scope of a job").with(&self.0).with(job_id.as_bytes()).name())
    }
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentKey({self})")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use baton_generation::{GenerationLayer, OPTIONS};
    use serde_json::{Value, json};

    use super::*;

    fn parts(generation: &GenerationOptions) -> ScopeParts<'_> {
        ScopeParts {
            bundle_digest: "d1",
            mode: "hybrid",
            task: None,
            generation,
            arithmetic: "int8 on a CPU",
        }
    }

    fn options(json: &Value) -> GenerationOptions {
        let layer: GenerationLayer = serde_json::from_value(json.clone()).unwrap();
        GenerationOptions::from_layers([&layer]).unwrap()
    }

    /// Another value than the default for an option, with what it needs beside it.
    fn changed(name: &str) -> Value {
        let mut given = serde_json::Map::new();
        match name {
            "length_penalty" | "early_stopping" => drop(given.insert("beams".into(), json!(2))),
            "seed" => drop(given.insert("top_k".into(), json!(5))),
            "n_best" => drop(given.insert("beams".into(), json!(4))),
            _ => {}
        }
        let candidates = [
            json!(2),
            json!(0.5),
            json!(true),
            json!("eng_Latn"),
            json!(["x"]),
            json!("never"),
            json!("record"),
            json!("copy"),
            json!("signals"),
            json!("html"),
            json!(["emoji"]),
        ];
        for candidate in candidates {
            given.insert(name.to_owned(), candidate);
            let parsed = serde_json::from_value::<GenerationLayer>(Value::Object(given.clone()));
            let is_valid = |layer: &GenerationLayer| GenerationOptions::from_layers([layer]).is_ok();
            if parsed.is_ok_and(|layer| is_valid(&layer)) {
                return Value::Object(given);
            }
        }
        panic!("add a value of `{name}` to the candidates");
    }

    #[test]
    fn every_option_is_part_of_the_scope_unless_it_acts_before_or_after() {
        for option in OPTIONS {
            let with = changed(option.name);
            let mut without = with.clone();
            without.as_object_mut().unwrap().remove(option.name);
            let [with, without] = [with, without].map(|json| Scope::of(&parts(&options(&json))));
            let is_exempt = BEFORE_OR_AFTER.contains(&option.name);
            assert_eq!(with == without, is_exempt, "{}", option.name);
        }
        let is_option = |name: &&str| OPTIONS.iter().any(|option| option.name == *name);
        assert!(BEFORE_OR_AFTER.iter().all(is_option), "an option is gone");
    }

    #[test]
    fn everything_else_that_decides_outputs_is_part_of_the_scope() {
        let generation = GenerationOptions::default();
        let parts = parts(&generation);
        let scopes = [
            parts,
            ScopeParts { bundle_digest: "d2", ..parts },
            ScopeParts { mode: "slm", ..parts },
            ScopeParts { task: Some("formal"), ..parts },
            ScopeParts { arithmetic: "bf16 on a CPU", ..parts },
        ];
        let names: HashSet<Scope> = scopes.iter().map(Scope::of).collect();
        assert_eq!(names.len(), scopes.len());
        let scope = Scope::of(&parts);
        assert_eq!(Scope::of(&parts), scope);
        assert_ne!(scope.of_job("out/1"), scope.of_job("out/2"));
    }

    #[test]
    fn a_key_tells_texts_terms_limits_records_languages_and_arithmetic_apart() {
        let (keys, other_keys) = (SegmentKeys::new("int8"), SegmentKeys::new("f32"));
        let view = |text, terms: &[&'static str]| View { text, terms: terms.to_vec() };
        let alone = keys.of_view(&view("open the disk", &[]), None);
        let one = SegmentKeys::of_record("Open. Open.", &[0..5, 6..11]);
        let other = SegmentKeys::of_record("Open. Open.", &[0..11]);
        let speaking = |source: Option<&str>, target: Option<&str>| {
            let [source, target] = [source, target].map(|code| code.map(str::to_owned));
            keys.speaking(&LanguageChoice { source, target }).of_view(&view("open the disk", &[]), None)
        };
        assert_eq!(speaking(None, None), alone);
        let names = [
            speaking(Some("it"), None),
            speaking(None, Some("it")),
            speaking(Some("en"), Some("it")),
            alone,
            other_keys.of_view(&view("open the disk", &[]), None),
            keys.of_view(&view("open a disk", &[]), None),
            keys.of_view(&view("open the disk", &["disk"]), None),
            keys.of_view(&view("open the disk", &["di", "sk"]), None),
            keys.of_view(&view("open the disk", &[]), Some(8)),
            alone.within(one, 0),
            alone.within(one, 1),
            alone.within(other, 0),
        ];
        let distinct: HashSet<SegmentKey> = names.into_iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert_eq!(keys.of_view(&view("open the disk", &[]), None), alone);
    }

    #[test]
    fn a_key_survives_its_bytes_and_its_digits() {
        let key = SegmentKeys::new("f32").of_view(&View { text: "x", terms: Vec::new() }, None);
        assert_eq!(SegmentKey::from_bytes(key.to_bytes()), key);
        assert_eq!(SegmentKey::from_hex(&key.to_string()), Some(key));
        assert_eq!(SegmentKey::from_hex("x"), None);
    }
}
