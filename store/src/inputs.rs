//! The corpus: which files a user's patterns name, and their bytes.
//!
//! Owns what is the same for all places: the order of the listing, the names that are skipped, and that a file is read
//! only as it was listed.

mod local;
mod s3;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::s3::{ObjectStream, S3Address, StreamReader, shared_client};
use crate::store::blocking;
use crate::{Location, StoreError};

#[cfg(test)]
pub(crate) use s3::{list as list_s3, open as open_s3};

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// A path as the pattern spells it but for `./` and `//`, relative if the pattern is; or `s3://bucket/key`.
    pub uri: String,
    /// Bytes, as stored.
    pub size: u64,
    /// Changes when the content does.
    pub etag: String,
}

/// Lists the files that `patterns` name: a file; a directory, with all files below it; or a glob (`*`, `?`, `[...]`,
/// and `**` for any directories), whose matches are files. Sorted by URI, each file once. Below a directory or a
/// glob, names that begin with `.` or `_` are skipped: they are hidden, unfinished, or about other files. On S3, the
/// slashes in keys make directories.
///
/// # Errors
/// [`StoreError::NoInput`] for a pattern that names nothing, and whatever keeps a directory from being read.
pub async fn list_inputs(patterns: &[String]) -> Result<Vec<InputFile>, StoreError> {
    let mut files = BTreeMap::new();
    for pattern in patterns {
        let listed = match Location::parse(pattern)? {
            Location::Local(path) => {
                let pattern = pattern.clone();
                blocking(move || local::list(&pattern, &path)).await?
            }
            Location::S3 { bucket, prefix } => s3::list(shared_client().await?, &bucket, &prefix).await?,
        };
        if listed.is_empty() {
            return Err(StoreError::NoInput { pattern: pattern.clone() });
        }
        files.extend(listed.into_iter().map(|file| (file.uri.clone(), file)));
    }
    Ok(files.into_values().collect())
}

/// Whether [`list_inputs`] would list a file at `location` for `pattern`, were there one. Follows links, sends no request.
///
/// # Errors
/// [`StoreError::InvalidLocation`] for the pattern.
pub fn is_named_by(pattern: &str, location: &Location) -> Result<bool, StoreError> {
    Ok(match (Location::parse(pattern)?, location) {
        (Location::Local(pattern), Location::Local(file)) => {
            let fixed = if pattern.exists() { pattern.clone() } else { fixed_directory(&pattern) };
            let rest = pattern.strip_prefix(&fixed).unwrap_or(Path::new(""));
            is_below(&local::resolved(&fixed), rest, &local::resolved(file))
        }
        (Location::S3 { bucket, prefix }, Location::S3 { bucket: same, prefix: key }) if bucket == *same => {
            let pattern = Path::new(&prefix);
            let fixed = fixed_directory(pattern);
            let rest = pattern.strip_prefix(&fixed).unwrap_or(Path::new(""));
            is_below(&fixed, rest, Path::new(key))
        }
        _ => false,
    })
}

/// Whether `file` lies in the directory `fixed` under a name that is not skipped and matches the wildcards in `rest`, if any.
fn is_below(fixed: &Path, rest: &Path, file: &Path) -> bool {
    let Ok(name) = file.strip_prefix(fixed) else { return false };
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    let matches = |glob: Pattern| glob.matches_path_with(name, options);
    let is_wanted = name.components().all(|part| !is_skipped(part.as_os_str().as_encoded_bytes()));
    is_wanted && (rest.as_os_str().is_empty() || Pattern::new(&rest.to_string_lossy()).is_ok_and(matches))
}

/// The part of a pattern before its first wildcard, which the user spelled out and may begin with `_` or `.`.
fn fixed_directory(pattern: &Path) -> PathBuf {
    let has_wildcard = |component: &Component<'_>| {
        component.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
    };
    pattern.components().take_while(|component| !has_wildcard(component)).collect()
}

/// Opens a listed file, if it is still what was listed. The reader blocks: read it on a thread of your own. One on S3
/// reads across broken connections, and fails if the object is replaced meanwhile.
///
/// # Errors
/// [`StoreError::InputChanged`], or if the file cannot be opened.
pub async fn open_input(input: &InputFile) -> Result<Box<dyn Read + Send>, StoreError> {
    match Location::parse(&input.uri)? {
        Location::Local(path) => {
            let input = input.clone();
            blocking(move || {
                let (file, found) = local::open(&input.uri, &path)?;
                if found != input {
                    return Err(StoreError::InputChanged { uri: input.uri });
                }
                Ok(Box::new(file) as Box<dyn Read + Send>)
            })
            .await
        }
        Location::S3 { .. } => s3::open(shared_client().await?, input).await,
    }
}

/// Opens a file by its path or URI. The reader blocks: read it on a thread of your own.
///
/// # Errors
/// If the file cannot be opened.
pub async fn open_read(uri: &str) -> Result<Box<dyn Read + Send>, StoreError> {
    match Location::parse(uri)? {
        Location::Local(path) => {
            let uri = uri.to_owned();
            blocking(move || Ok(Box::new(local::open(&uri, &path)?.0) as Box<dyn Read + Send>)).await
        }
        Location::S3 { bucket, prefix } => {
            let address = S3Address { bucket, key: prefix };
            let stream = ObjectStream::open(shared_client().await?, address, None).await?;
            let stream = stream.ok_or_else(|| StoreError::NoInput { pattern: uri.to_owned() })?;
            Ok(Box::new(StreamReader::new(stream)))
        }
    }
}

fn is_skipped(name: &[u8]) -> bool {
    name.starts_with(b".") || name.starts_with(b"_")
}

#[cfg(test)]
mod tests;
