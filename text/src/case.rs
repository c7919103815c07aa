//! The case of a sentence. Capitals and Title Case are lowered for a model, which has seen few of them, and
//! restored in its output.

/// How a text's letters are cased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// As sentences are; left alone.
    Sentence,
    /// EVERY LETTER A CAPITAL.
    Upper,
    /// Each Long Word Capitalized.
    Title,
}

/// Words with up to this many letters may stay small in a title.
const SMALL_WORD: usize = 3;
/// A title has at least this many words. Names have capitals too, so shorter texts stay unchanged.
const MIN_TITLE_WORDS: usize = 4;
/// From this many words on, capitals alone make a sentence; fewer may be an acronym or a name.
const MIN_UPPER_WORDS: usize = 2;

impl Case {
    /// The case of `text`.
    pub(crate) fn of(text: &str) -> Case {
        let words: Vec<&str> =
            text.split_whitespace().filter(|word| word.contains(char::is_alphabetic)).collect();
        let num_letters = text.chars().filter(|c| c.is_alphabetic()).count();
        let has_small = text.contains(char::is_lowercase);
        if !has_small
            && words.len() >= MIN_UPPER_WORDS
            && num_letters >= 8
            && text.contains(char::is_uppercase)
        {
            return Case::Upper;
        }
        let long: Vec<&&str> = words
            .iter()
            .filter(|word| word.chars().filter(|c| c.is_alphabetic()).count() > SMALL_WORD)
            .collect();
        let is_sentence = text.trim_end().ends_with(['.', '!', '?', ';', ':']);
        let is_title = !is_sentence
            && words.len() >= MIN_TITLE_WORDS
            && long.len() >= 3
            && long.iter().all(|word| is_capitalized(word));
        if is_title { Case::Title } else { Case::Sentence }
    }

    /// The word at the text's beginning keeps its capital; others are lowered according to the case. `kept`
    /// tells whether a byte of `text` must stay unchanged. Only letters whose small form has as many bytes
    /// are lowered, so that places in the text stay.
    pub(crate) fn lower(self, text: &str, kept: impl Fn(usize) -> bool) -> String {
        if self == Case::Sentence {
            return text.to_owned();
        }
        let mut lowered = String::with_capacity(text.len());
        let mut is_word_start = true;
        let mut is_first_letter = true;
        let mut word_is_mixed = false;
        for (place, c) in text.char_indices() {
            if is_word_start && c.is_alphabetic() {
                let word = text[place..].split(char::is_whitespace).next().unwrap_or_default();
                word_is_mixed = self == Case::Title && !is_capitalized_plainly(word);
            }
            let lowers = c.is_uppercase() && !is_first_letter && !kept(place) && !word_is_mixed;
            let small = small_form(c).filter(|_| lowers).unwrap_or(c);
            lowered.push(small);
            if c.is_alphabetic() {
                is_first_letter = false;
            }
            is_word_start = !(c.is_alphanumeric() || c == '\'' || c == '’');
        }
        lowered
    }

    /// A model's output in the case of its source; `kept` as above. Places in the text stay.
    pub(crate) fn restore(self, written: &str, kept: impl Fn(usize) -> bool) -> String {
        if self == Case::Sentence {
            return written.to_owned();
        }
        let mut restored = String::with_capacity(written.len());
        let mut is_word_start = true;
        let mut is_first_word = true;
        for (place, c) in written.char_indices() {
            let raises = match self {
                Case::Upper => true,
                _ if is_word_start && c.is_lowercase() => {
                    let word: String = written[place..].chars().take_while(|c| c.is_alphabetic()).collect();
                    is_first_word || word.chars().count() > SMALL_WORD
                }
                _ => false,
            };
            let capital = capital_form(c).filter(|_| raises && !kept(place));
            restored.push(capital.unwrap_or(c));
            if c.is_alphabetic() {
                is_first_word = false;
            }
            is_word_start = !(c.is_alphanumeric() || c == '\'' || c == '’');
        }
        restored
    }
}

fn small_form(c: char) -> Option<char> {
    let mut small = c.to_lowercase();
    let first = small.next()?;
    (small.next().is_none() && first.len_utf8() == c.len_utf8()).then_some(first)
}

fn capital_form(c: char) -> Option<char> {
    let mut capital = c.to_uppercase();
    let first = capital.next()?;
    (capital.next().is_none() && first.len_utf8() == c.len_utf8()).then_some(first)
}

fn is_capitalized(word: &str) -> bool {
    word.chars().find(|c| c.is_alphanumeric()).is_some_and(|c| c.is_uppercase() || c.is_numeric())
}

/// One capital, then small letters, up to a hyphen; "StatusNotifier" and "NASA" are names.
fn is_capitalized_plainly(word: &str) -> bool {
    word.split('-').all(|part| part.chars().skip(1).all(|c| !c.is_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_and_titles_are_lowered_and_restored() {
        let upper = "MODULE TO SUPPORT THE PROTOCOL";
        assert_eq!(Case::of(upper), Case::Upper);
        assert_eq!(Case::Upper.lower(upper, |_| false), "Module to support the protocol");
        assert_eq!(Case::Upper.restore("Modulo per il protocollo", |_| false), "MODULO PER IL PROTOCOLLO");
        let title = "Automatic Policy Configuration of StatusNotifier in the NASA";
        assert_eq!(Case::of(title), Case::Title);
        assert_eq!(
            Case::Title.lower(title, |_| false),
            "Automatic policy configuration of StatusNotifier in the NASA"
        );
        assert_eq!(
            Case::Title.restore("configurazione di una politica", |_| false),
            "Configurazione di una Politica"
        );
    }

    #[test]
    fn sentences_names_and_acronyms_are_left_alone() {
        for text in [
            "NASA",
            "GNU Hurd",
            "New York",
            "The tools of the GNU Project",
            "It Is A Tool",
            "Today's Player is Alex Ovechkin of the Washington Capitals.",
        ] {
            assert_eq!(Case::of(text), Case::Sentence, "{text}");
        }
    }

    #[test]
    fn kept_words_keep_their_case() {
        let text = "OPEN %S NOW, PLEASE";
        let kept = |place: usize| (5..7).contains(&place);
        assert_eq!(Case::Upper.lower(text, kept), "Open %S now, please");
        assert_eq!(Case::Upper.restore("apri %s ora", kept), "APRI %s ORA");
    }
}
