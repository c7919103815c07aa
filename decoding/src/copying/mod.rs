//! Copying: encourages an output to write words of the prompt's text exactly as the text has them, names
//! above all. Words are compared by their letters, however an output cuts them into tokens.

mod vocabulary;
mod words;
mod written;

use std::sync::Arc;

pub use vocabulary::Vocabulary;
use words::{Word, Words};
pub(crate) use written::WrittenWords;

/// Beginning the name that follows the last written word in the text gets the name bias times this factor.
const NEXT_NAME_FACTOR: f32 = 3.0;
/// The name bias, times this factor, is added to the copy bias for continuing a word that may be a name.
const GOING_ON_FACTOR: f32 = 1.5;
/// Shorter continuations of a word get this factor of the copy bias; the longest gets all. A model has seen
/// words cut in one way, and after another cut it knows less about their continuation.
const SHORTER_FACTOR: f32 = 0.5;
/// The biases of terms that an output must have.
const TERM_COPY_BIAS: f32 = 8.0;
const TERM_NAME_BIAS: f32 = 3.0;

/// The words that a row may copy: contextual biasing, known from speech recognition (Zhao et al., Interspeech
/// 2019). Tokens that continue a begun word are favoured, and tokens that run on past a complete name are
/// disfavoured. Tokens that begin a missing name can be favoured too, above all the name that comes next in
/// the text. A name counts as often as the text has it.
///
/// A sequence keeps its written words from token to token. The cost of a step depends only on the words that
/// may follow, and not on the length of text and output.
#[derive(Debug, Clone)]
pub struct Copying {
    /// Added to the logits of the longest token that continues a word; shorter tokens get half of it.
    /// Subtracted from tokens that run on past a complete word that may be a name. At least 0. For beams, the
    /// probabilities are normalized again.
    pub copy_bias: f32,
    /// The same for tokens that begin a name. The name after the last written word gets three times as much.
    /// One and a half times as much is added to the copy bias of a word that may be a name. Above 2, names
    /// begin where none belong. In a beam search, the log-probability of a finished sequence gains the bias
    /// for each correct name, and loses it for each name too many.
    pub name_bias: f32,
    words: Words,
    names: Vec<NameStart>,
    vocabulary: Arc<Vocabulary>,
}

/// The tokens that begin a name.
#[derive(Debug, Clone)]
struct NameStart {
    word: u32,
    /// The longest token after a space.
    spaced: Option<u32>,
    /// The longest token at the beginning of a text or after a sign.
    bare: Option<u32>,
}

impl Copying {
    /// The words of `text` that a model may copy whose tokens are those of `vocabulary`.
    #[must_use]
    pub fn of_text(text: &str, copy_bias: f32, name_bias: f32, vocabulary: Arc<Vocabulary>) -> Self {
        Self::of_words(Words::of(text), copy_bias, name_bias, vocabulary)
    }

    /// The same, with every word as a name that is favoured until the output has it: for terms that an output
    /// must have.
    #[must_use]
    pub fn of_terms(terms: &str, vocabulary: Arc<Vocabulary>) -> Self {
        Self::of_words(Words::of_names(terms), TERM_COPY_BIAS, TERM_NAME_BIAS, vocabulary)
    }

    fn of_words(words: Words, copy_bias: f32, name_bias: f32, vocabulary: Arc<Vocabulary>) -> Self {
        let name_start = |(word, Word { text, .. }): (u32, &Word)| {
            let spaced = format!(" {text}");
            let spaced = vocabulary.beginnings(spaced.as_bytes(), 2).next_back();
            let bare = vocabulary.beginnings(text.as_bytes(), 1).next_back();
            NameStart { word, spaced, bare }
        };
        let names = words.iter().filter(|(_, word)| word.is_name).map(name_start).collect();
        Self { copy_bias, name_bias, words, names, vocabulary }
    }

    /// Adds the tokens that a word can be made of, however it is cut.
    pub(crate) fn collect_tokens(&self, tokens: &mut Vec<u32>) {
        for (_, Word { text, .. }) in self.words.iter() {
            let spaced = format!(" {text}");
            tokens.extend(self.vocabulary.beginnings(spaced.as_bytes(), 2));
            let rests = (0..text.len()).map(|start| &text.as_bytes()[start..]);
            rests.for_each(|rest| tokens.extend(self.vocabulary.beginnings(rest, 1)));
        }
    }

