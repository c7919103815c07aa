//! Small numbers in words, so that a number that a model wrote in words can get its digits back.

use crate::code::language_of_code;

/// Forms of 0, 1, 2 and so on, separated by `|`; several forms of one number by white space.
const WORDS: [(&str, &str); 8] = [
    (
        "de",
        "null|ein eine einen einem einer eines eins|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|\
         dreizehn|vierzehn|fünfzehn|sechzehn|siebzehn|achtzehn|neunzehn|zwanzig",
    ),
    (
        "en",
        "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|\
         seventeen|eighteen|nineteen|twenty",
    ),
    (
        "es",
        "cero|un uno una|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|once|doce|trece|catorce|quince|\
         dieciséis|diecisiete|dieciocho|diecinueve|veinte",
    ),
    (
        "fr",
        "zéro|un une|deux|trois|quatre|cinq|six|sept|huit|neuf|dix|onze|douze|treize|quatorze|quinze|seize|\
         dix-sept|dix-huit|dix-neuf|vingt",
    ),
    (
        "it",
        "zero|un uno una|due|tre|quattro|cinque|sei|sette|otto|nove|dieci|undici|dodici|tredici|quattordici|\
         quindici|sedici|diciassette|diciotto|diciannove|venti",
    ),
    (
        "nl",
        "nul|een één|twee|drie|vier|vijf|zes|zeven|acht|negen|tien|elf|twaalf|dertien|veertien|vijftien|\
         zestien|zeventien|achttien|negentien|twintig",
    ),
    (
        "pl",
        "zero|jeden jedna jedno jednego jednej|dwa dwie dwóch dwaj|trzy trzech trzej|cztery czterech czterej|\
         pięć pięciu|sześć sześciu|siedem siedmiu|osiem ośmiu|dziewięć dziewięciu|dziesięć dziesięciu|\
         jedenaście|dwanaście|trzynaście|czternaście|piętnaście|szesnaście|siedemnaście|osiemnaście|\
         dziewiętnaście|dwadzieścia",
    ),
    (
        "pt",
        "zero|um uma|dois duas|três|quatro|cinco|seis|sete|oito|nove|dez|onze|doze|treze|catorze quatorze|\
         quinze|dezesseis dezasseis|dezessete dezassete|dezoito|dezenove dezanove|vinte",
    ),
];

/// Whether `word` is the number of these digits in words of `language`, a code such as `pt_BR`.
pub(crate) fn is_number_word(word: &str, digits: &str, language: &str) -> bool {
    let language = language_of_code(language);
    let Some((_, words)) = WORDS.iter().find(|(code, _)| *code == language) else { return false };
    let Ok(value) = digits.parse::<usize>() else { return false };
    let is_plain = digits == value.to_string(); // "007" is no count
    let mut forms = words.split('|').nth(value).unwrap_or_default().split_whitespace();
    is_plain && forms.any(|form| form == word.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_have_words() {
        assert!(is_number_word("Sete", "7", "pt_BR") && is_number_word("duas", "2", "pt"));
        assert!(is_number_word("venti", "20", "it") && is_number_word("dix-sept", "17", "fr"));
        for (word, digits, language) in
            [("sete", "8", "pt"), ("sete", "7", "ja"), ("sete", "07", "pt"), ("vinte", "21", "pt")]
        {
            assert!(!is_number_word(word, digits, language), "{word} {digits} {language}");
        }
    }

    #[test]
    fn every_language_has_the_numbers_up_to_twenty() {
        for (language, words) in WORDS {
            assert_eq!(words.split('|').count(), 21, "{language}");
        }
    }
}
