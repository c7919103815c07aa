//! A pack: the outputs of one shard's segments in one object.
//!
//! Zstandard over lines of JSON: first the format, the scope and the day, then each segment's key with its
//! outputs, sorted by key. The object is named by the hash of its bytes, so it never changes, and damage is
//! noticed. Outputs are as the models wrote them: rules for texts, joining and judging come after.

use std::fmt;
use std::io::{BufRead, BufReader, Read};

use baton_generation::FinishReason;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::digest::{from_hex, hex};
use crate::{Scope, SegmentKey};

/// Version of the format.
const FORMAT: u32 = 1;
/// Fast, and half as large as the text.
const COMPRESSION_LEVEL: i32 = 3;
/// A pack that is larger, uncompressed, is not Baton's: a shard's inputs have at most 64 MiB.
const MAX_NUM_BYTES: u64 = 512 * 1024 * 1024;

/// One output of a segment, exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptOutput {
    /// The text, as the model wrote it.
    pub text: String,
    /// Its score.
    pub score: f64,
    /// Its tokens.
    pub tokens: u32,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The mean log-probability of its tokens.
    pub mean: f64,
    /// That of the most unlikely one.
    pub worst: f64,
}

/// The content of a pack, as far as a shard wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pack {
    /// When it was made: days since 1970.
    pub day: u64,
    /// The outputs of the wanted segments, best first.
    pub outputs: Vec<(SegmentKey, Vec<KeptOutput>)>,
}

/// Names a pack: the SHA-256 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackName([u8; 32]);

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its bytes have another hash than its name.
    #[error("its bytes have changed")]
    Changed,
    /// It is of another version or scope.
    #[error("it has format {format} and scope {scope}")]
    Alien {
        /// Its format.
        format: u32,
        /// Its scope.
        scope: String,
    },
    /// It is no pack.
    #[error("it cannot be read")]
    Unreadable(#[from] std::io::Error),
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    scope: String,
    day: u64,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    outputs: Vec<KeptOutput>,
}

impl KeptOutput {
    /// Whether JSON can hold it.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        [self.score, self.mean, self.worst].iter().all(|number| number.is_finite())
    }
}

impl Pack {
    /// The object that keeps these outputs, and its name. The same outputs on the same day make the same
    /// bytes, in whatever order they come.
    #[must_use]
    pub fn object(
        scope: Scope,
        day: u64,
        mut outputs: Vec<(SegmentKey, Vec<KeptOutput>)>,
    ) -> (PackName, Vec<u8>) {
        const PLAIN: &str = "outputs are finite, so they are plain data";
        outputs.sort_unstable_by_key(|(key, _)| *key);
        outputs.dedup_by_key(|(key, _)| *key);
        let head = Head { format: FORMAT, scope: scope.to_string(), day };
        let mut lines = serde_json::to_vec(&head).expect(PLAIN);
        lines.push(b'\n');
        for (key, outputs) in outputs {
            let entry = Entry { key: key.to_string(), outputs };
            serde_json::to_writer(&mut lines, &entry).expect(PLAIN);
            lines.push(b'\n');
        }
        let bytes = zstd::encode_all(&lines[..], COMPRESSION_LEVEL).expect("memory takes what is written");
        (PackName::of(&bytes), bytes)
    }

    /// Reads the outputs of wanted segments from the bytes found under `name`.
    ///
    /// # Errors
    /// The bytes are not those that the name promises, or no pack of this scope.
    pub fn read(
        bytes: &[u8],
        name: &PackName,
        scope: Scope,
        is_wanted: impl Fn(SegmentKey) -> bool,
    ) -> Result<Pack, PackError> {
        if PackName::of(bytes) != *name {
            return Err(PackError::Changed);
        }
        let mut lines = BufReader::new(zstd::Decoder::new(bytes)?.take(MAX_NUM_BYTES));
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line)?;
        let Head { format, scope: found, day } =
            serde_json::from_slice(&line).map_err(std::io::Error::from)?;
        if format != FORMAT || found != scope.to_string() {
            return Err(PackError::Alien { format, scope: found });
        }
        let mut outputs = Vec::new();
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                return Ok(Pack { day, outputs });
            }
            let Entry { key, outputs: of_segment } =
                serde_json::from_slice(&line).map_err(std::io::Error::from)?;
            let key = SegmentKey::from_hex(&key);
            let key = key.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
            if is_wanted(key) && !of_segment.is_empty() {
                outputs.push((key, of_segment));
            }
        }
    }
}