    /// The state of a sequence without tokens.
    pub(crate) fn start(&self) -> WrittenWords {
        WrittenWords::new(&self.words)
    }

    /// Notes a token that a sequence has written.
    pub(crate) fn write(&self, written: &mut WrittenWords, token: u32) {
        written.write(&self.words, self.vocabulary.spelling(token));
    }

    /// Fills `biases` with the additions to the logits of tokens that may follow the output, each token once,
    /// in order.
    pub(crate) fn collect_biases(&self, written: &WrittenWords, biases: &mut Vec<(u32, f32)>) {
        if self.name_bias > 0.0 {
            let last_word = written.last_word().map(|word| self.words.get(word));
            let next_words = last_word.map_or(&[][..], |word| &word.next_words);
            for name in self.names.iter().filter(|name| self.is_wanted(written, name.word)) {
                let factor = if next_words.contains(&name.word) { NEXT_NAME_FACTOR } else { 1.0 };
                biases.extend(name.spaced.map(|token| (token, factor * self.name_bias)));
                let bare = name.bare.filter(|_| written.may_begin_word());
                biases.extend(bare.map(|token| (token, self.name_bias)));
            }
        }
        for (place, remainder) in written.remainders(&self.words) {
            let word = self.words.get(place);
            if word.is_name && !self.is_wanted(written, place) {
                continue;
            }
            let factor = if word.may_be_name() { GOING_ON_FACTOR } else { 0.0 };
            let bias = self.copy_bias + factor * self.name_bias;
            let mut going_on = self.vocabulary.beginnings(remainder, 1).rev();
            biases.extend(going_on.next().map(|longest| (longest, bias)));
            biases.extend(going_on.map(|shorter| (shorter, bias - SHORTER_FACTOR * self.copy_bias)));
        }
        let is_name = |place| self.words.get(place).may_be_name();
        if self.copy_bias > 0.0 && written.whole_words().any(is_name) {
            biases.extend(self.vocabulary.running_on().iter().map(|&token| (token, -self.copy_bias)));
        }
        biases.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        biases.dedup_by_key(|&mut (token, _)| token); // the largest of a token stays
    }

    /// The gain of a finished beam for the names that it has.
    pub(crate) fn reward(&self, written: &WrittenWords) -> f32 {
        if self.name_bias == 0.0 {
            return 0.0;
        }
        let gain = |name: &NameStart| {
            let num_written = written.count(name.word);
            let num_wanted = num_written.min(self.words.get(name.word).num_occurrences);
            num_wanted as f32 - (num_written - num_wanted) as f32
        };
        self.name_bias * self.names.iter().map(gain).sum::<f32>()
    }

    /// Whether a sequence has a word less often than the text.
    fn is_wanted(&self, written: &WrittenWords, word: u32) -> bool {
        written.count(word) < self.words.get(word).num_occurrences
    }
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

    fn written(copying: &Copying, tokens: &[u32]) -> WrittenWords {
        let mut written = copying.start();
        tokens.iter().for_each(|&token| copying.write(&mut written, token));
        written
    }

    fn ids(tokens: &[&str]) -> Vec<u32> {
        tokens.iter().map(|token| TOKENS.iter().position(|known| known == token).unwrap() as u32).collect()
    }

    fn biases(text: &str, name_bias: f32, tokens: &[&str]) -> Vec<(&'static str, f32)> {
        let mut biases = Vec::new();
        let copying = copying(text, name_bias);
        copying.collect_biases(&written(&copying, &ids(tokens)), &mut biases);
        biases.into_iter().map(|(token, bias)| (TOKENS[token as usize], bias)).collect()
    }

    #[test]
    fn the_continuation_of_a_word_is_favoured_for_any_cut_into_tokens() {
        let text = "a xfce-panel";
        assert_eq!(biases(text, 0.0, &[" x"]), [("fce", 6.0), ("fc", 3.0)], "the longest token most");
        assert_eq!(biases(text, 0.0, &[" x", "fc"]), [("e", 6.0)]);
        assert_eq!(biases(text, 0.0, &[" x", "fc", "e"]), [("-", 6.0)]);
        assert_eq!(biases(text, 0.0, &[" x", "fc", "e4"]), []);
    }

