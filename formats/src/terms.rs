//! A record's own glossary, from the value of one of its fields: a list, a map, or a text.
//!
//! | value | entries |
//! |---|---|
//! | `["disk=disco", "Baton"]` | as for the option `terms` |
//! | `[["disk", "disco"], ["it", "TI", "exact"], ["Baton"]]` | source, target, `exact` |
//! | `[{"source": "disk", "target": "disco", "case": "exact"}]` | the same by name |
//! | `{"disk": "disco", "Baton": null}` | source and target |
//! | `disk=disco; Baton`, as in a cell of a table | between `;` or ends of lines |

use baton_text::Term;
use serde_json::Value;

/// Bytes of all of a record's terms at most.
const MAX_NUM_BYTES: usize = 64 * 1024;

/// The terms in a field's value, in the form of the option `terms`.
///
/// # Errors
/// The value is none of the above, or a term is invalid; the reason, without the record's text.
pub(crate) fn terms_of(value: &Value) -> Result<Vec<String>, String> {
    let entries: Vec<Entry> = match value {
        Value::Null => Vec::new(),
        Value::String(text) => {
            let lines = text.split([';', '\n']).map(str::trim).filter(|line| !line.is_empty());
            lines.map(|line| Entry::Whole(line.to_owned())).collect()
        }
        Value::Array(items) => items.iter().map(of_item).collect::<Result<_, _>>()?,
        Value::Object(map) => {
            map.iter().map(|(source, target)| of_pair(source, target)).collect::<Result<_, _>>()?
        }
        _ => return Err("is neither a list, a map nor a text".to_owned()),
    };
    let mut terms = Vec::with_capacity(entries.len());
    let mut num_bytes = 0;
    for (place, entry) in entries.into_iter().enumerate() {
        let invalid = |problem: &str| format!("has an invalid term, number {}: {problem}", place + 1);
        let written = entry.written().map_err(invalid)?;
        let term: Term = written.parse().map_err(|_| invalid("it has no word, or a line's end in it"))?;
        num_bytes += written.len();
        if num_bytes > MAX_NUM_BYTES {
            return Err(format!("has terms of more than {MAX_NUM_BYTES} bytes"));
        }
        terms.push(term.to_string());
    }
    Ok(terms)
}

enum Entry {
    /// As in the option `terms`.
    Whole(String),
    Parts {
        source: String,
        target: String,
        is_exact: bool,
    },
}

impl Entry {
    fn written(self) -> Result<String, &'static str> {
        let (source, target, is_exact) = match self {
            Entry::Whole(entry) => return Ok(entry),
            Entry::Parts { source, target, is_exact } => (source, target, is_exact),
        };
        if source.contains('=') {
            return Err("its source has a `=`, which no term may have");
        }
        Ok(match (is_exact, target.trim().is_empty()) {
            (false, true) => source,
            (false, false) => format!("{source}={target}"),
            (true, _) => format!("{source}=={target}"),
        })
    }
}

fn of_item(item: &Value) -> Result<Entry, String> {
    let get = |name: &str| match item {
        Value::Object(map) => map.get(name).unwrap_or(&Value::Null),
        Value::Array(cells) => {
            let names = ["source", "target", "case"];
            names.iter().position(|known| *known == name).and_then(|at| cells.get(at)).unwrap_or(&Value::Null)
        }
        _ => &Value::Null,
    };
    match item {
        Value::String(entry) => Ok(Entry::Whole(entry.clone())),
        Value::Object(_) | Value::Array(_) => {
            let is_exact = match get("case") {
                Value::Null => false,
                Value::String(case) if ["", "any"].contains(&case.as_str()) => false,
                Value::String(case) if case == "exact" => true,
                _ => return Err("has a term whose case is neither `exact` nor `any`".to_owned()),
            };
            let source = get("source").as_str().ok_or("has a term without a source")?;
            match of_pair(source, get("target"))? {
                Entry::Parts { source, target, .. } => Ok(Entry::Parts { source, target, is_exact }),
                whole => Ok(whole),
            }
        }
        _ => Err("has an item that is no term".to_owned()),
    }
}

fn of_pair(source: &str, target: &Value) -> Result<Entry, String> {
    let target = match target {
        Value::Null => String::new(),
        Value::String(target) => target.clone(),
        _ => return Err("has a target that is no text".to_owned()),
    };
    Ok(Entry::Parts { source: source.to_owned(), target, is_exact: false })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_come_in_lists_maps_and_texts() {
        let expected = ["disk=disco", "it==TI", "Baton"];
        for value in [
            json!(["disk=disco", "it==TI", "Baton"]),
            json!([["disk", "disco"], ["it", "TI", "exact"], ["Baton"]]),
            json!([
                { "source": "disk", "target": "disco" },
                { "source": "it", "target": "TI", "case": "exact" },
                { "source": "Baton", "target": null, "note": 1 },
            ]),
            json!("disk=disco; it==TI\nBaton;"),
        ] {
            assert_eq!(terms_of(&value).unwrap(), expected, "{value}");
        }
        assert_eq!(terms_of(&json!({ "disk": "disco", "Baton": "" })).unwrap(), ["disk=disco", "Baton"]);
        for none in [json!(null), json!([]), json!({}), json!(" ")] {
            assert_eq!(terms_of(&none).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn what_is_no_term_is_refused_without_its_text() {
        for (value, problem) in [
            (json!(7), "neither a list, a map nor a text"),
            (json!([7]), "an item that is no term"),
            (json!({ "secret": 7 }), "a target that is no text"),
            (json!(["=secret"]), "number 1"),
            (json!({ "secret=a": "b" }), "has a `=`"),
            (json!([["secret", "b", "maybe"]]), "neither `exact` nor `any`"),
            (json!([[]]), "without a source"),
            (json!({ "secret": "x".repeat(70_000) }), "more than 65536 bytes"),
        ] {
            let error = terms_of(&value).unwrap_err();
            assert!(error.contains(problem) && !error.contains("secret"), "{error}");
        }
    }
}
