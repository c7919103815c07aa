//! Glossaries in files: CSV, TSV and TBX become entries of the generation option `terms`.
//!
//! A row of a table has a source and a target term. A third cell `exact` makes capitals and endings count. A
//! term without a target is not translated. A first row `source,target` names the columns, in any order,
//! beside others (`case` for the third). Of TBX (ISO 30042), only concepts, languages and terms are read.

use std::path::{Path, PathBuf};

use quick_xml::Reader;
use quick_xml::events::Event;

/// The reason why a glossary cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GlossaryError {
    /// The file cannot be read.
    #[error("cannot read the glossary {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its name does not tell its format.
    #[error("the glossary {path} is not a .csv, .tsv or .tbx file")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A row or element is wrong.
    #[error("the glossary {path}, line {line}: {problem}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The place, counted from 1.
        line: u64,
        /// The problem.
        problem: String,
    },
}

/// The entries of a glossary for texts in `source`, translated into `target` if the bundle translates; codes
/// such as `en`.
///
/// # Errors
/// The file cannot be read, or an entry is invalid.
pub(crate) fn entries(path: &Path, source: &str, target: Option<&str>) -> Result<Vec<String>, GlossaryError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| GlossaryError::Read { path: path.to_owned(), source })?;
    let text = text.trim_start_matches('\u{FEFF}');
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let found = match extension.to_ascii_lowercase().as_str() {
        "csv" => of_table(text, b','),
        "tsv" => of_table(text, b'\t'),
        "tbx" | "xml" => of_tbx(text, source, target.unwrap_or(source)),
        _ => return Err(GlossaryError::Format { path: path.to_owned() }),
    };
    found.map_err(|(line, problem)| GlossaryError::Entry { path: path.to_owned(), line, problem })
}

type Found = Result<Vec<String>, (u64, String)>;

fn entry(source: &str, target: &str, is_exact: bool) -> Result<String, String> {
    let (source, target) = (source.trim(), target.trim());
    if source.contains('=') {
        return Err(format!("the term {source:?} has a `=`, which no term may have"));
    }
    let is_copied = target.is_empty() || target == source && !is_exact;
    Ok(match (is_exact, is_copied) {
        (false, true) => source.to_owned(),
        (false, false) => format!("{source}={target}"),
        (true, _) => format!("{source}=={target}"),
    })
}

fn of_table(text: &str, separator: u8) -> Found {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let (mut columns, mut entries) = ([0, 1, 2], Vec::new());
    for (number, row) in reader.records().enumerate() {
        let row =
            row.map_err(|error| (error.position().map_or(0, csv::Position::line), error.to_string()))?;
        let line = row.position().map_or(0, csv::Position::line);
        let place = |name: &str| row.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name));
        if number == 0
            && let Some((source, target)) = place("source").zip(place("target"))
        {
            columns = [source, target, place("case").unwrap_or(usize::MAX)];
            continue;
        }
        let [source, target, case] = columns.map(|column| row.get(column).unwrap_or_default().trim());
        if source.is_empty() && target.is_empty() {
            continue;
        }
        let is_exact = match case.to_ascii_lowercase().as_str() {
            "" | "any" => false,
            "exact" => true,
            other => return Err((line, format!("the case is {other:?}; it is `exact`, `any` or nothing"))),
        };
        let entry = entry(source, target, is_exact).map_err(|problem| (line, problem))?;
        entry.parse::<baton_text::Term>().map_err(|error| (line, error.to_string()))?;
        entries.push(entry);
    }
    Ok(entries)
}

/// A concept's terms: language and text.
type Concept = Vec<(String, String)>;

