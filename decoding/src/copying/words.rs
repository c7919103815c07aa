//! The words of a text: which of them are names, which words follow each, and how often each occurs.

use std::collections::HashMap;

use super::written::WrittenWords;

/// Signs after which a word is capitalized because a sentence begins.
const SENTENCE_ENDS: [char; 4] = ['.', '!', '?', ':'];
/// Characters of the shortest word that may be a name for its capital alone: shorter ones begin too many
/// words of the output's language.
const MIN_CAPITALIZED_CHARS: usize = 4;

/// A distinct word of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    /// Without the signs around it.
    pub(super) text: String,
    pub(super) is_name: bool,
    /// Places among the text's words of the words that come next, before the end of a sentence.
    pub(super) next_words: Vec<u32>,
    /// How often it is in the text with neither letter nor digit beside it, at least 1.
    pub(super) num_occurrences: u32,
}

impl Word {
    /// Whether it is a name, or begins a sentence as one may that is long enough.
    pub(super) fn may_be_name(&self) -> bool {
        let is_long = || self.text.chars().nth(MIN_CAPITALIZED_CHARS - 1).is_some();
        self.is_name || self.text.starts_with(char::is_uppercase) && is_long()
    }
}

/// The distinct words of a text, in the order of their first places, and an index by their beginnings.
#[derive(Debug, Clone)]
pub(super) struct Words {
    words: Vec<Word>,
    /// Places of the words, in the order of their bytes.
    sorted: Vec<u32>,
}

/// The words that share their first bytes: a range of the sorted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    start: u32,
    end: u32,
    /// Bytes that they share.
    len: u32,
}

impl Words {
    /// Each distinct word of a text once, in order: the text between white space, without the signs around
    /// it.
    ///
    /// A name is a word with a letter that has a capital, a digit or a sign such as a hyphen beyond its first
    /// character. A capitalized word within a sentence is a name too. At the beginning of a sentence, it is
    /// one if the next word is capitalized too and the word is long enough.
    pub(super) fn of(text: &str) -> Self {
        Self::of_distinct(distinct_words(text), text)
    }

    /// The same, with every word as a name.
    pub(super) fn of_names(text: &str) -> Self {
        let mut words = distinct_words(text);
        words.iter_mut().for_each(|word| word.is_name = true);
        Self::of_distinct(words, text)
    }

    fn of_distinct(words: Vec<Word>, text: &str) -> Self {
        let mut sorted: Vec<u32> = (0..words.len() as u32).collect();
        sorted.sort_unstable_by_key(|&place| words[place as usize].text.as_bytes());
        let mut index = Self { words, sorted };
        let mut written = WrittenWords::new(&index);
        written.write(&index, text.as_bytes());
        let counts: Vec<u32> = (0..index.words.len() as u32).map(|place| written.count(place)).collect();
        for (word, count) in index.words.iter_mut().zip(counts) {
            word.num_occurrences = count.max(1);
        }
        index
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Word)> {
        (0..).zip(&self.words)
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn get(&self, place: u32) -> &Word {
        &self.words[place as usize]
    }

    /// All words.
    pub(super) fn all(&self) -> Begun {
        Begun { start: 0, end: self.sorted.len() as u32, len: 0 }
    }

    /// The words, of those begun, that continue with `bytes`, if there is one.
    pub(super) fn going_on(&self, begun: Begun, bytes: &[u8]) -> Option<Begun> {
        let Begun { start, end, len } = begun;
        let range = &self.sorted[start as usize..end as usize];
        let next = |place: &u32| {
            let rest = &self.get(*place).text.as_bytes()[len as usize..];
            &rest[..rest.len().min(bytes.len())]
        };
        let first = range.partition_point(|place| next(place) < bytes);
        let num = range[first..].partition_point(|place| next(place) == bytes);
        let start = start + first as u32;
        (num > 0).then_some(Begun { start, end: start + num as u32, len: len + bytes.len() as u32 })
    }

    /// The word, if any, that ends where the common bytes of these words end.
    pub(super) fn whole(&self, begun: Begun) -> Option<u32> {
        let shortest = *self.sorted.get(begun.start as usize)?;
        (self.get(shortest).text.len() == begun.len as usize).then_some(shortest)
    }

    /// The places of these words, with the rest of each after their common bytes.
    pub(super) fn remainders(&self, begun: Begun) -> impl Iterator<Item = (u32, &[u8])> {
        let range = &self.sorted[begun.start as usize..begun.end as usize];
        range.iter().map(move |&place| (place, &self.get(place).text.as_bytes()[begun.len as usize..]))
    }
}

fn distinct_words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut begins_sentence = true;
    let mut previous: Option<usize> = None;
    for unit in text.split_whitespace() {
        let word = unit.trim_matches(|c: char| !c.is_alphanumeric());
        if !word.is_empty() {
            let is_name =
                is_written_as_name(word) || !begins_sentence && word.starts_with(char::is_uppercase);
            let place = *places.entry(word).or_insert_with(|| {
                let (text, next_words) = (word.to_owned(), Vec::new());
                words.push(Word { text, is_name: false, next_words, num_occurrences: 0 });
                words.len() - 1
            });
            words[place].is_name |= is_name;
            if let Some(previous) = previous.filter(|_| !begins_sentence) {
                // "Texas Instruments" at the beginning of a sentence
                words[previous].is_name |=
                    words[previous].may_be_name() && word.starts_with(char::is_uppercase);
                words[previous].next_words.push(place as u32);
            }
            previous = Some(place);
        }
        begins_sentence = unit.ends_with(SENTENCE_ENDS);
    }
    words
}

fn is_written_as_name(word: &str) -> bool {
    let is_unusual = |c: char| c.is_uppercase() || c.is_numeric() || "-_./+:@#".contains(c);
    word.chars().any(char::is_alphabetic) && word.chars().skip(1).any(is_unusual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_others(text: &str) -> (Vec<String>, Vec<String>) {
        let (names, others): (Vec<Word>, Vec<Word>) =
            Words::of(text).words.into_iter().partition(|word| word.is_name);
        let texts = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect();
        (texts(names), texts(others))
    }

    #[test]
    fn a_capitalized_word_at_the_beginning_of_a_sentence_is_a_name_before_another() {
        let (names, _) = names_and_others("Texas Instruments cables. Simple desktop: Little CMS");
        assert_eq!(names, ["Texas", "Instruments", "Little", "CMS"]);
        let (names, _) = names_and_others("The GNOME desktop. Texas. Instruments");
        assert_eq!(names, ["GNOME"], "a word too short, and another sentence");
    }

    #[test]
    fn words_keep_the_signs_inside_and_lose_those_around() {
        let (names, others) = names_and_others("The (xfce4-panel) uses GTK+, the -- 2.0 libc6 and\tlibc6.");
        assert_eq!(names, ["xfce4-panel", "GTK", "libc6"]);
        assert_eq!(others, ["The", "uses", "the", "2.0", "and"]);
    }

    #[test]
    fn a_capital_makes_a_name_where_no_sentence_begins() {
        let (names, others) = names_and_others("Clients of Katz: Files for it. Files on Debian");
        assert_eq!(names, ["Katz", "Debian"]);
        assert_eq!(others, ["Clients", "of", "Files", "for", "it", "on"]);
    }

    #[test]
    fn a_word_occurs_where_no_letter_or_digit_is_beside_it() {
        let words = Words::of("X, X11 and l'X-X, but not MaX or \u{e8}X");
        assert_eq!(words.get(0).num_occurrences, 3);
    }
}
