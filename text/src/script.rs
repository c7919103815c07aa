//! Scripts: which letters belong to a language, and which runs of letters do not.

use std::ops::Range;

use crate::code::{language_of_code, script_of_code};
use crate::normal::is_invisible;

/// The scripts that are distinguished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Hebrew,
    Arabic,
    Indic,
    Thai,
    Georgian,
    EastAsian,
}

const ALL: [Script; 10] = [
    Script::Latin,
    Script::Greek,
    Script::Cyrillic,
    Script::Armenian,
    Script::Hebrew,
    Script::Arabic,
    Script::Indic,
    Script::Thai,
    Script::Georgian,
    Script::EastAsian,
];

impl Script {
    /// The script that a language is mostly written in, or that its code names: `en`, `pt_BR`, `srp_Latn`.
    pub(crate) fn of_language(code: &str) -> Script {
        if let Some(script) = script_of_code(code).and_then(Script::named) {
            return script;
        }
        match language_of_code(code) {
            "el" => Script::Greek,
            "ru" | "uk" | "be" | "bg" | "mk" | "sr" | "kk" | "ky" | "mn" | "tg" => Script::Cyrillic,
            "hy" => Script::Armenian,
            "he" | "iw" | "yi" => Script::Hebrew,
            "ar" | "fa" | "ur" | "ps" | "ckb" | "ug" => Script::Arabic,
            "hi" | "bn" | "ta" | "te" | "mr" | "gu" | "kn" | "ml" | "pa" | "ne" | "si" | "or" | "as" => {
                Script::Indic
            }
            "th" | "lo" => Script::Thai,
            "ka" => Script::Georgian,
            "zh" | "ja" | "ko" | "yue" => Script::EastAsian,
            _ => Script::Latin,
        }
    }

    /// By its code of ISO 15924; `None` for a script that is not distinguished.
    fn named(code: &str) -> Option<Script> {
        Some(match code {
            "Latn" => Script::Latin,
            "Grek" => Script::Greek,
            "Cyrl" => Script::Cyrillic,
            "Armn" => Script::Armenian,
            "Hebr" => Script::Hebrew,
            "Arab" => Script::Arabic,
            "Deva" | "Beng" | "Taml" | "Telu" | "Gujr" | "Knda" | "Mlym" | "Guru" | "Sinh" | "Orya" => {
                Script::Indic
            }
            "Thai" | "Laoo" => Script::Thai,
            "Geor" => Script::Georgian,
            "Hans" | "Hant" | "Jpan" | "Hang" | "Kore" => Script::EastAsian,
            _ => return None,
        })
    }

    /// The script of a letter; `None` for signs, and for letters of other scripts.
    pub(crate) fn of(c: char) -> Option<Script> {
        if c.is_whitespace() || is_invisible(c) {
            return None;
        }
        match u32::from(c) {
            0x41..=0x5A
            | 0x61..=0x7A
            | 0xAA
            | 0xBA
            | 0xC0..=0xD6
            | 0xD8..=0xF6
            | 0xF8..=0x2AF
            | 0x1E00..=0x1EFF => Some(Script::Latin),
            0x370..=0x3FF | 0x1F00..=0x1FFF => Some(Script::Greek),
            0x400..=0x52F => Some(Script::Cyrillic),
            0x530..=0x58F => Some(Script::Armenian),
            0x590..=0x5FF => Some(Script::Hebrew),
            0x600..=0x6FF | 0x750..=0x77F | 0x8A0..=0x8FF => Some(Script::Arabic),
            0x900..=0xDFF => Some(Script::Indic),
            0xE00..=0xEFF => Some(Script::Thai),
            0x10A0..=0x10FF => Some(Script::Georgian),
            0x1100..=0x11FF | 0x2E80..=0x9FFF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF => {
                Some(Script::EastAsian)
            }
            _ => None,
        }
    }
}

/// The runs of letters of other scripts than `own`, with the text between them in one phrase. Without `own`,
/// the script of most letters is the text's own.
pub(crate) fn runs_of_other_scripts(text: &str, own: Option<Script>) -> Vec<Range<usize>> {
    let count = |script: &Script| text.chars().filter(|&c| Script::of(c) == Some(*script)).count();
    let own = own.unwrap_or_else(|| ALL.into_iter().rev().max_by_key(count).unwrap_or(Script::Latin));
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (start, c) in text.char_indices() {
        if Script::of(c).is_none_or(|script| script == own) {
            continue;
        }
        let end = start + c.len_utf8();
        let is_phrase = |gap: &str| {
            gap.chars().all(|c| Script::of(c).is_none() && !c.is_ascii_punctuation() && c != '\n')
        };
        match runs.last_mut() {
            Some(last) if is_phrase(&text[last.end..start]) => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_other_scripts_are_whole_phrases() {
        let text = "by Иван Петров, and 山田";
        let runs =
            |own| runs_of_other_scripts(text, own).into_iter().map(|run| &text[run]).collect::<Vec<_>>();
        assert_eq!(runs(Some(Script::Latin)), ["Иван Петров", "山田"]);
        assert_eq!(runs(None), ["by", "and 山田"], "most letters are Cyrillic");
        assert_eq!(Script::of_language("pt_BR"), Script::Latin);
        assert_eq!(Script::of('\u{61C}'), None, "a mark of direction, in the block of Arabic letters");
    }
}
