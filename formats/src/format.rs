//! The table of formats: names, suffixes, and the code of each.
//!
//! A new format is one file, which ends in its [`FormatRow`], and one line in [`TABLE`]. Flags, job files,
//! messages and `docs/reference/formats.md` follow from the table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::part::PartCodec;
use crate::row::Opener;
use crate::{Compression, batch, csv, jsonl, parquet, txt};

/// Every format, in the order in which documents and messages name them.
pub(crate) static TABLE: &[&FormatRow] =
    &[&jsonl::FORMAT, &csv::CSV, &csv::TSV, &txt::FORMAT, &parquet::FORMAT, &batch::FORMAT];

/// One format: its name and its abilities.
pub(crate) struct FormatRow {
    /// In flags and job files.
    pub(crate) name: &'static str,
    /// Endings of file names, without the point; files that Baton writes get the first. A format without an
    /// ending is used only by name.
    pub(crate) suffixes: &'static [&'static str],
    /// One sentence for documents.
    pub(crate) about: &'static str,
    /// Whether its files may be compressed as a whole, `.gz` or `.zst`.
    pub(crate) is_compressible: bool,
    /// Reads its files as inputs.
    pub(crate) opener: Option<Opener>,
    /// Writes and reads parts of this format.
    pub(crate) part_codec: Option<PartCodec>,
    /// Advice for a table that has only one column.
    pub(crate) lone_column_hint: &'static str,
    /// Whether a row without a text is a record, which has an empty output.
    pub(crate) keeps_blank_rows: bool,
    /// Whether rows keep fields that their answers need, whatever the job keeps.
    pub(crate) keeps_own_fields: bool,
}

/// How records lie in a file.
#[derive(Clone, Copy)]
pub struct Format(&'static FormatRow);

/// A file's format or name is unknown. Each message is one line: the problem, the place, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The format of an input file cannot be told from its name.
    #[error(
        "{uri}: unknown input format; name files {} (plain, .gz or .zst), or name the format with --format",
        suffixes(Format::reads)
    )]
    UnknownSuffix {
        /// The input file.
        uri: String,
    },
    /// No format has this name.
    #[error("unknown format `{name}`; known are {}", Format::names(|_| true).join(", "))]
    UnknownName {
        /// As given.
        name: String,
    },
    /// Baton does not read inputs of this format.
    #[error("format `{name}` is not read as input; these are: {}", Format::names(Format::reads).join(", "))]
    NotRead {
        /// The format.
        name: &'static str,
    },
    /// Baton does not write this format.
    #[error("format `{name}` is not written; these are: {}", Format::names(Format::writes).join(", "))]
    NotWritten {
        /// As given.
        name: String,
    },
    /// Parts do not have this format.
    #[error("parts have no format `{name}`; they have one of: {known}")]
    NotAPart {
        /// As given.
        name: String,
        /// Those that they can have.
        known: String,
    },
    /// A file of this format is not compressed as a whole.
    #[error("{name} is compressed inside; leave out .gz and .zst")]
    NotCompressible {
        /// The format.
        name: &'static str,
    },
}

impl Format {
    /// The format of this name.
    ///
    /// # Errors
    /// [`FormatError::UnknownName`].
    pub fn named(name: &str) -> Result<Format, FormatError> {
        let found = TABLE.iter().find(|row| row.name == name);
        found.map(|row| Format(row)).ok_or_else(|| FormatError::UnknownName { name: name.to_owned() })
    }

    /// Every format.
    pub fn all() -> impl Iterator<Item = Format> {
        TABLE.iter().map(|row| Format(row))
    }

    /// Tells format and compression from a file's name; `forced` overrules the format part.
    ///
    /// # Errors
    /// [`FormatError::UnknownSuffix`] if the name does not tell the format and none is forced,
    /// [`FormatError::NotCompressible`].
    pub fn of(uri: &str, forced: Option<Format>) -> Result<(Format, Compression), FormatError> {
        let name = uri.rsplit('/').next().unwrap_or(uri).to_ascii_lowercase();
        let (stem, compression) = Compression::of_name(&name);
        let suffix = stem.rsplit_once('.').map(|(_, suffix)| suffix);
        let told =
            Format::all().find(|format| suffix.is_some_and(|found| format.0.suffixes.contains(&found)));
        let unknown = || FormatError::UnknownSuffix { uri: uri.to_owned() };
        let format = forced.or(told).ok_or_else(unknown)?;
        match compression != Compression::Plain && !format.0.is_compressible {
            true => Err(FormatError::NotCompressible { name: format.name() }),
            false => Ok((format, compression)),
        }
    }

