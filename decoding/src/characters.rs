//! Whole characters: the tokens that may follow, so that an output is valid text from its first byte to its
//! last.
//!
//! A token can spell a part of a character. Three kinds of tokens may not be chosen. Some do not continue a
//! character that was begun; some begin none; some leave one that the remaining tokens cannot complete. A
//! token without a text may not be chosen either. Reference: the Unicode Standard, table 3-7, well-formed
//! UTF-8.

use crate::Candidates;
use crate::candidates::Places;

/// The state of a character: the bytes that may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Begun {
    Nothing,
    /// This many bytes of 80 to BF follow.
    One,
    Two,
    Three,
    /// After E0, ED, F0 and F4 the next byte has a smaller range.
    AfterE0,
    AfterEd,
    AfterF0,
    AfterF4,
}

const ALL: [Begun; 8] = [
    Begun::Nothing,
    Begun::One,
    Begun::Two,
    Begun::Three,
    Begun::AfterE0,
    Begun::AfterEd,
    Begun::AfterF0,
    Begun::AfterF4,
];

/// Bytes of the longest character.
const MAX_CHARACTER_BYTES: usize = 4;

impl Begun {
    /// The state after one more byte, if text can continue with it.
    fn after_byte(self, byte: u8) -> Option<Begun> {
        Some(match (self, byte) {
            (Begun::Nothing, 0..=0x7F) | (Begun::One, 0x80..=0xBF) => Begun::Nothing,
            (Begun::Nothing, 0xC2..=0xDF)
            | (Begun::Two, 0x80..=0xBF)
            | (Begun::AfterE0, 0xA0..=0xBF)
            | (Begun::AfterEd, 0x80..=0x9F) => Begun::One,
            (Begun::Nothing, 0xE0) => Begun::AfterE0,
            (Begun::Nothing, 0xED) => Begun::AfterEd,
            (Begun::Nothing, 0xE1..=0xEF)
            | (Begun::Three, 0x80..=0xBF)
            | (Begun::AfterF0, 0x90..=0xBF)
            | (Begun::AfterF4, 0x80..=0x8F) => Begun::Two,
            (Begun::Nothing, 0xF0) => Begun::AfterF0,
            (Begun::Nothing, 0xF1..=0xF3) => Begun::Three,
            (Begun::Nothing, 0xF4) => Begun::AfterF4,
            _ => return None,
        })
    }

    fn after(self, bytes: &[u8]) -> Option<Begun> {
        bytes.iter().try_fold(self, |begun, &byte| begun.after_byte(byte))
    }
}

/// The effects of a vocabulary on characters, computed once for each model.
#[derive(Debug)]
pub struct Characters {
    spellings: Box<[Box<[u8]>]>,
    /// Tokens that never follow whole characters, rising.
    misfits: Vec<u32>,
    /// Tokens that begin a character and do not complete it.
    cuts: Vec<(u32, Begun)>,
    /// By state: the tokens that continue the character, and the state after each. None for the state without
    /// a character.
    going_on: [Vec<(u32, Begun)>; ALL.len()],
    /// By state: the least number of tokens that completes the character, if any can.
    num_to_end: [Option<usize>; ALL.len()],
}

/// The tokens that may follow a sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CharacterMask<'a> {
    characters: &'a Characters,
    begun: Begun,
    /// Tokens that may be chosen after the next one.
    num_left: usize,
}

