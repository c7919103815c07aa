//! Plain text for a model: composed letters, plain spaces, nothing invisible, each byte with its origin.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// A text being built, which knows the origin of each of its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traced {
    pub(crate) text: String,
    /// For each byte of `text`, the byte of the original at which its character starts.
    pub(crate) origins: Vec<u32>,
}

impl Traced {
    fn push(&mut self, c: char, origin: usize) {
        self.text.push(c);
        let origin = u32::try_from(origin).unwrap_or(u32::MAX); // texts are limited far below
        self.origins.resize(self.text.len(), origin);
    }

    /// Appends `original`, which starts at byte `start` of the whole, as a model should see it. Runs of white
    /// space become one space, or the end of a paragraph, also across calls; none begins the text.
    pub(crate) fn push_normal(&mut self, original: &str, start: usize) {
        let mut chars = original.char_indices().peekable();
        while let Some((offset, c)) = chars.next() {
            let mut cluster_end = offset + c.len_utf8();
            while let Some(&(next, mark)) = chars.peek() {
                if !is_combining_mark(mark) {
                    break;
                }
                cluster_end = next + mark.len_utf8();
                chars.next();
            }
            for plain in plain_cluster(&original[offset..cluster_end]).chars() {
                if !plain.is_whitespace() {
                    self.push(plain, start + offset);
                } else if ends_paragraph(&original[offset..]) {
                    self.trim_end();
                    if !self.text.is_empty() {
                        self.push('\n', start + offset);
                        self.push('\n', start + offset);
                    }
                } else if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
                    self.push(' ', start + offset);
                }
            }
        }
    }

    /// Appends `seen` in place of `original`: character for character, or as a whole. As a whole, all but the
    /// last character come from the beginning of the original, and the last one from its end.
    pub(crate) fn push_in_place_of(&mut self, original: &str, seen: &str, start: usize) {
        let num_chars = seen.chars().count();
        let places: Vec<usize> = original.char_indices().map(|(place, _)| place).collect();
        let last = places.last().copied().unwrap_or_default();
        for (number, c) in seen.chars().enumerate() {
            let offset = match places.len() == num_chars {
                true => places[number],
                false if number + 1 == num_chars => last,
                false => 0,
            };
            self.push(c, start + offset);
        }
    }

    /// Cuts white space at the end.
    pub(crate) fn trim_end(&mut self) {
        self.text.truncate(self.text.trim_end().len());
        self.origins.truncate(self.text.len());
    }
}

/// Whether a text begins with white space that has an empty line.
fn ends_paragraph(text: &str) -> bool {
    let space = &text[..text.len() - text.trim_start().len()];
    space.matches('\n').count() > 1
}

/// A letter with its marks as in training texts: composed, of usual width, no ligature, nothing invisible.
/// Empty if all of it is invisible: some marks without width combine with the letter before them.
fn plain_cluster(cluster: &str) -> String {
    let visible: String = cluster.chars().filter(|&c| !is_invisible(c)).collect();
    let Some(first) = visible.chars().next() else { return visible };
    let cluster = visible.as_str();
    let plain: String = match first {
        '\u{FB00}'..='\u{FB06}' | '\u{FF01}'..='\u{FF5E}' => cluster.nfkc().collect(),
        c if c.is_control() || c.is_whitespace() => " ".to_owned(),
        '\u{3164}' | '\u{2800}' => " ".to_owned(), // letters that look like a space
        _ => cluster.to_owned(),
    };
    plain.nfc().collect()
}

/// Characters without width that say how text breaks or runs: soft hyphen, joiners, direction marks, BOM,
/// variation selectors and tags.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{E0000}'..='\u{E01EF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        let mut traced = Traced::default();
        traced.push_normal(text, 0);
        traced.trim_end();
        traced.text
    }

    #[test]
    fn texts_that_look_alike_are_alike() {
        for text in [
            "The cafe\u{301} menu",
            "The\u{a0}café menu",
            "The  café\tmenu",
            "The\u{200b} café\u{200e} menu",
            "The ca\u{ad}fé menu\u{feff}",
            "The ca\u{34f}fe\u{34f}\u{301} me\u{61c}nu\u{fe0f}",
            "\u{1}The café\r\nmenu ",
            "Ｔｈｅ café ｍｅｎｕ",
        ] {
            assert_eq!(plain(text), "The café menu", "{text:?}");
        }
        assert_eq!(plain("It \u{fb01}nds ½ of it"), "It finds ½ of it");
        assert_eq!(plain("One\nline.\r\n \r\nAnother"), "One line.\n\nAnother");
    }

    #[test]
    fn each_byte_knows_its_origin() {
        let original = "a  e\u{301}\u{200b}b";
        let mut traced = Traced::default();
        traced.push_normal(original, 10);
        assert_eq!(traced.text, "a éb");
        assert_eq!(traced.origins, [10, 11, 13, 13, 19]);
    }
}
