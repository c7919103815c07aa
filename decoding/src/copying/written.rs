//! The progress of a sequence through the words of a text: the words that it has, and the words that it has
//! begun. It is updated token by token, so nothing is spelled twice.

use super::words::{Begun, Words};

/// Beginnings followed at the same time, of words that begin inside a possibly longer one. In a text without
/// spaces, words may begin at each sign.
const MAX_BEGUN: usize = 16;

/// The words of a text that a sequence has written.
#[derive(Debug, Clone, Default)]
pub(crate) struct WrittenWords {
    /// Bytes of a character that is not whole yet.
    tail: Vec<u8>,
    /// Whether the last whole character is a letter or digit.
    in_word: bool,
    /// Words that the end of the output begins; the earliest beginning comes first.
    begun: Vec<Begun>,
    /// Words that the end of the output completes.
    whole: Vec<u32>,
    /// By word: how often it was written whole, but at the end.
    counts: Vec<u32>,
    unit: LastUnit,
}

/// The last unit between white space.
#[derive(Debug, Clone, Copy, Default)]
struct LastUnit {
    has_ended: bool,
    has_letter: bool,
    /// The words that it begins, from its first letter or digit on.
    begun: Option<Begun>,
    /// The word that it is, without the signs around it.
    word: Option<u32>,
}

impl WrittenWords {
    /// Nothing is written yet.
    pub(super) fn new(words: &Words) -> Self {
        Self { counts: vec![0; words.len()], ..Self::default() }
    }

    /// Writes `bytes`, which may begin and end inside a character.
    pub(super) fn write(&mut self, words: &Words, bytes: &[u8]) {
        let mut rest: &[u8] = match self.tail.is_empty() {
            true => bytes,
            false => {
                self.tail.extend_from_slice(bytes);
                &std::mem::take(&mut self.tail)
            }
        };
        loop {
            let (valid, invalid) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let (valid, _) = rest.split_at(error.valid_up_to());
                    let valid = std::str::from_utf8(valid).expect("it is valid up to here");
                    (valid, Some(error.error_len()))
                }
            };
            valid.chars().for_each(|char| self.write_char(words, char));
            rest = &rest[valid.len()..];
            match invalid {
                None => return,
                Some(None) => return self.tail.extend_from_slice(rest), // goes on with the next token
                Some(Some(len)) => {
                    self.write_char(words, char::REPLACEMENT_CHARACTER);
                    rest = &rest[len..];
                }
            }
        }
    }

    fn write_char(&mut self, words: &Words, char: char) {
        let is_in_word = char.is_alphanumeric();
        let mut buffer = [0; 4];
        let bytes: &[u8] = char.encode_utf8(&mut buffer).as_bytes();
        if !is_in_word {
            self.whole.iter().for_each(|&word| self.counts[word as usize] += 1);
        }
        let may_begin = is_in_word && !self.in_word && self.begun.len() < MAX_BEGUN;
        self.begun.extend(may_begin.then(|| words.all()));
        self.begun.retain_mut(|begun| match words.going_on(*begun, bytes) {
            Some(going_on) => {
                *begun = going_on;
                true
            }
            None => false,
        });
        self.whole.clear();
        self.whole.extend(self.begun.iter().filter_map(|&begun| words.whole(begun)));
        self.in_word = is_in_word;
        self.unit.write_char(words, char, bytes);
    }

    /// How often a word was written whole.
    pub(super) fn count(&self, word: u32) -> u32 {
        self.counts[word as usize] + u32::from(self.whole.contains(&word))
    }

    /// Whether a word can begin here.
    pub(super) fn may_begin_word(&self) -> bool {
        self.tail.is_empty() && !self.in_word
    }

    /// Words that the end of the output completes.
    pub(super) fn whole_words(&self) -> impl Iterator<Item = u32> {
        self.whole.iter().copied().filter(|_| self.tail.is_empty())
    }

    /// The last written word, if only signs or white space follow it.
    pub(super) fn last_word(&self) -> Option<u32> {
        self.unit.word
    }

    /// The rests of the words that the end of the output begins.
    pub(super) fn remainders<'a>(&'a self, words: &'a Words) -> impl Iterator<Item = (u32, &'a [u8])> {
        let begins_in_tail = !self.tail.is_empty() && !self.in_word;
        let in_tail = begins_in_tail.then(|| words.going_on(words.all(), &self.tail)).flatten();
        let in_tail = in_tail.into_iter().flat_map(|begun| words.remainders(begun));
        let begun = self.begun.iter().flat_map(|&begun| words.remainders(begun));
        let begun = begun.filter_map(|(word, rest)| Some((word, rest.strip_prefix(self.tail.as_slice())?)));
        begun.chain(in_tail).filter(|(_, rest)| !rest.is_empty())
    }
}

impl LastUnit {
    fn write_char(&mut self, words: &Words, char: char, bytes: &[u8]) {
        if char.is_whitespace() {
            self.has_ended = true;
            return;
        }
        if self.has_ended {
            *self = Self::default();
        }
        let is_in_word = char.is_alphanumeric();
        if !self.has_letter && is_in_word {
            self.begun = Some(words.all());
        }
        self.has_letter |= is_in_word;
        self.begun = self.begun.and_then(|begun| words.going_on(begun, bytes));
        if is_in_word {
            self.word = self.begun.and_then(|begun| words.whole(begun));
        }
    }
}
