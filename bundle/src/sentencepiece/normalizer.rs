//! Normalizes a text before it is cut into pieces: a compiled table replaces characters; spaces are trimmed,
//! joined and marked with "▁". Each byte of the result knows its origin.
//!
//! Reference: `normalizer.cc` of google/sentencepiece; the table is a double array by darts-clone.

use super::{SPACE_MARK, model_file::Normalization, piece_trie::PieceTrie};

/// The rules of one model.
#[derive(Debug, Clone)]
pub(super) struct Normalizer {
    table: Option<CharacterTable>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    /// The place of the dummy space: after the text, or before it.
    whitespace_as_suffix: bool,
    /// Texts that stay unchanged.
    untouched: PieceTrie,
}

/// A text after normalization.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) text: String,
    /// For each byte of `text`, and for its end: the place in the original text, in bytes.
    pub(super) origins: Vec<usize>,
}

impl Normalized {
    fn push(&mut self, text: &str, origin: usize) {
        self.text.push_str(text);
        self.origins.resize(self.text.len(), origin);
    }
}

impl Normalizer {
    pub(super) fn new(
        rules: Option<&Normalization>,
        whitespace_as_suffix: bool,
        untouched: PieceTrie,
    ) -> Result<Self, String> {
        let rules = rules.cloned().unwrap_or_default();
        let table = rules.precompiled_charsmap.filter(|bytes| !bytes.is_empty());
        Ok(Self {
            table: table.map(|bytes| CharacterTable::new(&bytes)).transpose()?,
            add_dummy_prefix: rules.add_dummy_prefix.unwrap_or(true),
            remove_extra_whitespaces: rules.remove_extra_whitespaces.unwrap_or(true),
            escape_whitespaces: rules.escape_whitespaces.unwrap_or(true),
            whitespace_as_suffix,
            untouched,
        })
    }

    /// Whether a decoded text begins without the space that its first piece marks.
    pub(super) fn first_space_is_added(&self) -> bool {
        self.add_dummy_prefix || self.remove_extra_whitespaces
    }

    /// Whether all spaces that begin a decoded text are left out.
    pub(super) fn removes_extra_whitespaces(&self) -> bool {
        self.remove_extra_whitespaces
    }

    pub(super) fn normalize(&self, text: &str) -> Normalized {
        let mut result = Normalized::default();
        let mut consumed = 0;
        if self.remove_extra_whitespaces {
            while consumed < text.len() {
                let (replacement, len) = self.first_replaced(&text[consumed..]);
                if replacement != " " {
                    break;
                }
                consumed += len;
            }
        }
        if consumed == text.len() {
            result.origins.push(consumed);
            return result;
        }
        let space = if self.escape_whitespaces { SPACE_MARK } else { " " };
        if self.add_dummy_prefix && !self.whitespace_as_suffix {
            result.push(space, consumed);
        }
        let mut is_behind_space = self.remove_extra_whitespaces;
        while consumed < text.len() {
            let (mut replacement, len) = self.first_replaced(&text[consumed..]);
            if is_behind_space {
                replacement = replacement.trim_start_matches(' ');
            }
            if !replacement.is_empty() {
                for (index, part) in replacement.split(' ').enumerate() {
                    if index > 0 {
                        result.push(space, consumed);
                    }
                    result.push(part, consumed);
                }
                is_behind_space = replacement.ends_with(' ');
            }
            consumed += len;
            is_behind_space &= self.remove_extra_whitespaces;
        }
        if self.remove_extra_whitespaces {
            while result.text.ends_with(space) {
                let len = result.text.len() - space.len();
                consumed = result.origins[len];
                result.text.truncate(len);
                result.origins.truncate(len);
            }
        }
        if self.add_dummy_prefix && self.whitespace_as_suffix {
            result.push(space, consumed);
        }
        result.origins.push(consumed);
        result
    }

    /// The replacement for the beginning of `text`, which is not empty, and the number of bytes that it
    /// replaces.
    fn first_replaced<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if let Some(len) = self.untouched.longest_prefix(text.as_bytes()) {
            return (&text[..len], len);
        }
        if let Some(found) = self.table.as_ref().and_then(|table| table.first_replaced(text)) {
            return found;
        }
        let len = text.chars().next().map_or(0, char::len_utf8);
        (&text[..len], len)
    }
}

/// The compiled table: a double array from texts to places in a list of replacements.
#[derive(Debug, Clone)]
struct CharacterTable {
    units: Vec<u32>,
    replacements: String, // each ended by a zero byte
}

impl CharacterTable {
    /// `bytes`: the array's size in bytes (u32), the array, the replacements; little-endian.
    fn new(bytes: &[u8]) -> Result<Self, String> {
        let problem = || "its table of characters is cut or broken".to_owned();
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(problem)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (array, replacements) = rest.split_at_checked(size).ok_or_else(problem)?;
        let (units, rest) = array.as_chunks::<4>();
        if units.is_empty() || !rest.is_empty() {
            return Err(problem());
        }
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements = String::from_utf8(replacements.to_vec()).map_err(|_| problem())?;
        Ok(Self { units, replacements })
    }

    /// The longest entry that `text` begins with: its replacement and its length.
    fn first_replaced(&self, text: &str) -> Option<(&str, usize)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut place = offset(self.units[0]);
        let mut longest = None;
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            place ^= u32::from(byte);
            let Some(&unit) = self.units.get(place as usize) else { break };
            if unit & ((1 << 31) | 0xff) != u32::from(byte) {
                break;
            }
            place ^= offset(unit);
            let has_value = (unit >> 8) & 1 == 1;
            if let Some(&value) = self.units.get(place as usize).filter(|_| has_value) {
                longest = Some((value & !(1 << 31), index + 1));
            }
        }
        let (start, len) = longest.filter(|&(_, len)| text.is_char_boundary(len))?;
        let replacement = self.replacements.get(start as usize..)?;
        Some((&replacement[..replacement.find('\0').unwrap_or(replacement.len())], len))
    }
}