impl PackName {
    fn of(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        Self(std::array::from_fn(|place| hash[place]))
    }

    /// The name in a hook; `None` if it is none.
    #[must_use]
    pub fn parse(content: &[u8]) -> Option<Self> {
        from_hex(std::str::from_utf8(content).ok()?).map(Self)
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use baton_generation::GenerationOptions;
    use baton_text::View;
    use proptest::prelude::*;

    use super::*;
    use crate::{ScopeParts, SegmentKeys};

    fn scope(arithmetic: &str) -> Scope {
        let generation = GenerationOptions::default();
        let (bundle_digest, mode) = ("d", "slm");
        Scope::of(&ScopeParts { bundle_digest, mode, task: None, generation: &generation, arithmetic })
    }

    fn key(number: usize) -> SegmentKey {
        SegmentKeys::new("").of_view(&View { text: &number.to_string(), terms: Vec::new() }, None)
    }

    fn output(text: &str, score: f64) -> KeptOutput {
        let finish_reason = FinishReason::Length;
        KeptOutput {
            text: text.into(),
            score,
            tokens: 7,
            finish_reason,
            mean: score / 3.0,
            worst: 7.0 * score,
        }
    }

    fn outputs() -> Vec<(SegmentKey, Vec<KeptOutput>)> {
        (0..9).map(|number| (key(number), vec![output("a\n\"à\u{0}", -0.1), output("", 0.0)])).collect()
    }

    proptest! {
        #[test]
        fn outputs_survive_to_the_last_bit(text in ".*", score in -1e30_f64..1e30) {
            let kept = vec![(key(0), vec![output(&text, score), output(&text, f64::from(score as f32))])];
            let (name, bytes) = Pack::object(scope("f32"), 5, kept.clone());
            let pack = Pack::read(&bytes, &name, scope("f32"), |_| true).unwrap();
            prop_assert_eq!(pack, Pack { day: 5, outputs: kept });
        }
    }

    #[test]
    fn a_pack_has_the_same_bytes_in_any_order_and_is_read_in_part() {
        let (name, bytes) = Pack::object(scope("f32"), 5, outputs());
        let reversed = outputs().into_iter().rev().chain(outputs()).collect();
        assert_eq!(Pack::object(scope("f32"), 5, reversed), (name, bytes.clone()));
        let pack = Pack::read(&bytes, &name, scope("f32"), |wanted| wanted == key(3)).unwrap();
        assert_eq!(pack.outputs, [outputs()[3].clone()]);
        assert_eq!(PackName::parse(name.to_string().as_bytes()), Some(name));
    }

    #[test]
    fn a_damaged_or_alien_pack_is_refused_whole() {
        let (name, bytes) = Pack::object(scope("f32"), 5, outputs());
        let read = |bytes: &[u8], scope| Pack::read(bytes, &PackName::of(bytes), scope, |_| true);
        let of_other_scope = read(&bytes, scope("int8")).unwrap_err();
        assert!(matches!(of_other_scope, PackError::Alien { format: 1, .. }), "{of_other_scope}");
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let error = Pack::read(&changed, &name, scope("f32"), |_| true).unwrap_err();
            assert!(matches!(error, PackError::Changed), "{error}");
        }
        for end in [0, 1, bytes.len() - 1] {
            assert!(matches!(read(&bytes[..end], scope("f32")), Err(PackError::Unreadable(_))), "{end}");
        }
        let lines = |lines: &str| zstd::encode_all(lines.as_bytes(), 0).unwrap();
        let head = format!("{{\"format\":1,\"scope\":\"{}\",\"day\":5}}\n", scope("f32"));
        assert!(read(&lines(&head), scope("f32")).unwrap().outputs.is_empty());
        for rest in ["{\"key\":\"x\",\"outputs\":[]}\n", "{\"key\":", "[]"] {
            let error = read(&lines(&format!("{head}{rest}")), scope("f32")).unwrap_err();
            assert!(matches!(error, PackError::Unreadable(_)), "{error}");
        }
        let next_format = read(&lines(&head.replace("\"format\":1", "\"format\":2")), scope("f32"));
        assert!(matches!(next_format, Err(PackError::Alien { format: 2, .. })));
    }
}
