//! Words with a full stop that end no sentence.

/// Abbreviations that occur within sentences, in small letters.
const ABBREVIATIONS: [&str; 14] =
    ["approx", "cf", "dr", "fig", "gen", "mr", "mrs", "ms", "no", "prof", "sec", "st", "vol", "vs"];

/// Words before a full stop in names of files, hosts, modules and types, in small letters.
const NAME_BEGINNINGS: [&str; 34] = [
    "app", "array", "asp", "cmake", "com", "config", "console", "data", "date", "debian", "document", "file",
    "fmt", "ftp", "image", "io", "java", "json", "list", "math", "module", "node", "object", "org", "os",
    "path", "python", "react", "self", "string", "system", "test", "this", "www",
];

/// Words after it, in small letters.
const NAME_ENDS: [&str; 36] = [
    "app", "bat", "cfg", "cls", "com", "conf", "cpp", "css", "csv", "debian", "dll", "doc", "docx", "exe",
    "format", "gif", "htm", "html", "ini", "jpg", "js", "json", "log", "md", "net", "org", "pdf", "php",
    "png", "py", "rs", "sh", "txt", "xml", "yml", "zip",
];

/// Whether the final full stop belongs to the last word: an initial, a word with another full stop inside, or
/// a word on a list.
pub(crate) fn ends_in_abbreviation(sentence: &str) -> bool {
    let last_word = sentence.split_whitespace().next_back().unwrap_or_default();
    let Some(word) = last_word.strip_suffix('.') else { return false };
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let mut letters = word.chars();
    let is_initial = letters.next().is_some_and(char::is_uppercase) && letters.next().is_none();
    let has_inner_stops =
        word.split('.').count() > 1 && word.split('.').all(|part| part.chars().count() == 1);
    is_initial || has_inner_stops || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// Whether two words with a full stop between may be one name.
pub(crate) fn may_be_name(before: &str, behind: &str) -> bool {
    let behind = behind.to_lowercase();
    NAME_BEGINNINGS.contains(&before)
        || NAME_ENDS.contains(&behind.as_str())
        || ABBREVIATIONS.contains(&before)
}
