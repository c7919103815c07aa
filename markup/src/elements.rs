//! Elements of HTML by their role in a text.

/// Elements that stand within a sentence. All others, unknown ones too, part texts.
const INLINE: [&str; 42] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
    "i", "img", "ins", "kbd", "label", "mark", "nobr", "output", "q", "rb", "rp", "rt", "ruby", "s", "samp",
    "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr", "x", "g",
];

/// Elements whose content is left alone.
const PROTECTED: [&str; 12] = [
    "code", "kbd", "math", "noembed", "pre", "samp", "script", "style", "svg", "template", "textarea", "xmp",
];

/// Elements without content.
const VOID: [&str; 14] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
    "wbr",
];

/// Whether an element stands within a sentence.
pub(crate) fn is_inline(name: &str) -> bool {
    INLINE.contains(&name)
}

/// Whether the content of an element is left alone.
pub(crate) fn is_protected(name: &str) -> bool {
    PROTECTED.contains(&name)
}

/// Whether an element has no content.
pub(crate) fn is_void(name: &str) -> bool {
    VOID.contains(&name)
}