impl Characters {
    /// The effects of tokens that spell these bytes, by id. A token of `without_text` means something without
    /// a text, such as an unknown character; other tokens without bytes are special tokens.
    #[must_use]
    pub fn new(spellings: &[Vec<u8>], without_text: &[u32]) -> Self {
        let tokens = || (0..).zip(spellings).filter(|(_, spelling)| !spelling.is_empty());
        let mut going_on = ALL.map(|begun| -> Vec<(u32, Begun)> {
            let after = |(token, spelling): (u32, &Vec<u8>)| Some((token, begun.after(spelling)?));
            if begun == Begun::Nothing { Vec::new() } else { tokens().filter_map(after).collect() }
        });
        let mut num_to_end = [None; ALL.len()];
        num_to_end[Begun::Nothing as usize] = Some(0);
        for _ in 0..MAX_CHARACTER_BYTES {
            for begun in &ALL[1..] {
                let steps = going_on[*begun as usize].iter().filter_map(|(_, end)| num_to_end[*end as usize]);
                num_to_end[*begun as usize] = steps.min().map(|num| num + 1);
            }
        }
        let can_end = |begun: Begun| num_to_end[begun as usize].is_some();
        going_on.iter_mut().for_each(|tokens| tokens.retain(|&(_, end)| can_end(end)));
        let (mut misfits, mut cuts) = (without_text.to_vec(), Vec::new());
        for (token, spelling) in tokens() {
            match Begun::Nothing.after(spelling).filter(|&end| can_end(end)) {
                None => misfits.push(token),
                Some(Begun::Nothing) => {}
                Some(end) => cuts.push((token, end)),
            }
        }
        misfits.sort_unstable();
        misfits.dedup();
        let spellings = spellings.iter().map(|spelling| spelling.clone().into()).collect();
        Self { spellings, misfits, cuts, going_on, num_to_end }
    }

    /// Whether one of the candidates leaves a character incomplete.
    pub(crate) fn are_begun_by(&self, candidates: &Candidates) -> bool {
        self.cuts.iter().any(|&(token, _)| candidates.place(token).is_some())
    }

    /// The tokens that continue a character.
    pub(crate) fn parts(&self) -> impl Iterator<Item = u32> {
        self.going_on.iter().flatten().map(|&(token, _)| token)
    }

    /// The state after these tokens.
    fn begun(&self, tokens: &[u32]) -> Begun {
        let spelling = |&token: &u32| self.spellings.get(token as usize).map_or(&[][..], |spelling| spelling);
        let mut tail: Vec<u8> = Vec::new();
        for token in tokens.iter().rev() {
            let bytes = spelling(token);
            if let Some(start) = bytes.iter().rposition(|byte| !matches!(byte, 0x80..=0xBF)) {
                let after = Begun::Nothing.after(&bytes[start..]);
                return after.and_then(|begun| begun.after(&tail)).unwrap_or(Begun::Nothing);
            }
            tail.splice(..0, bytes.iter().copied());
            if tail.len() >= MAX_CHARACTER_BYTES {
                break;
            }
        }
        Begun::Nothing
    }

    /// The mask after `tokens`, with this many left after the next; `None` if only misfits are masked.
    pub(crate) fn mask(&self, tokens: &[u32], num_left: usize) -> Option<CharacterMask<'_>> {
        let mask = self.whole_mask(tokens, num_left);
        (mask.begun != Begun::Nothing || num_left < MAX_CHARACTER_BYTES && !self.cuts.is_empty())
            .then_some(mask)
    }

    /// The same mask, with misfits.
    pub(crate) fn whole_mask(&self, tokens: &[u32], num_left: usize) -> CharacterMask<'_> {
        CharacterMask { characters: self, begun: self.begun(tokens), num_left }
    }

    /// Whether a token never follows whole characters.
    pub(crate) fn is_misfit(&self, token: u32) -> bool {
        self.misfits.binary_search(&token).is_ok()
    }
}

