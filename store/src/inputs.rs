//! The corpus: which files a user's patterns name, and their bytes.
//!
//! Owns the rules that all places share: the order of the listing, the skipped names, and that a file is read
//! only in its listed version.

mod local;
mod s3;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::object::etag_of;
use crate::s3::{ObjectStream, S3Address, StreamReader, read_range, shared_client};
use crate::store::blocking;
use crate::{Location, StoreError};

pub(crate) use local::resolved;
#[cfg(test)]
pub(crate) use s3::{list as list_s3, open as open_s3, open_ranges as open_ranges_s3};

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// A path as the pattern spells it but for `./` and `//`, relative if the pattern is; or
    /// `s3://bucket/key`.
    pub uri: String,
    /// Bytes, as stored.
    pub size: u64,
    /// Changes when the content does.
    pub etag: String,
}

/// Lists the files that `patterns` name: a file; a directory, with all files below it; or a glob (`*`, `?`,
/// `[...]`, and `**` for any directories), whose matches are files. Sorted by URI, each file once. Below a
/// directory or a glob, names that begin with `.` or `_` are skipped: they are hidden, unfinished, or about
/// other files. On S3, the slashes in keys make directories.
///
/// # Errors
/// [`StoreError::NoInput`] for a pattern that matches nothing, and other errors of reading a directory.
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

/// Whether [`list_inputs`] would list a file at `location` for `pattern`, were there one. Follows links,
/// sends no request.
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

/// Whether `file` lies in the directory `fixed` under a name that is not skipped and matches the wildcards in
/// `rest`, if any.
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

/// Opens a listed file, if it has not changed since. The reader blocks: read it on a thread of its own. It
/// gives all bytes of the listed version and no others. If the file changes meanwhile, reading fails with an
/// error that [`is_input_changed`] recognizes. A reader on S3 resumes after broken connections.
///
/// # Errors
/// [`StoreError::InputChanged`], or if the file cannot be opened.
pub async fn open_input(input: &InputFile) -> Result<Box<dyn Read + Send>, StoreError> {
    match Location::parse(&input.uri)? {
        Location::Local(path) => {
            let input = input.clone();
            blocking(move || Ok(Box::new(local::open_listed(input, &path)?) as Box<dyn Read + Send>)).await
        }
        Location::S3 { .. } => s3::open(shared_client().await?, input).await,
    }
}

/// Any bytes of a listed file, in its listed version.
pub struct InputRanges(Ranges);

enum Ranges {
    Local { file: std::fs::File, input: InputFile },
    S3 { client: aws_sdk_s3::Client, address: S3Address, input: InputFile, runtime: tokio::runtime::Handle },
}

/// Opens a listed file for reads of any of its bytes, if it has not changed.
///
/// # Errors
/// [`StoreError::InputChanged`], or if the file cannot be opened.
pub async fn open_ranges(input: &InputFile) -> Result<InputRanges, StoreError> {
    let input = input.clone();
    match Location::parse(&input.uri)? {
        Location::Local(path) => {
            blocking(move || {
                let (file, found) = local::open(&input.uri, &path)?;
                match found == input {
                    true => Ok(InputRanges(Ranges::Local { file, input })),
                    false => Err(StoreError::InputChanged { uri: input.uri }),
                }
            })
            .await
        }
        Location::S3 { .. } => s3::open_ranges(shared_client().await?, input),
    }
}

impl InputRanges {
    /// Bytes of the whole file.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.0 {
            Ranges::Local { input, .. } | Ranges::S3 { input, .. } => input.size,
        }
    }

    /// Fills `buffer` with the bytes from `start` on. It blocks: call it on a thread of your own.
    ///
    /// # Errors
    /// The file has fewer bytes, has changed, or cannot be read.
    pub fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.0 {
            Ranges::Local { file, input } => {
                std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)?;
                match etag_of(&file.metadata()?) == input.etag {
                    true => Ok(()),
                    false => Err(io::Error::other(StoreError::InputChanged { uri: input.uri.clone() })),
                }
            }
            Ranges::S3 { client, address, input, runtime } => {
                let read = read_range(client, address, &input.etag, start, buffer);
                runtime.block_on(read).map_err(io::Error::other)
            }
        }
    }
}

/// Whether a reader of [`open_input`] failed because the input has changed since the listing.
#[must_use]
pub fn is_input_changed(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>());
    matches!(cause, Some(StoreError::InputChanged { .. }))
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
