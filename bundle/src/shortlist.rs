//! Lexical shortlists: the tokens that a translation is likely to have for each token of its source.
//!
//! Students of Marian's are published with such a file, `lex.*.bin`, little-endian. It begins with six u64: a
//! magic number, a checksum, the number of frequent tokens, the longest list, the number of offsets, the
//! length of all lists. The offsets follow as u64, one for each token of the source and the end; then the
//! lists as u32. Reference: `BinaryShortlistGenerator` of Marian and of Bergamot.
//!
//! Marian makes one list for a batch. Here each prompt has its own, so that its output depends on nothing
//! else.

use std::path::Path;

use crate::BundleError;
use crate::file::read_bytes;

/// The first eight bytes of a file of this kind.
const MAGIC: u64 = 0xF11A_48D5_0134_17F5;
const HEADER_LEN: usize = 6 * size_of::<u64>();
const OFFSET_LEN: usize = size_of::<u64>();
const TOKEN_LEN: usize = size_of::<u32>();

/// The likely tokens of a translation by the tokens of its source. Both have the same vocabulary.
#[derive(Debug)]
pub struct LexicalShortlist {
    vocab_size: usize,
    /// Tokens from 0 that are likely in every translation.
    num_frequent: usize,
    /// Where each token's list begins in `lists`, and the end of the last.
    offsets: Vec<usize>,
    lists: Vec<u32>,
}

impl LexicalShortlist {
    /// Reads a file for a model with this vocabulary.
    ///
    /// # Errors
    /// It cannot be read, is no shortlist, or belongs to a larger vocabulary.
    pub fn open(path: &Path, vocab_size: usize) -> Result<Self, BundleError> {
        let bytes = read_bytes(path)?;
        Self::of_bytes(&bytes, vocab_size)
            .map_err(|problem| BundleError::Shortlist { path: path.to_owned(), problem })
    }

    fn of_bytes(bytes: &[u8], vocab_size: usize) -> Result<Self, String> {
        let Some((header, rest)) = bytes.split_at_checked(HEADER_LEN) else {
            return Err("it is too short".to_owned());
        };
        let (header, _) = header.as_chunks::<OFFSET_LEN>();
        let field = |place: usize| u64::from_le_bytes(header[place]);
        if field(0) != MAGIC {
            return Err("it does not begin as Marian's do".to_owned());
        }
        let size = |place| usize::try_from(field(place)).unwrap_or(usize::MAX);
        let (num_offsets, num_listed) = (size(4), size(5));
        let expected = num_offsets
            .checked_mul(OFFSET_LEN)
            .zip(num_listed.checked_mul(TOKEN_LEN))
            .and_then(|(offsets, lists)| offsets.checked_add(lists));
        if expected != Some(rest.len()) {
            return Err("its length is not the one that its header says".to_owned());
        }
        let (offsets, lists) = rest.split_at(num_offsets * OFFSET_LEN);
        let offset =
            |bytes: &[u8; OFFSET_LEN]| usize::try_from(u64::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
        let offsets: Vec<usize> = offsets.as_chunks().0.iter().map(offset).collect();
        let lists: Vec<u32> = lists.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let num_tokens = num_offsets.saturating_sub(1);
        if num_tokens > vocab_size {
            return Err(format!("it is for {num_tokens} tokens, and the model has {vocab_size}"));
        }
        if !offsets.is_sorted() || offsets.first() != Some(&0) || offsets.last() != Some(&lists.len()) {
            return Err("its lists do not follow each other".to_owned());
        }
        if let Some(token) = lists.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(format!("it lists token {token}, and the model has {vocab_size}"));
        }
        Ok(Self { vocab_size, num_frequent: size(2).min(vocab_size), offsets, lists })
    }

    /// The tokens that a translation of these tokens can have: the frequent ones, the tokens themselves, and
    /// the list of each. They rise. Tokens outside the vocabulary are ignored.
    #[must_use]
    pub fn of_prompt(&self, prompt: &[u32]) -> Vec<u32> {
        const BITS: usize = u64::BITS as usize;
        let mut is_listed = vec![0_u64; self.vocab_size.div_ceil(BITS)];
        let mut list = |token: usize| is_listed[token / BITS] |= 1 << (token % BITS);
        (0..self.num_frequent).for_each(&mut list);
        for &token in prompt.iter().filter(|&&token| (token as usize) < self.vocab_size) {
            list(token as usize);
            self.list_of(token).iter().for_each(|&listed| list(listed as usize));
        }
        let mut tokens = Vec::with_capacity(is_listed.iter().map(|word| word.count_ones() as usize).sum());
        for (place, mut word) in is_listed.into_iter().enumerate() {
            while word != 0 {
                tokens.push(place as u32 * u64::BITS + word.trailing_zeros());
                word &= word - 1;
            }
        }
        tokens
    }

    fn list_of(&self, token: u32) -> &[u32] {
        match self.offsets.get(token as usize..token as usize + 2) {
            Some(&[start, end]) => &self.lists[start..end],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB_SIZE: usize = 200;

    /// A file in which two tokens are frequent and token t has these lists; token 3 has none.
    fn file() -> Vec<u8> {
        let lists: [&[u32]; 4] = [&[9, 150], &[5], &[5, 199], &[]];
        bytes_of([MAGIC, 0, 2, 2], &[0, 2, 3, 5, 5], &lists.concat())
    }

    fn bytes_of(header: [u64; 4], offsets: &[u64], lists: &[u32]) -> Vec<u8> {
        let header = header.into_iter().chain([offsets.len() as u64, lists.len() as u64]);
        let words = header.chain(offsets.iter().copied()).flat_map(u64::to_le_bytes);
        words.chain(lists.iter().flat_map(|token| token.to_le_bytes())).collect()
    }

    #[test]
    fn a_prompt_may_become_frequent_tokens_its_own_and_those_of_their_lists() {
        let shortlist = LexicalShortlist::of_bytes(&file(), VOCAB_SIZE).unwrap();
        assert_eq!(shortlist.of_prompt(&[]), [0, 1]);
        assert_eq!(shortlist.of_prompt(&[0]), [0, 1, 9, 150]);
        assert_eq!(shortlist.of_prompt(&[2, 1, 2]), [0, 1, 2, 5, 199]);
        assert_eq!(shortlist.of_prompt(&[3]), [0, 1, 3], "a token without a list");
        assert_eq!(shortlist.of_prompt(&[64, 199, 200, u32::MAX]), [0, 1, 64, 199]);
    }

    #[test]
    fn a_broken_file_or_one_of_another_model_is_refused() {
        let refused = |bytes: &[u8], words: &str| {
            let error = LexicalShortlist::of_bytes(bytes, VOCAB_SIZE).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refused(&file()[..40], "too short");
        refused(&file()[..file().len() - 1], "its length");
        refused(&[file(), vec![0]].concat(), "its length");
        refused(&bytes_of([1, 0, 2, 2], &[0], &[]), "does not begin");
        refused(&bytes_of([MAGIC, 0, 2, 2], &[0, 2, 1, 2], &[1, 1]), "do not follow");
        refused(&bytes_of([MAGIC, 0, 2, 2], &[0, 1], &[1, 1]), "do not follow");
        refused(&bytes_of([MAGIC, 0, 2, 2], &[], &[]), "do not follow");
        refused(&bytes_of([MAGIC, 0, 2, 2], &[0, 1], &[200]), "token 200");
        refused(&bytes_of([MAGIC, 0, 2, 2], &[0; 202], &[]), "for 201 tokens");
        refused(&[&file()[..32], &[255; 16], &file()[48..]].concat(), "its length");
    }
}