fn of_tbx(text: &str, source: &str, target: &str) -> Found {
    let mut reader = Reader::from_str(text);
    let line = |reader: &Reader<&[u8]>| {
        let before = &text.as_bytes()[..(reader.buffer_position() as usize).min(text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1
    };
    let (mut concept, mut language, mut term) = (Concept::new(), String::new(), None::<String>);
    let mut entries = Vec::new();
    loop {
        let event = reader.read_event().map_err(|error| (line(&reader), error.to_string()))?;
        match event {
            Event::Eof => return Ok(entries),
            Event::Start(element) => match element.local_name().as_ref() {
                "termEntry" | "conceptEntry" => concept.clear(),
                "langSet" | "langSec" => {
                    let mut attributes = element.attributes().flatten();
                    let code = attributes.find(|attribute| attribute.key.local_name().as_ref() == "lang");
                    language = code.map(|code| code.value.into_owned()).unwrap_or_default();
                }
                "term" => term = Some(String::new()),
                _ => {}
            },
            Event::Text(content) => term.iter_mut().for_each(|term| term.push_str(&content)),
            Event::GeneralRef(reference) => {
                if let Some(term) = &mut term {
                    let of_number = reference.resolve_char_ref().ok().flatten().map(String::from);
                    let known =
                        || quick_xml::escape::resolve_predefined_entity(&reference).map(str::to_owned);
                    term.push_str(&of_number.or_else(known).unwrap_or_default());
                }
            }
            Event::End(element) => match element.local_name().as_ref() {
                "term" => concept.extend(term.take().map(|term| (language.clone(), term))),
                "termEntry" | "conceptEntry" => {
                    let of = |code: &str| {
                        let code = code.to_owned();
                        concept.iter().filter(move |(language, _)| is_same_language(language, &code))
                    };
                    if let Some((_, target)) = of(target).next() {
                        for (_, source) in of(source) {
                            entries.push(
                                entry(source, target, false).map_err(|problem| (line(&reader), problem))?,
                            );
                        }
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// Whether two codes name one language: `pt-BR` is `pt`.
fn is_same_language(a: &str, b: &str) -> bool {
    let language = |code: &str| code.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    language(a) == language(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(name: &str, content: &str) -> Result<Vec<String>, GlossaryError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        entries(&path, "en", Some("pt_BR"))
    }

    #[test]
    fn tables_have_terms_with_or_without_a_header() {
        let expected = ["hard disk=disco r\u{ed}gido", "Baton", "Apple==Apple", "it==TI"];
        let rows = "hard disk,disco r\u{ed}gido\nBaton,\n\nApple,Apple,exact\nit,TI,exact\n";
        assert_eq!(of_file("a.csv", rows).unwrap(), expected);
        let named = "note\tCase\tTarget\tSource\n\t\tdisco r\u{ed}gido\thard disk\nx\tany\t\tBaton\n";
        assert_eq!(of_file("a.TSV", &format!("\u{FEFF}{named}")).unwrap(), expected[..2]);
    }

    #[test]
    fn tbx_has_concepts_in_several_languages() {
        let tbx = r#"<?xml version="1.0"?><tbx><text><body>
            <conceptEntry id="1"><langSec xml:lang="en"><termSec><term>hard disk</term></termSec>
              <termSec><term>HDD</term></termSec></langSec>
              <langSec xml:lang="pt-BR"><termSec><term>disco &amp; r&#237;gido</term></termSec></langSec>
            </conceptEntry>
            <termEntry><langSet xml:lang="en"><tig><term>mouse</term></tig></langSet>
              <langSet xml:lang="de"><tig><term>Maus</term></tig></langSet></termEntry>
            </body></text></tbx>"#;
        assert_eq!(
            of_file("a.tbx", tbx).unwrap(),
            ["hard disk=disco & r\u{ed}gido", "HDD=disco & r\u{ed}gido"],
            "no concept without both languages"
        );
    }

    #[test]
    fn problems_are_named_with_their_lines() {
        for (name, content, problem) in [
            ("a.csv", "a,b\nc,d,maybe\n", "line 2: the case is \"maybe\""),
            ("a.csv", "a=b,c\n", "line 1: the term \"a=b\" has a `=`"),
            ("a.csv", "a,b\n,c\n", "line 2: the term `=c` has no word"),
            ("a.tbx", "<tbx>\n</text>", "line 2: "),
            ("a.txt", "a", "is not a .csv, .tsv or .tbx file"),
        ] {
            let error = of_file(name, content).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
