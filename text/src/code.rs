//! Codes of languages, as models and people write them: `pt`, `pt_BR`, `por`, `por_Latn`, `zh-Hans`.

/// Codes of three letters (ISO 639-2 and 639-3) with those of two letters, for the languages of which this
/// crate knows something.
const THREE_LETTERS: [(&str, &str); 92] = [
    ("afr", "af"),
    ("ara", "ar"),
    ("arb", "ar"),
    ("asm", "as"),
    ("bel", "be"),
    ("ben", "bn"),
    ("bul", "bg"),
    ("cat", "ca"),
    ("ces", "cs"),
    ("chi", "zh"),
    ("cmn", "zh"),
    ("cze", "cs"),
    ("dan", "da"),
    ("deu", "de"),
    ("dut", "nl"),
    ("ekk", "et"),
    ("ell", "el"),
    ("eng", "en"),
    ("epo", "eo"),
    ("est", "et"),
    ("fas", "fa"),
    ("fin", "fi"),
    ("fra", "fr"),
    ("fre", "fr"),
    ("geo", "ka"),
    ("ger", "de"),
    ("glg", "gl"),
    ("gre", "el"),
    ("guj", "gu"),
    ("heb", "he"),
    ("hin", "hi"),
    ("hrv", "hr"),
    ("hun", "hu"),
    ("hye", "hy"),
    ("ice", "is"),
    ("ind", "id"),
    ("isl", "is"),
    ("ita", "it"),
    ("jpn", "ja"),
    ("kan", "kn"),
    ("kat", "ka"),
    ("kaz", "kk"),
    ("khk", "mn"),
    ("kir", "ky"),
    ("kor", "ko"),
    ("lao", "lo"),
    ("lav", "lv"),
    ("lit", "lt"),
    ("lvs", "lv"),
    ("mac", "mk"),
    ("mal", "ml"),
    ("mar", "mr"),
    ("mkd", "mk"),
    ("mon", "mn"),
    ("nep", "ne"),
    ("nld", "nl"),
    ("nno", "nn"),
    ("nob", "nb"),
    ("nor", "no"),
    ("npi", "ne"),
    ("ori", "or"),
    ("ory", "or"),
    ("pan", "pa"),
    ("pbt", "ps"),
    ("per", "fa"),
    ("pes", "fa"),
    ("pol", "pl"),
    ("por", "pt"),
    ("prs", "fa"),
    ("pus", "ps"),
    ("ron", "ro"),
    ("rum", "ro"),
    ("rus", "ru"),
    ("sin", "si"),
    ("slk", "sk"),
    ("slo", "sk"),
    ("slv", "sl"),
    ("spa", "es"),
    ("srp", "sr"),
    ("swe", "sv"),
    ("tam", "ta"),
    ("tel", "te"),
    ("tgk", "tg"),
    ("tha", "th"),
    ("tur", "tr"),
    ("uig", "ug"),
    ("ukr", "uk"),
    ("urd", "ur"),
    ("vie", "vi"),
    ("ydd", "yi"),
    ("yid", "yi"),
    ("zho", "zh"),
];

/// The language of a code, in two letters if it has such a code.
pub(crate) fn language_of_code(code: &str) -> &str {
    let language = code.split(['-', '_']).next().unwrap_or_default();
    let of_three = THREE_LETTERS.binary_search_by_key(&language, |&(long, _)| long);
    of_three.map_or(language, |place| THREE_LETTERS[place].1)
}

/// The script that a code names (ISO 15924), such as `Cyrl` in `srp_Cyrl`.
pub(crate) fn script_of_code(code: &str) -> Option<&str> {
    let mut parts = code.split(['-', '_']).skip(1);
    parts.find(|part| part.len() == 4 && part.starts_with(|first: char| first.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_three_letters_are_sorted_for_the_search() {
        assert!(THREE_LETTERS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn the_language_of_a_code_is_known_however_it_is_written() {
        for code in ["pt", "pt_BR", "pt-BR", "por", "por_Latn"] {
            assert_eq!(language_of_code(code), "pt");
        }
        assert_eq!(language_of_code("zho_Hans"), "zh");
        assert_eq!(language_of_code("yue_Hant"), "yue");
        assert_eq!(language_of_code(""), "");
    }

    #[test]
    fn a_code_may_name_a_script() {
        assert_eq!(script_of_code("srp_Cyrl"), Some("Cyrl"));
        assert_eq!(script_of_code("zh-Hant-TW"), Some("Hant"));
        for code in ["pt_BR", "en", "eng", "es-valencia", ""] {
            assert_eq!(script_of_code(code), None, "{code}");
        }
    }
}
