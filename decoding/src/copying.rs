//! Copying: the words of a prompt's text that an output is encouraged to write as they stand there, and which of them are names. A word is what
//! its letters say, however an output cuts it into tokens.

use std::collections::HashMap;
use std::sync::Arc;

/// Signs after which a word is capitalized because a sentence begins.
const SENTENCE_ENDS: [char; 4] = ['.', '!', '?', ':'];
/// Characters of the shortest word that may be a name for its capital alone: shorter ones begin too many words of the output's language.
const MIN_CAPITALIZED_CHARS: usize = 4;
/// How many times the name bias it is worth to begin the name that stands in the text after the word written last.
const NEXT_NAME_FACTOR: f32 = 3.0;
/// How many times the name bias it is worth, above the copy bias, to go on with what may be a name.
const GOING_ON_FACTOR: f32 = 1.5;
/// How many times the copy bias a token that goes on with a word is favoured less than the longest one that does: a model has seen words cut in
/// one way, and after another it knows less of how they go on.
const SHORTER_FACTOR: f32 = 0.5;

/// What a row may copy: contextual biasing, as speech recognition has it (Zhao et al., Interspeech 2019). What goes on with a word that a
/// sequence has begun is favoured, and what would run on where a name is whole is disfavoured; and it can be favoured to begin a name that the
/// sequence does not have yet, above all the one that comes next in the text. A name counts as often as the text has it.
#[derive(Debug, Clone)]
pub struct Copying {
    /// Added to the logits of the longest token that goes on with a word, half of it to those of shorter ones, and taken from those that run on
    /// with a whole word that may be a name, at least 0. Of beams, the probabilities are normalized again.
    pub copy_bias: f32,
    /// The same for tokens that begin a name: thrice that for the name after the word written last, and one and a half times that is added to
    /// the copy bias where the word may be a name. More than 2 begins names where none belong. In a beam search it is also added to the
    /// log-probability of a finished sequence for each name that it has, and taken for each that it has too often.
    pub name_bias: f32,
    words: Vec<CopiedWord>,
    vocabulary: Arc<Vocabulary>,
}

/// A word that may be copied, and the tokens that begin it.
#[derive(Debug, Clone, PartialEq)]
struct CopiedWord {
    word: Word,
    /// The longest token after a space.
    spaced: Option<u32>,
    /// The longest token at the beginning of a text or after a sign.
    bare: Option<u32>,
}

/// A distinct word of a text.
#[derive(Debug, Clone, PartialEq)]
struct Word {
    /// Without the signs around it.
    text: String,
    is_name: bool,
    /// Places among the text's words of those that come next, without the end of a sentence between.
    next_words: Vec<usize>,
    /// How often it is in the text, as [`occurrences`] counts, at least 1.
    num_occurrences: usize,
}

impl Word {
    /// Whether it is a name, or begins a sentence as one may that is long enough.
    fn may_be_name(&self) -> bool {
        let is_long = || self.text.chars().nth(MIN_CAPITALIZED_CHARS - 1).is_some();
        self.is_name || self.text.starts_with(char::is_uppercase) && is_long()
    }
}

/// What the tokens of a model's outputs spell.
#[derive(Debug, Default)]
pub struct Vocabulary {
    /// By token.
    spellings: Vec<Vec<u8>>,
    tokens: HashMap<Vec<u8>, u32>,
    /// Tokens that begin with a letter or digit, so that they run on with the word before them.
    running_on: Vec<u32>,
}

impl Vocabulary {
    /// Of the bytes of UTF-8 that each token spells, which can be a part of a character; none for a token without text, such as a special one.
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
        Self { spellings, tokens, running_on }
    }

    /// What `tokens` spell.
    fn spell(&self, tokens: &[u32]) -> Vec<u8> {
        let spellings = tokens.iter().filter_map(|&token| self.spellings.get(token as usize));
        spellings.flatten().copied().collect()
    }

    /// Tokens that spell a beginning of `text` of at least `min_len` bytes, the shortest first.
    fn beginnings(&self, text: &[u8], min_len: usize) -> impl DoubleEndedIterator<Item = u32> {
        (min_len..=text.len()).filter_map(|len| self.tokens.get(&text[..len]).copied())
    }
}

impl Copying {
    /// What may be copied of `text`, by a model that writes tokens of `vocabulary`.
    #[must_use]
    pub fn of_text(text: &str, copy_bias: f32, name_bias: f32, vocabulary: Arc<Vocabulary>) -> Self {
        let copied = |word: Word| {
            let spaced = format!(" {}", word.text);
            let spaced = vocabulary.beginnings(spaced.as_bytes(), 2).next_back();
            let bare = vocabulary.beginnings(word.text.as_bytes(), 1).next_back();
            CopiedWord { word, spaced, bare }
        };
        let words = words(text).into_iter().map(copied).collect();
        Self { copy_bias, name_bias, words, vocabulary }
    }

