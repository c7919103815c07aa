//! The patterns for units of each kind, and the matches that are no units because of their surroundings.

use std::ops::Range;

use crate::placeholder;
use crate::unit::UnitKind;

/// Endings of file names that mark a file even without a path.
const FILE_ENDINGS: &str = "txt|md|rst|pdf|html?|css|jsx?|tsx?|json|jsonl|ya?ml|toml|xml|svg|csv|tsv|ini|cfg|conf|\
    log|py|rs|go|rb|java|kt|cs|cpp|hpp|cc|c|h|sh|bash|bat|ps1|sql|php|pl|lua|swift|png|jpe?g|gif|webp|ico|bmp|\
    mp[34]|wav|ogg|flac|avi|mkv|mov|zip|gz|bz2|xz|zst|tar|tgz|7z|rar|deb|rpm|exe|dll|so|dmg|iso|apk|jar|\
    docx?|xlsx?|pptx?|odt|ods|odp|epub|po|pot|mo|lock|bak|tmp|parquet|safetensors|gguf";

/// Top-level domains that mark a site even without `www.` or a scheme; none is a word.
const DOMAINS: &str = "com|org|net|io|dev|edu|gov|mil|info|biz|app|ai|tv|eu|uk|de|fr|es|pt|br|nl|pl|ru|cn|jp|ch|\
    se|fi|dk|ca|au|nz|example|local";

/// Symbols of units after a number that consist of letters.
const UNITS: &str = "[kMGTP]i?(?:[Bb]|bit)(?:/s)?|[kMGT]bps|bps|[kMGT]?Hz|[kcmnµμ]m(?:/h)?|m/s|\
    km/s|mph|mg|kg|[µμ]g|ml|cl|dl|hPa|kPa|[kMGT]Wh?|mAh?|Ah|[mkµμ]V|ms|[µμ]s|ns|dBA?|dpi|ppi|px|fps|rpm|bpm|kcal|\
    k[JN]|ppm";

/// Codes of currencies.
const CURRENCIES: &str =
    "USD|EUR|GBP|JPY|CHF|BRL|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RUB|KRW|MXN|ARS|TRY|ZAR";