    /// The names of the formats that can do something.
    pub fn names(can: fn(Format) -> bool) -> Vec<&'static str> {
        Format::all().filter(|&format| can(format)).map(Format::name).collect()
    }

    /// Its name in flags and job files.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether the format can be read.
    pub fn reads(self) -> bool {
        self.0.opener.is_some()
    }

    /// Whether parts and collected files can have this format.
    pub fn writes(self) -> bool {
        self.0.part_codec.is_some()
    }

    /// Whether its files are read by ranges, and not from front to back.
    pub fn needs_ranges(self) -> bool {
        matches!(self.0.opener, Some(Opener::Ranged(_)))
    }

    /// Whether output rows have fields that their answers need, whatever the job keeps.
    #[must_use]
    pub fn keeps_own_fields(self) -> bool {
        self.0.keeps_own_fields
    }

    pub(crate) fn row(self) -> &'static FormatRow {
        self.0
    }

    /// The table of `docs/reference/formats.md`.
    pub fn markdown_table() -> String {
        let mut table =
            "| format | files | compressed | read | written | what it is |\n|---|---|---|---|---|---|\n"
                .to_owned();
        for format in Format::all() {
            let FormatRow { name, suffixes, about, is_compressible, .. } = format.0;
            let suffixes: Vec<String> = suffixes.iter().map(|suffix| format!("`.{suffix}`")).collect();
            let files = if suffixes.is_empty() { "by name only".to_owned() } else { suffixes.join(", ") };
            let compressed = if *is_compressible { "`.gz`, `.zst`" } else { "inside" };
            let yes = |can: bool| if can { "yes" } else { "no" };
            let (reads, writes) = (yes(format.reads()), yes(format.writes()));
            table += &format!("| `{name}` | {files} | {compressed} | {reads} | {writes} | {about} |\n");
        }
        table
    }
}

/// The suffixes of the formats that can do something, for messages.
fn suffixes(can: fn(Format) -> bool) -> String {
    let able = Format::all().filter(|&format| can(format));
    let suffixes: Vec<String> =
        able.flat_map(|format| format.0.suffixes).map(|suffix| format!(".{suffix}")).collect();
    suffixes.join(", ")
}

impl PartialEq for Format {
    fn eq(&self, other: &Format) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Format {}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Format, FormatError> {
        Format::named(name)
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
        let name = String::deserialize(deserializer)?;
        Format::named(&name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Format {
        Format::named(name).unwrap()
    }

    #[test]
    fn names_tell_format_and_compression() {
        let cases = [
            ("a/b.jsonl", "jsonl", Compression::Plain),
            ("a/b.ndjson.gz", "jsonl", Compression::Gzip),
            ("B.CSV.ZST", "csv", Compression::Zstd),
            ("x.tar.tsv", "tsv", Compression::Plain),
            ("s3://bucket/x.txt.gz", "txt", Compression::Gzip),
        ];
        for (uri, name, compression) in cases {
            assert_eq!(Format::of(uri, None).unwrap(), (named(name), compression), "{uri}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_unless_the_format_is_forced() {
        for uri in ["notes.md", "jsonl", "dir.csv/file", "x.gz"] {
            assert!(Format::of(uri, None).unwrap_err().to_string().starts_with(uri));
            let forced = Format::of(uri, Some(named("txt"))).unwrap();
            assert_eq!(forced.0, named("txt"));
        }
        let error = Format::of("x.parquet.gz", None).unwrap_err().to_string();
        assert_eq!(error, "parquet is compressed inside; leave out .gz and .zst");
        assert!(
            Format::named("xml")
                .unwrap_err()
                .to_string()
                .contains("known are jsonl, csv, tsv, txt, parquet, batch")
        );
    }

    #[test]
    fn no_two_formats_share_a_name_or_a_suffix() {
        let names = TABLE.iter().map(|row| row.name);
        let suffixes = TABLE.iter().flat_map(|row| row.suffixes.iter().copied());
        for mut list in [names.collect::<Vec<_>>(), suffixes.collect()] {
            list.sort_unstable();
            let whole = list.len();
            list.dedup();
            assert_eq!(list.len(), whole, "{list:?}");
        }
    }

    #[test]
    fn a_format_is_written_in_job_files_by_its_name() {
        for format in Format::all() {
            let json = serde_json::to_string(&format).unwrap();
            assert_eq!(json, format!("\"{}\"", format.name()));
            assert_eq!(serde_json::from_str::<Format>(&json).unwrap(), format);
        }
        assert!(serde_json::from_str::<Format>("\"xml\"").is_err());
    }
}