    /// Puts into `biases` what is added to the logits of tokens that may follow `tokens`, each token once, in order.
    pub(crate) fn collect_biases(&self, tokens: &[u32], biases: &mut Vec<(u32, f32)>) {
        let written = Written::new(self.vocabulary.spell(tokens));
        let next_words = self.next_words(&written);
        for (place, copied) in self.words.iter().enumerate() {
            let word = &copied.word;
            if word.is_name {
                if occurrences(&written.text, &word.text) >= word.num_occurrences {
                    continue;
                }
                if self.name_bias > 0.0 {
                    let factor = if next_words.contains(&place) { NEXT_NAME_FACTOR } else { 1.0 };
                    biases.extend(copied.spaced.map(|token| (token, factor * self.name_bias)));
                    let bare = copied.bare.filter(|_| written.may_begin_word());
                    biases.extend(bare.map(|token| (token, self.name_bias)));
                }
            }
            let factor = if word.may_be_name() { GOING_ON_FACTOR } else { 0.0 };
            let bias = self.copy_bias + factor * self.name_bias;
            for remainder in written.remainders(&word.text) {
                let mut going_on = self.vocabulary.beginnings(remainder, 1).rev();
                biases.extend(going_on.next().map(|longest| (longest, bias)));
                biases.extend(going_on.map(|shorter| (shorter, bias - SHORTER_FACTOR * self.copy_bias)));
            }
        }
        let ends_with =
            |copied: &CopiedWord| written.ends_with_word(&copied.word.text) && copied.word.may_be_name();
        if self.copy_bias > 0.0 && self.words.iter().any(ends_with) {
            biases.extend(self.vocabulary.running_on.iter().map(|&token| (token, -self.copy_bias)));
        }
        biases.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        biases.dedup_by_key(|&mut (token, _)| token); // the largest of a token stays
    }

    /// What a finished sequence of a beam gains by the names that it has.
    pub(crate) fn reward(&self, tokens: &[u32]) -> f32 {
        if self.name_bias == 0.0 {
            return 0.0;
        }
        let written = Written::new(self.vocabulary.spell(tokens));
        let gain = |name: &Word| {
            let num_written = occurrences(&written.text, &name.text);
            let num_wanted = num_written.min(name.num_occurrences);
            num_wanted as f32 - (num_written - num_wanted) as f32
        };
        self.name_bias * self.names().map(gain).sum::<f32>()
    }

    /// Places of the words that come, in the text, after the word that was written last.
    fn next_words(&self, written: &Written) -> &[usize] {
        let last_unit = written.text.split_whitespace().next_back().unwrap_or_default();
        let last_word = without_signs_around(last_unit);
        let copied = self.words.iter().find(|copied| copied.word.text == last_word);
        copied.map_or(&[], |copied| &copied.word.next_words)
    }

    fn names(&self) -> impl Iterator<Item = &Word> {
        self.words.iter().map(|copied| &copied.word).filter(|word| word.is_name)
    }
}

/// What a sequence has written.
struct Written {
    /// Its last character may be cut.
    bytes: Vec<u8>,
    /// With U+FFFD for what is no character.
    text: String,
    /// Where in `bytes` a word can have begun that is not yet whole: after the last white space, and there after signs.
    word_starts: Vec<usize>,
}

impl Written {
    fn new(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let unit_start = bytes.iter().rposition(u8::is_ascii_whitespace).map_or(0, |space| space + 1);
        let word_starts = (unit_start..bytes.len()).filter(|&start| !ends_in_word(&bytes[..start])).collect();
        Self { bytes, text, word_starts }
    }

    fn may_begin_word(&self) -> bool {
        !ends_in_word(&self.bytes)
    }

    /// What is left of `word` where its beginning is what was written last.
    fn remainders<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.word_starts
            .iter()
            .filter_map(|&start| word.as_bytes().strip_prefix(&self.bytes[start..]))
            .filter(|remainder| !remainder.is_empty())
    }

    fn ends_with_word(&self, word: &str) -> bool {
        self.word_starts.iter().any(|&start| &self.bytes[start..] == word.as_bytes())
    }
}