impl CharacterMask<'_> {
    /// Masks the tokens in `values` that may not follow. Within a character, the tokens that continue it get
    /// their values of `unmasked`, which takes a place: no other rule can forbid them.
    pub(crate) fn apply(self, values: &mut [f32], places: Places<'_>, unmasked: impl Fn(usize) -> f32) {
        let Self { characters, begun, num_left } = self;
        let is_in_time = |end: Begun| characters.num_to_end[end as usize].is_some_and(|num| num <= num_left);
        if begun == Begun::Nothing {
            let cuts = characters.cuts.iter().filter(|&&(_, end)| !is_in_time(end)).map(|(token, _)| token);
            for place in cuts.chain(&characters.misfits).filter_map(|&token| places.place(token)) {
                values.get_mut(place).into_iter().for_each(|value| *value = f32::NEG_INFINITY);
            }
            return;
        }
        let num_values = values.len(); // a tokenizer can have more tokens than its model
        values.fill(f32::NEG_INFINITY);
        let going_on = characters.going_on[begun as usize].iter().filter(|&&(_, end)| is_in_time(end));
        let going_on = going_on.filter_map(|&(token, _)| places.place(token));
        for place in going_on.filter(|&place| place < num_values) {
            values[place] = unmasked(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(without_text: &[u32]) -> Characters {
        let mut spellings: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        spellings.push("é".into());
        spellings.push("aé".as_bytes()[..2].to_vec());
        spellings.push(Vec::new()); // ends sequences
        Characters::new(&spellings, without_text)
    }

    fn allowed(characters: &Characters, tokens: &[u32], num_left: usize) -> Vec<u32> {
        let mut values = vec![0.0; 259];
        characters.whole_mask(tokens, num_left).apply(&mut values, Places::All, |_| 1.0);
        (0..).zip(values).filter(|(_, value)| value.is_finite()).map(|(token, _)| token).collect()
    }

    #[test]
    fn any_choice_of_allowed_tokens_is_text_within_the_limit() {
        let characters = of_bytes(&[]);
        let mut state = 1_u64;
        for num_tokens in 1..400 {
            let mut tokens: Vec<u32> = Vec::new();
            let mut bytes: Vec<u8> = Vec::new();
            while tokens.len() < num_tokens % 9 {
                let allowed = allowed(&characters, &tokens, num_tokens % 9 - tokens.len() - 1);
                let allowed: Vec<u32> = allowed.into_iter().filter(|&token| token > 127).collect();
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let token =
                    if allowed.is_empty() { 97 } else { allowed[(state >> 33) as usize % allowed.len()] };
                if token == 258 {
                    break;
                }
                tokens.push(token);
                bytes.extend(&characters.spellings[token as usize]);
            }
            assert!(std::str::from_utf8(&bytes).is_ok(), "{bytes:x?}");
        }
    }

    #[test]
    fn every_character_can_be_written_byte_by_byte() {
        let characters = of_bytes(&[]);
        for text in ["é", "न", "퟿", "\u{800}", "😀", "\u{10FFFF}", "\u{10000}", "\u{7F}"] {
            let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
            for len in 0..bytes.len() {
                assert!(allowed(&characters, &bytes[..len], 8).contains(&bytes[len]), "{text:?} at {len}");
            }
        }
    }

    #[test]
    fn an_end_waits_for_the_character() {
        let characters = of_bytes(&[]);
        assert!(allowed(&characters, &[97], 8).contains(&258));
        assert_eq!(allowed(&characters, &[257], 8), (0x80..=0xBF).collect::<Vec<u32>>());
        assert!(characters.mask(&[97], 8).is_none() && characters.mask(&[257], 8).is_some());
    }

    #[test]
    fn nothing_is_begun_that_cannot_be_completed() {
        let characters = of_bytes(&[]);
        assert!(!allowed(&characters, &[], 0).contains(&0xC3));
        assert!(
            allowed(&characters, &[], 1).contains(&0xC3) && !allowed(&characters, &[], 1).contains(&0xE2)
        );
        let only_begins = Characters::new(&[vec![0xC3], vec![97]], &[]);
        assert!(only_begins.is_misfit(0) && !only_begins.is_misfit(1));
    }

    #[test]
    fn tokens_without_text_never_follow() {
        let characters = of_bytes(&[98]);
        assert!(characters.is_misfit(98) && characters.is_misfit(0x80) && !characters.is_misfit(258));
        assert!(!allowed(&characters, &[97], 8).contains(&98));
    }
}
