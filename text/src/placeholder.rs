//! Placeholders: variables of printf, strftime, ICU, Python, Rust, .NET, Qt, shells and templates.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// The beginnings of placeholders; [`whole`] finds their ends. For placeholders in braces it is only the
/// brace.
pub(crate) const PATTERN: &str = concat!(
    r"[$\#%]?\{|\$[A-Za-z_]*\([^()\n]*\)|<%[^\n]*?%>|<\?[^\n]*?\?>",
    r"|%%[A-Za-z]\w*%%|\#\#[A-Za-z]\w*\#\#|__[A-Z][A-Z0-9_]*__|\[\[[^\[\]\n]+\]\]",
    r"|%[A-Za-z_][\w.]+%",
    r"|%\([A-Za-z_][\w.]*\)[-\#0+]*[0-9]*(?:\.[0-9]+)?[A-Za-z]|%<\w+>[-\#0+]*[0-9]*(?:\.[0-9]+)?[A-Za-z]",
    r"|%L[0-9]{1,2}\b|%(?:[0-9]+\$)?[-+\#0'_^]*(?:[0-9]+|\*)?(?:\.(?:[0-9]+|\*))?(?:hh|h|ll|l|z|j|t|L|I64|q)?[A-Za-z@]",
    r"|%[0-9]{1,2}\b|%%|@[A-Z][A-Z0-9_]+@|[$@][A-Za-z_][A-Za-z0-9_]*|:[a-z][a-z0-9_]+:?",
    r"|\\(?:[nrt0\x22']|u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2})",
);

/// A name with its path, conversion, width, format and filters, or a format alone: `user.name!r:>10`,
/// `0,-5:C`, `:?`, ` $brand `, `x | upper`.
static FIELD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^\s*[-$.\#/>&^@]?\s*\w[\w.-]*(?:\[[^\[\]\n]*\]|\.\w+|\(\))*(?:![a-z])?=?(?:,\s*-?[0-9]+)?",
        r"(?::(?:\S[^\n]*)?)?(?:\s*\|[^|\n]+)*\s*$|^(?:![a-z])?:[^\n]*$",
    ))
    .expect("the pattern is valid")
});

/// An argument of an ICU message with its type.
static ICU: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^\s*[\w.-]+\s*,\s*",
        r"(?:plural|select|selectordinal|number|date|time|spellout|ordinal|duration|choice|list)\b",
    ))
    .expect("the pattern is valid")
});

/// A single conversion of printf or strftime.
static CONVERSION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^%(?:hh|h|ll|l|z|j|t|L|I64|q)?[A-Za-z]").expect("the pattern is valid"));

/// The continuation of a path that begins with a variable.
static REST_OF_PATH: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?:[/\\][\w.@+*-]*\w)+[/\\]?").expect("the pattern is valid"));

/// Braces deeper than this, or farther apart in bytes, are text.
const MAX_DEPTH: usize = 16;
const MAX_BYTES: usize = 4000;

/// The placeholder that begins with a match of [`PATTERN`], if its surroundings allow one.
pub(crate) fn whole(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let Range { start, end } = range;
    let found = &text[start..end];
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if let Some(prefix) = found.strip_suffix('{') {
        let end = end_of_braces(text, end - 1)?;
        let content = &text[start + found.len()..end - 1];
        return is_field(prefix, content).then(|| start..with_path(text, end));
    }
    match found.as_bytes()[0] {
        b'%' if found.len() > 2 && found.ends_with('%') && (in_word(after) || after == Some('%')) => {
            // "%d%%" and "%H%M"
            CONVERSION.find(&text[start..]).map(|conversion| start..start + conversion.end())
        }
        b'%' if found != "%%" || before.is_none_or(|c| !c.is_ascii_digit()) => {
            let is_percentage =
                before.is_some_and(|c| c.is_ascii_digit() || c == '%') && !found.ends_with('%');
            // "%include" and the like are one name
            let name = text[end..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len() - end);
            let is_name = found.len() == 2 && name >= 3;
            (!is_percentage).then(|| start..with_path(text, if is_name { end + name } else { end }))
        }
        b'%' => None,
        b'$' => (!in_word(before)).then(|| start..with_path(text, end)),
        b'@' => (!in_word(before)).then_some(start..end),
        b':' => {
            let is_free = before.is_none_or(|c| c.is_whitespace() || "\"'(«“[>".contains(c));
            (is_free && !in_word(after)).then_some(start..end)
        }
        b'\\' if found.len() == 2 => {
            let is_in_path = after.is_some_and(char::is_lowercase);
            (!is_in_path).then_some(start..end)
        }
        _ => Some(start..end),
    }
}