impl UnitKind {
    /// The pattern of each kind, tried at a place in the order of [`UnitKind::ALL`]. `None` for kinds that
    /// are found in other ways.
    pub(crate) fn patterns(self) -> Vec<String> {
        let number = r"[0-9](?:[0-9.,]*[0-9])?";
        let space = r"[\s\x{a0}\x{202f}]?";
        let plain = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        match self {
            UnitKind::Pattern | UnitKind::Term | UnitKind::Script | UnitKind::Emphasis => Vec::new(),
            UnitKind::Code => {
                let element = |name| format!(r"<{name}\b[^<>]*>(?s:.)*?</{name}>");
                let elements = ["code", "kbd", "samp", "pre", "script", "style"].map(element);
                [plain(&[r"``[^\n]+?``", r"`[^`\n]+`"]), elements.to_vec()].concat()
            }
            UnitKind::Link => {
                let rest = r"[^\s<>\x22“”«»`]";
                let label = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
                vec![
                    format!(r"[A-Za-z][A-Za-z0-9+.-]*://{rest}+"),
                    format!(r"(?:mailto|tel|urn|data|magnet):{rest}+"),
                    format!(r"www\.{rest}+"),
                    format!(r"(?:{label}\.)+(?:{DOMAINS})\b(?:[:/]{rest}+)?"),
                ]
            }
            UnitKind::Email => plain(&[r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"]),
            UnitKind::Tag => plain(&[
                r"<!--(?s:.)*?-->",
                r"<![A-Za-z\[][^<>]*>",
                r"</?[0-9]+/?>",
                r"</?[A-Za-z][A-Za-z0-9:._-]*(?:\s(?:\x22[^\x22\n]*\x22|'[^'\n]*'|[^<>\x22'])*)?/?>",
                r"</?[A-Za-z][A-Za-z0-9:._-]*(?:\s[^<>]*)?/?>", // with a stray quote
            ]),
            UnitKind::Entity => plain(&[r"&(?:\#[0-9]+|\#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]{1,31});"]),
            UnitKind::Placeholder => plain(&[placeholder::PATTERN]),
            UnitKind::Path => vec![
                r"(?:[A-Za-z]:[\\/]|~/|\.{1,2}/|/|\\\\)[\w.+@$~-]+(?:[/\\][\w.+@*$~-]+)*[/\\]?".to_owned(),
                r"[A-Za-z_][\w@-]*(?:/[\w.@-]+)*/[\w@-][\w.@-]*\.[a-z][a-z0-9]{0,4}\b".to_owned(),
                format!(r"[\w-]+(?:\.[\w-]+)*\.(?:{FILE_ENDINGS})\b"),
                r"--[a-z][a-z0-9-]+(?:=[^\s,;)]+)?".to_owned(),
                r"-[A-Za-z]\b".to_owned(),
            ],
            UnitKind::Amount => vec![
                r"[-+±−]?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+\b".to_owned(),
                format!(r"[-+±−]?(?:US|R|AU|CA|NZ|HK|A|C)?[€$£¥₹₽₩₺]\s?{number}(?:\s?(?:[kKMB]|bn|mln)\b)?"),
                format!(r"\b(?:{CURRENCIES})\s?{number}\b"),
                format!(
                    r"[-+±−]?{number}{space}(?:%%?|‰|°\s?[CFK]?\b|°|[€£¥₹₽₩₺]|[kcdmnµμ]?m[²³]|(?:{UNITS}|{CURRENCIES})\b)"
                ),
                format!(r"±\s?{number}\b"),
            ],
            UnitKind::Identifier => plain(&[
                r"[A-Za-z_][\w.]*\(\)",
                r"[A-Za-z_]\w*(?:::\w+)+",
                r"C\+\+",
                r"[CF]\#",
                r"\#[\w-]+",
                r"[A-Za-z0-9_₀-₉⁰-⁹²³¹]+(?:[-_.+/][A-Za-z0-9_₀-₉⁰-⁹²³¹]+)*",
            ]),
            UnitKind::Emoji => plain(&[concat!(
                r"(?:[\x{1F1E6}-\x{1F1FF}]{2}",
                r"|[\x{1F300}-\x{1FAFF}\x{2600}-\x{27BF}\x{2B00}-\x{2BFF}][\x{FE0F}\x{1F3FB}-\x{1F3FF}]*",
                r"[\x{E0020}-\x{E007F}]*",
                r"(?:\x{200D}[\x{1F300}-\x{1FAFF}\x{2600}-\x{27BF}][\x{FE0F}\x{1F3FB}-\x{1F3FF}]*)*",
                r"|[0-9\#*]\x{FE0F}?\x{20E3})+",
            )]),
            // signs, and operators and brackets that many models cannot spell
            UnitKind::Sign => plain(&[
                r"(?:[\p{So}\p{Sm}\p{Sc}\p{No}§¶†‡•‣′″‰№ℹ‼⁉&&[^+<>=|~^¬$°]]\x{FE0F}?)+",
                r"[<>]+[-=]*>?",
                r"[-=]+>",
                r"[{}\\~^`@\#]+",
            ]),
        }
    }
}

/// The part of a match that is the unit, judged by the text around it.
pub(crate) fn accepted(text: &str, kind: UnitKind, range: Range<usize>) -> Option<Range<usize>> {
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    let found = &text[range.clone()];
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match kind {
        UnitKind::Link => {
            let kept = without_sentence_end(found);
            let is_link = kept.contains('.') || kept.contains(':') && !kept.ends_with("://");
            (is_link && !in_word(before)).then(|| range.start..range.start + kept.len())
        }
        UnitKind::Email => (!in_word(before)).then_some(range),
        UnitKind::Amount => {
            let is_sign = found.starts_with(['-', '+', '−']) && in_word(before);
            match is_sign {
                true => accepted(
                    text,
                    kind,
                    range.start + text[range.start..].chars().next()?.len_utf8()..range.end,
                ),
                false => (!in_word(before)).then_some(range),
            }
        }
        UnitKind::Placeholder => placeholder::whole(text, range),
        UnitKind::Path => {
            let kept = found.trim_end_matches(['.', ',', '-']);
            let starts_free = before.is_none_or(|c| c.is_whitespace() || "\"'(«“[=:>`‘".contains(c));
            let is_one_step = found.starts_with('/') && !kept[1..].contains('/') && kept.len() < 3;
            let is_option = found.len() > 2 || !found.starts_with('-') || !in_word(after);
            (starts_free && is_option && !is_one_step && kept.len() > 1)
                .then(|| range.start..range.start + kept.len())
        }
        UnitKind::Identifier => {
            let is_whole = !in_word(before) && (after.is_none_or(|c| !(c.is_alphanumeric() || c == '_')));
            (is_whole && is_identifier(found)).then_some(range)
        }
        _ => Some(range),
    }
}

/// A link without a full stop or bracket at its end that belongs to the sentence.
fn without_sentence_end(link: &str) -> &str {
    let mut link = link;
    loop {
        let shorter = link.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '’', '*', '…', '}']);
        let shorter = match shorter.strip_suffix(')') {
            Some(rest) if !rest.contains('(') => rest,
            _ => match shorter.strip_suffix(']') {
                Some(rest) if !rest.contains('[') => rest,
                _ => shorter,
            },
        };
        if shorter.len() == link.len() {
            return link;
        }
        link = shorter;
    }
}

/// Whether a word has the same spelling in every language: a name of a program, a version, or mixed letters
/// and digits with a capital, an underscore or a small figure. Not "3rd", "1990s", "10PM".
fn is_identifier(word: &str) -> bool {
    let has = |test: fn(char) -> bool| word.chars().any(test);
    let is_small_figure = |c: char| "₀₁₂₃₄₅₆₇₈₉⁰⁴⁵⁶⁷⁸⁹²³¹".contains(c);
    if word.ends_with("()") || word.contains("::") || word.ends_with("++") || word.contains('#') {
        return true;
    }
    if has(is_small_figure) {
        return has(char::is_alphabetic);
    }
    if word.contains('_') {
        let is_name = word.trim_matches('_').contains('_') || word.starts_with("__") && word.ends_with("__");
        return is_name && has(|c| c.is_ascii_alphabetic()); // "_so_" is emphasis
    }
    let figures = word.strip_prefix('v').unwrap_or(word);
    let is_date = word.len() == 10
        && word.split('-').map(str::len).eq([4, 2, 2])
        && word.chars().all(|c| c.is_ascii_digit() || c == '-');
    let is_version = figures.split('.').filter(|part| !part.is_empty()).count() >= 3
        && figures.chars().all(|c| c.is_ascii_digit() || c == '.');
    let is_time = word.ends_with("AM") || word.ends_with("PM");
    let is_one_word = word.chars().all(|c| c.is_ascii_alphanumeric());
    let begins_small = word.starts_with(|c: char| c.is_ascii_lowercase());
    let is_name = has(|c| c.is_ascii_digit())
        && (has(|c| c.is_ascii_uppercase()) && !is_time || is_one_word && begins_small);
    is_version || is_date || is_name
}
