//! The place of a unit in a model's output: at the same share of the words, or beside the same word.

use std::ops::Range;

/// The words of a text, by white space; a unit is part of one word.
pub(crate) fn words(text: &str, units: &[Range<usize>]) -> Vec<Range<usize>> {
    let in_unit = |place: usize| units.iter().any(|unit| unit.contains(&place));
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut start = None;
    for (place, c) in text.char_indices() {
        match (c.is_whitespace() && !in_unit(place), start) {
            (false, None) => start = Some(place),
            (true, Some(begun)) => {
                words.push(begun..place);
                start = None;
            }
            _ => {}
        }
    }
    words.extend(start.map(|begun| begun..text.len()));
    words
}

/// Finds places in `written` that correspond to places in `source`.
pub(crate) struct Placing<'a> {
    source: &'a str,
    written: &'a str,
    source_words: Vec<Range<usize>>,
    written_words: Vec<Range<usize>>,
}

impl<'a> Placing<'a> {
    /// Of two texts and the bytes of their units.
    pub(crate) fn new(
        (source, source_units): (&'a str, &[Range<usize>]),
        (written, written_units): (&'a str, &[Range<usize>]),
    ) -> Self {
        let (source_words, written_words) = (words(source, source_units), words(written, written_units));
        Placing { source, written, source_words, written_words }
    }

    /// The number of words of `written` before the text that follows byte `place` of the source.
    pub(crate) fn words_before(&self, place: usize) -> usize {
        let next = self.source_words.iter().position(|word| word.end > place);
        let Some(next) = next else { return self.written_words.len() };
        let expected = self.share(next);
        self.anchor(next, expected).unwrap_or(expected)
    }

    /// The number of words of `written` before the end of the text that precedes byte `place` of the source.
    /// For a pair, `opened` is the byte of the source where it opens, and the number of words of `written`
    /// before that.
    pub(crate) fn words_up_to(&self, place: usize, opened: Option<(usize, usize)>) -> usize {
        let last = self.source_words.iter().rposition(|word| word.start < place);
        let Some(last) = last else { return 0 };
        let expected = match opened {
            Some((opening, before)) => {
                let inner = self.source_words.iter().filter(|word| word.end > opening && word.start < place);
                before + self.share(inner.count()).max(1)
            }
            None => self.share(last + 1),
        };
        self.anchor(last, expected.saturating_sub(1)).map_or(expected, |word| word + 1)
    }

    /// The byte of `written` where its word `number` begins, after signs that the source has before `place`.
    pub(crate) fn start_of(&self, number: usize, place: usize) -> usize {
        let Some(word) = self.written_words.get(number) else { return self.written.len() };
        let is_behind_signs = self.source_words.iter().any(|word| word.start < place && place < word.end);
        if !is_behind_signs {
            return word.start;
        }
        let text = &self.written[word.clone()];
        let signs = text.find(char::is_alphanumeric).unwrap_or(0);
        word.start + signs
    }

    /// The byte of `written` where the word before number `number` ends; before the signs at its end if the
    /// source has signs after `place`.
    pub(crate) fn end_of(&self, number: usize, place: usize) -> usize {
        let Some(word) = number.checked_sub(1).and_then(|last| self.written_words.get(last)) else {
            return 0;
        };
        let rest = self.source[place..].split(char::is_whitespace).next().unwrap_or_default();
        let has_signs_behind = !rest.is_empty() && !rest.starts_with(char::is_alphanumeric);
        let text = &self.written[word.clone()];
        let trimmed = text.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', '"', '”', '»', '…']);
        if has_signs_behind && !trimmed.is_empty() { word.start + trimmed.len() } else { word.end }
    }

    /// The number of words of `written`.
    pub(crate) fn num_words(&self) -> usize {
        self.written_words.len()
    }

    fn share(&self, source_words: usize) -> usize {
        let (written, source) = (self.written_words.len(), self.source_words.len().max(1));
        (2 * source_words * written + source) / (2 * source) // rounded
    }

    /// The place in `written` of source word `number`, if it occurs there unchanged; the nearest to
    /// `expected`.
    fn anchor(&self, number: usize, expected: usize) -> Option<usize> {
        let wanted = bare(&self.source[self.source_words[number].clone()]);
        if wanted.chars().count() < 3 {
            return None;
        }
        let same = |word: &Range<usize>| bare(&self.written[word.clone()]) == wanted;
        let places = self.written_words.iter().enumerate().filter(|(_, word)| same(word));
        places.map(|(place, _)| place).min_by_key(|place| place.abs_diff(expected))
    }
}

/// A word in small letters, without signs around it.
fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_share_of_the_words_or_their_neighbour() {
        let placing = Placing::new(("the big dog runs", &[]), ("il grande cane corre", &[]));
        assert_eq!(placing.words_before("the big ".len()), 2);
        assert_eq!(placing.words_before(0), 0);
        assert_eq!(placing.words_up_to("the big dog".len(), None), 3);
        let placing = Placing::new(("a plugin for xfce4 panels", &[]), ("un xfce4 per pannelli", &[]));
        assert_eq!(placing.words_before("a plugin for ".len()), 1, "beside the word that is the same");
        assert_eq!(placing.words_up_to("a plugin for xfce4".len(), None), 2);
    }

    #[test]
    fn a_closing_unit_stays_before_a_sign_at_the_end() {
        let placing = Placing::new(("read mail.", &[]), ("leggi la posta.", &[]));
        let place = "read mail".len();
        let number = placing.words_up_to(place, None);
        assert_eq!(placing.end_of(number, place), "leggi la posta".len());
    }
}