/// Each distinct word of a text once, in order: what stands between white space, without the signs around it.
///
/// A name is a word with a letter that has a capital, a digit or a sign such as a hyphen beyond its first character, or a capital there in the
/// midst of a sentence, or at its beginning if the next word has one, too, and it is long enough.
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut begins_sentence = true;
    let mut previous: Option<usize> = None;
    for unit in text.split_whitespace() {
        let word = without_signs_around(unit);
        if !word.is_empty() {
            let is_name =
                is_written_as_name(word) || !begins_sentence && word.starts_with(char::is_uppercase);
            let place = *places.entry(word).or_insert_with(|| {
                words.push(Word {
                    text: word.to_owned(),
                    is_name: false,
                    next_words: Vec::new(),
                    num_occurrences: occurrences(text, word),
                });
                words.len() - 1
            });
            words[place].is_name |= is_name;
            if let Some(previous) = previous.filter(|_| !begins_sentence) {
                // "Texas Instruments" at the beginning of a sentence
                words[previous].is_name |=
                    words[previous].may_be_name() && word.starts_with(char::is_uppercase);
                words[previous].next_words.push(place);
            }
            previous = Some(place);
        }
        begins_sentence = unit.ends_with(SENTENCE_ENDS);
    }
    words
}

fn without_signs_around(unit: &str) -> &str {
    unit.trim_matches(|c: char| !c.is_alphanumeric())
}

fn is_written_as_name(word: &str) -> bool {
    let is_unusual = |c: char| c.is_uppercase() || c.is_numeric() || "-_./+:@#".contains(c);
    word.chars().any(char::is_alphabetic) && word.chars().skip(1).any(is_unusual)
}

/// How often `text` has `word` with neither letter nor digit beside it.
fn occurrences(text: &str, word: &str) -> usize {
    let is_whole = |&(start, _): &(usize, &str)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    };
    text.match_indices(word).filter(is_whole).count()
}

fn ends_in_word(bytes: &[u8]) -> bool {
    let last_char = || {
        let ends = (1..=bytes.len().min(4)).map(|len| &bytes[bytes.len() - len..]);
        ends.filter_map(|end| std::str::from_utf8(end).ok()).find_map(|end| end.chars().next())
    };
    last_char().is_some_and(char::is_alphanumeric)
}

