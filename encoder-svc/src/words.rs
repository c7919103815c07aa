//! The words of a text that an output may copy as they are, and which of them are names.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use baton_proto::TextWord;

/// Signs after which a word is capitalized because a sentence begins.
const SENTENCE_ENDS: [char; 4] = ['.', '!', '?', ':'];

/// Each distinct word once, in order: what stands between white space, without the signs around it.
///
/// A name is a word with a letter that has a capital, a digit or a sign such as a hyphen beyond its first character, or a capital there in the
/// midst of a sentence.
pub(crate) fn words(text: &str) -> Vec<TextWord> {
    let mut words: Vec<TextWord> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut begins_sentence = true;
    for unit in text.split_whitespace() {
        let word = unit.trim_matches(|c: char| !c.is_alphanumeric());
        if !word.is_empty() {
            let is_name =
                is_written_as_name(word) || !begins_sentence && word.starts_with(char::is_uppercase);
            match places.entry(word) {
                Occupied(place) => words[*place.get()].is_name |= is_name,
                Vacant(place) => {
                    place.insert(words.len());
                    words.push(TextWord { text: word.to_owned(), is_name });
                }
            }
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
        let (names, others): (Vec<TextWord>, Vec<TextWord>) =
            words(text).into_iter().partition(|word| word.is_name);
        let texts = |words: Vec<TextWord>| words.into_iter().map(|word| word.text).collect();
        (texts(names), texts(others))
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
}
