//! The spelling of a model's output tokens.

use std::collections::HashMap;

/// The spelling of a model's output tokens.
#[derive(Debug, Default)]
pub struct Vocabulary {
    /// By token.
    spellings: Vec<Vec<u8>>,
    tokens: HashMap<Vec<u8>, u32>,
    /// Bytes of the longest spelling.
    max_num_bytes: usize,
    /// Tokens that begin with a letter or digit, so that they run on with the word before them.
    running_on: Vec<u32>,
    #[cfg(test)]
    pub(crate) num_bytes_looked_up: std::sync::atomic::AtomicUsize,
}

impl Vocabulary {
    /// Of the bytes of UTF-8 that each token spells, which can be a part of a character; none for a token
    /// without text, such as a special one.
    #[must_use]
    pub fn new(spellings: Vec<Vec<u8>>) -> Self {
        let mut tokens = HashMap::with_capacity(spellings.len());
        let mut running_on = Vec::new();
        for (token, spelling) in (0..).zip(&spellings) {
            if !spelling.is_empty() {
                tokens.entry(spelling.clone()).or_insert(token);
            }
            if first_char(spelling).is_some_and(char::is_alphanumeric) {
                running_on.push(token);
            }
        }
        let max_num_bytes = spellings.iter().map(Vec::len).max().unwrap_or_default();
        Self {
            spellings,
            tokens,
            max_num_bytes,
            running_on,
            #[cfg(test)]
            num_bytes_looked_up: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// The bytes of a token.
    pub(crate) fn spelling(&self, token: u32) -> &[u8] {
        self.spellings.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// Tokens that spell a beginning of `text` of at least `min_len` bytes, the shortest first. Text beyond
    /// the longest spelling is ignored.
    pub(crate) fn beginnings(&self, text: &[u8], min_len: usize) -> impl DoubleEndedIterator<Item = u32> {
        (min_len..=text.len().min(self.max_num_bytes)).filter_map(move |len| {
            #[cfg(test)]
            self.num_bytes_looked_up.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
            self.tokens.get(&text[..len]).copied()
        })
    }

    /// Tokens that spell what `token` spells at another place of a text: after a space if it has none, and
    /// without one if it has. The first is one token if there is such a token, and otherwise several.
    pub fn elsewhere(&self, token: u32) -> impl Iterator<Item = u32> {
        let spelling = self.spelling(token);
        let (bare, spaced) = match spelling.strip_prefix(b" ") {
            Some(bare) => (bare, None),
            None => (spelling, self.tokens.get(&[&b" "[..], spelling].concat()).copied()),
        };
        let mut rest = bare;
        let parts = std::iter::from_fn(move || {
            let longest = self.beginnings(rest, 1).next_back()?;
            rest = &rest[self.spelling(longest).len()..];
            Some(longest)
        });
        parts.filter(move |&part| part != token).chain(spaced)
    }

    /// Tokens that begin with a letter or digit.
    pub(crate) fn running_on(&self) -> &[u32] {
        &self.running_on
    }
}

fn first_char(bytes: &[u8]) -> Option<char> {
    bytes.utf8_chunks().next()?.valid().chars().next()
}