/// The place where the brace that opens at `start` closes; on the same line, unless it contains braces.
fn end_of_braces(text: &str, start: usize) -> Option<usize> {
    let mut depth = 0;
    let (mut has_inner, mut has_line_end) = (false, false);
    for (place, byte) in text.bytes().enumerate().skip(start).take(MAX_BYTES) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'\n' => has_line_end = true,
            _ => {}
        }
        has_inner |= depth > 1;
        if depth == 0 {
            return (!has_line_end || has_inner).then_some(place + 1);
        }
        if depth > MAX_DEPTH {
            return None;
        }
    }
    None
}

fn is_field(prefix: &str, content: &str) -> bool {
    let is_enclosed = |sign: char| content.len() > 1 && content.starts_with(sign) && content.ends_with(sign);
    if !prefix.is_empty() {
        return !content.trim().is_empty();
    }
    content.is_empty()
        || content.starts_with('{') && content.ends_with('}')
        || is_enclosed('%')
        || is_enclosed('#')
        || FIELD.is_match(content)
        || ICU.is_match(content)
}

fn with_path(text: &str, end: usize) -> usize {
    REST_OF_PATH.find(&text[end..]).map_or(end, |path| end + path.end())
}

#[cfg(test)]
mod tests {
    use crate::{TextOptions, unit::UnitFinder, unit::UnitKind};

    fn placeholders(text: &str) -> Vec<String> {
        let units = UnitFinder::new(&TextOptions::default()).unwrap().find(text);
        let placeholders = units.into_iter().filter(|unit| unit.kind == UnitKind::Placeholder);
        placeholders.map(|unit| text[unit.range].to_owned()).collect()
    }

    #[test]
    fn placeholders_of_every_kind_are_whole() {
        for placeholder in [
            "%s",
            "%d",
            "%1$s",
            "%-5d",
            "%.2f",
            "%lu",
            "%(count)d",
            "%1",
            "%L2",
            "%@",
            "%1$@",
            "%'d",
            "%<total>d",
            "%Y-%m-%d",
            "%H:%M",
            "%PATH%",
            "%%NAME%%",
            "##NAME##",
            "__NAME__",
            "@VERSION@",
            "@name",
            "%include",
            "{0}",
            "{}",
            "{name}",
            "{0:N2}",
            "{0,-10:C}",
            "{value!r:>10}",
            "{:?}",
            "{:#?}",
            "{x:{width}.{precision}}",
            "{0[key]}",
            "{user.name}",
            "{items[0].name}",
            "{ $brand }",
            "{name | upper}",
            "{obj.method()}",
            "{{ user.name }}",
            "{{{raw}}}",
            "{{#if x}}",
            "{{/if}}",
            "{{> head}}",
            "{{.Name}}",
            "{% if x %}",
            "{# x #}",
            "<%= name %>",
            "<?= $x ?>",
            "#{name}",
            "%{count}",
            "${HOME}",
            "${HOME:-none}",
            "${a + b}",
            "$HOME",
            "$(prefix)",
            "$t(key.name)",
            "${HOME}/bin/x",
            "%APPDATA%\\x.ini",
            "[[link]]",
            ":count",
            ":smile:",
            "\\n",
            "\\u00e9",
            "{count, plural, one {# file} other {# files}}",
            "{n, number, percent}",
            "{g, select, male {{n, plural, one {his file} other {his files}}} other {files}}",
        ] {
            let text = format!("Cannot open {placeholder} now.");
            assert_eq!(placeholders(&text), [placeholder], "{text}");
        }
    }

    #[test]
    fn ordinary_text_has_none() {
        for text in [
            "It is 100% certain, or is it?",
            "About 50 % of them, 20%of those.",
            "A set {a, b}, {see below} and an empty { }.",
            "Note: this; a:b and 10:30, he said: no.",
            "Write to someone@example.org.",
            "An unclosed { brace",
        ] {
            assert_eq!(placeholders(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn placeholders_that_touch_are_one() {
        assert_eq!(placeholders("The size is %dx%d now."), ["%dx%d"]);
        assert_eq!(placeholders("At {host}:{port}, then {a} {b}."), ["{host}:{port}", "{a}", "{b}"]);
    }
}