fn first_char(bytes: &[u8]) -> Option<char> {
    bytes.utf8_chunks().next()?.valid().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [&str; 16] =
        ["", " x", "x", "fce", "fc", "e4", "e", "-", " (", " K", "DE", "panel", "s", " X", "11", " KD"];

    fn copying(text: &str, name_bias: f32) -> Copying {
        let spellings = TOKENS.map(|token| token.as_bytes().to_vec()).into();
        Copying::of_text(text, 6.0, name_bias, Arc::new(Vocabulary::new(spellings)))
    }

    fn ids(tokens: &[&str]) -> Vec<u32> {
        tokens.iter().map(|token| TOKENS.iter().position(|known| known == token).unwrap() as u32).collect()
    }

    fn biases(text: &str, name_bias: f32, tokens: &[&str]) -> Vec<(&'static str, f32)> {
        let mut biases = Vec::new();
        copying(text, name_bias).collect_biases(&ids(tokens), &mut biases);
        biases.into_iter().map(|(token, bias)| (TOKENS[token as usize], bias)).collect()
    }

    #[test]
    fn what_goes_on_with_a_word_that_was_begun_is_favoured_however_it_is_cut() {
        let text = "a xfce-panel";
        assert_eq!(biases(text, 0.0, &[" x"]), [("fce", 6.0), ("fc", 3.0)], "the longest token most");
        assert_eq!(biases(text, 0.0, &[" x", "fc"]), [("e", 6.0)]);
        assert_eq!(biases(text, 0.0, &[" x", "fc", "e"]), [("-", 6.0)]);
        assert_eq!(biases(text, 0.0, &[" x", "fc", "e4"]), []);
    }

    #[test]
    fn a_word_without_a_space_goes_on_at_the_beginning_and_after_a_sign_alone() {
        let text = "a xfce";
        assert_eq!(biases(text, 0.0, &["x"]), [("fce", 6.0), ("fc", 3.0)]);
        assert_eq!(biases(text, 0.0, &[" K", "-", "x"]), [("fce", 6.0), ("fc", 3.0)]);
        assert_eq!(biases(text, 0.0, &[" K", "x"]), []);
    }

    #[test]
    fn a_word_goes_on_inside_a_character_that_tokens_cut() {
        let [start, end]: [u8; 2] = "\u{e9}".as_bytes().try_into().unwrap();
        let spellings = vec![b" caf".to_vec(), vec![start], vec![end]];
        let copying = Copying::of_text("caf\u{e9}", 6.0, 0.0, Arc::new(Vocabulary::new(spellings)));
        for (tokens, next) in [(&[0][..], 1), (&[0, 1], 2)] {
            let mut biases = Vec::new();
            copying.collect_biases(tokens, &mut biases);
            assert_eq!(biases, [(next, 6.0)]);
        }
    }

    #[test]
    fn a_name_is_begun_more_readily_until_it_stands_there_as_often_as_in_the_text() {
        assert_eq!(biases("the KDE", 1.0, &[]), [(" KD", 1.0)], "its longest token");
        assert_eq!(
            biases("the xfce4", 1.0, &[]),
            [(" x", 1.0), ("x", 1.0)],
            "without a space at the beginning"
        );
        assert_eq!(biases("the xfce4", 1.0, &[" K"]), [(" x", 1.0)]);
        assert_eq!(biases("the KDE", 1.0, &[" K", "DE", " ("]), []);
        assert_eq!(biases("the KDE of KDE", 1.0, &[" K", "DE", " ("]), [(" KD", 1.0)]);
    }

    #[test]
    fn a_name_that_stands_there_often_enough_is_not_favoured_again() {
        assert_eq!(biases("the KDE of KDE", 0.0, &[" K", "DE", " K"]), [("DE", 6.0)]);
        assert_eq!(biases("the KDE", 0.0, &[" K", "DE", " K"]), []);
    }

    #[test]
    fn a_whole_name_is_not_run_on_with_but_by_a_longer_word() {
        let running_on = ["x", "fce", "fc", "e4", "e", "DE", "panel", "s", "11"];
        assert_eq!(biases("an X", 0.0, &[" X"]), running_on.map(|token| (token, -6.0)));
        let longer = running_on.map(|token| (token, if token == "11" { 6.0 } else { -6.0 }));
        assert_eq!(biases("an X or X11", 0.0, &[" X"]), longer);
        assert_eq!(biases("an xfce", 0.0, &[" x", "fce"]), [], "a word, but no name");
    }

    #[test]
    fn the_name_that_comes_next_in_the_text_is_begun_more_readily_than_others() {
        let bias_of_x =
            |text, tokens: &[&str]| biases(text, 2.0, tokens).into_iter().find(|&(token, _)| token == " X");
        assert_eq!(bias_of_x("on KDE X11", &[]), Some((" X", 2.0)));
        assert_eq!(bias_of_x("on KDE X11", &[" K", "DE"]), Some((" X", 6.0)));
        assert_eq!(bias_of_x("on KDE, X11", &[" K", "DE", "-"]), Some((" X", 6.0)), "signs aside");
        assert_eq!(bias_of_x("on KDE. X11", &[" K", "DE"]), Some((" X", 2.0)), "of another sentence");
    }

    #[test]
    fn a_name_that_was_begun_is_gone_on_with_more_readily_than_other_words() {
        assert_eq!(biases("an xfce4", 2.0, &[" x"]), [(" x", 2.0), ("fce", 9.0), ("fc", 6.0)]);
        assert_eq!(biases("an xfce", 2.0, &[" x"]), [("fce", 6.0), ("fc", 3.0)]);
    }

    #[test]
    fn a_longer_capitalized_word_at_the_beginning_of_a_sentence_may_be_a_name() {
        assert_eq!(biases("Xpanel", 2.0, &[" X"]), [("panel", 9.0)]);
        assert_eq!(biases("Xpanel", 2.0, &[" X", "panel"])[0], ("x", -6.0), "it is not run on with");
        assert_eq!(biases("Xe", 2.0, &[" X"]), [("e", 6.0)]);
        assert_eq!(biases("Xe", 2.0, &[" X", "e"]), []);
    }

    #[test]
    fn a_finished_sequence_gains_by_whole_names_and_loses_by_those_too_many() {
        let reward = |text, tokens: &[&str]| copying(text, 2.0).reward(&ids(tokens));
        assert_eq!(reward("the KDE", &[" K", "DE", " x"]), 2.0);
        assert_eq!(reward("the KDE", &[" K", "DE", "s"]), 0.0);
        assert_eq!(reward("the KDE", &[" K", "DE", " KD", "e", " KD", "e"]), 2.0);
        assert_eq!(reward("the KDE", &[" K", "DE", " K", "DE", "-", " K", "DE"]), -2.0);
        assert_eq!(reward("the KDE of KDE", &[" K", "DE", " K", "DE"]), 4.0);
    }

    fn names_and_others(text: &str) -> (Vec<String>, Vec<String>) {
        let (names, others): (Vec<Word>, Vec<Word>) = words(text).into_iter().partition(|word| word.is_name);
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
        assert_eq!(occurrences("X, X11 and l'X-X, but not MaX or \u{e8}X", "X"), 3);
    }
}