    #[test]
    fn a_word_without_a_space_continues_only_at_the_beginning_and_after_a_sign() {
        let text = "a xfce";
        assert_eq!(biases(text, 0.0, &["x"]), [("fce", 6.0), ("fc", 3.0)]);
        assert_eq!(biases(text, 0.0, &[" K", "-", "x"]), [("fce", 6.0), ("fc", 3.0)]);
        assert_eq!(biases(text, 0.0, &[" K", "x"]), []);
    }

    #[test]
    fn a_word_continues_inside_a_character_that_tokens_cut() {
        let [start, end]: [u8; 2] = "\u{e9}".as_bytes().try_into().unwrap();
        let spellings = vec![b" caf".to_vec(), vec![start], vec![end]];
        let copying = Copying::of_text("caf\u{e9}", 6.0, 0.0, Arc::new(Vocabulary::new(spellings)));
        for (tokens, next) in [(&[0][..], 1), (&[0, 1], 2)] {
            let mut biases = Vec::new();
            copying.collect_biases(&written(&copying, tokens), &mut biases);
            assert_eq!(biases, [(next, 6.0)]);
        }
    }

    #[test]
    fn a_name_is_favoured_until_the_output_has_it_as_often_as_the_text() {
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
    fn a_name_that_occurs_often_enough_is_not_favoured_again() {
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
        let reward = |text, tokens: &[&str]| {
            let copying = copying(text, 2.0);
            copying.reward(&written(&copying, &ids(tokens)))
        };
        assert_eq!(reward("the KDE", &[" K", "DE", " x"]), 2.0);
        assert_eq!(reward("the KDE", &[" K", "DE", "s"]), 0.0);
        assert_eq!(reward("the KDE", &[" K", "DE", " KD", "e", " KD", "e"]), 2.0);
        assert_eq!(reward("the KDE", &[" K", "DE", " K", "DE", "-", " K", "DE"]), -2.0);
        assert_eq!(reward("the KDE of KDE", &[" K", "DE", " K", "DE"]), 4.0);
    }

    /// Bytes of spellings that are looked up while an unspaced text with this many copies of a word is
    /// copied.
    fn num_bytes_looked_up(num_copies: usize) -> usize {
        let spellings = ["x", "-", "x-", "-x", "x-x"].map(|token| token.as_bytes().to_vec());
        let vocabulary = Arc::new(Vocabulary::new(spellings.into()));
        let text = vec!["x"; num_copies].join("-");
        let copying = Copying::of_text(&text, 6.0, 1.0, Arc::clone(&vocabulary));
        let (mut written, mut biases) = (copying.start(), Vec::new());
        for token in (0..2 * num_copies as u32).map(|place| place % 2) {
            biases.clear();
            copying.collect_biases(&written, &mut biases);
            copying.write(&mut written, token);
        }
        vocabulary.num_bytes_looked_up.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[test]
    fn copying_a_long_unspaced_text_costs_the_same_for_each_token() {
        let [short, long] = [200, 2000].map(num_bytes_looked_up);
        assert!(
            short > 0 && long < 11 * short,
            "{long} bytes for a text ten times as long as one of {short}"
        );
    }

    #[test]
    fn the_written_words_do_not_depend_on_the_cut_into_tokens() {
        let text = "The caf\u{e9}-au-lait of KDE, for GTK+ and l'\u{c9}t\u{e9} KDE";
        let output = "il caf\u{e9}-au-lait di KDE e \u{c9}t\u{e9} in KD \u{20ac} KDE caf\u{e9}-";
        let bytes: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        let copying = Copying::of_text(text, 6.0, 1.0, Arc::new(Vocabulary::new(bytes)));
        for end in 0..=output.len() {
            let output = &output.as_bytes()[..end];
            let mut at_once = copying.start();
            at_once.write(&copying.words, output);
            let by_byte: Vec<u32> = output.iter().map(|&byte| byte.into()).collect();
            let by_byte = written(&copying, &by_byte);
            let (mut biases, mut expected) = (Vec::new(), Vec::new());
            copying.collect_biases(&by_byte, &mut biases);
            copying.collect_biases(&at_once, &mut expected);
            assert_eq!(biases, expected);
            assert_eq!(copying.reward(&by_byte), copying.reward(&at_once));
        }
    }
}
