//! Input files on local disks.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::{InputFile, fixed_directory, is_skipped};
use crate::StoreError;
use crate::local::walk_error;
use crate::object::etag_of;

/// Opens the file at `path` and describes it as `uri`.
pub(super) fn open(uri: &str, path: &Path) -> Result<(File, InputFile), StoreError> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.map_err(StoreError::io("read", path))?;
    Ok((file, InputFile { uri: uri.to_owned(), size: metadata.len(), etag: etag_of(&metadata) }))
}

/// Opens a listed file. The reader gives all bytes of the listed version and no others. If the file is
/// written to, cut off or appended to meanwhile, reading fails with [`StoreError::InputChanged`] inside its
/// error.
pub(super) fn open_listed(input: InputFile, path: &Path) -> Result<ListedFile, StoreError> {
    let (file, found) = match open(&input.uri, path) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::InputChanged { uri: input.uri });
        }
        opened => opened?,
    };
    if found != input {
        return Err(StoreError::InputChanged { uri: input.uri });
    }
    Ok(ListedFile { file, input, num_bytes_read: 0 })
}

/// A file that is read in its listed version.
#[derive(Debug)]
pub(super) struct ListedFile {
    file: File,
    input: InputFile,
    num_bytes_read: u64,
}

impl Read for ListedFile {
    /// Checks the file after each read. A write changes the time before the bytes, so while the time is the
    /// listed one, the bytes are too.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let num_bytes = self.file.read(buffer)?;
        self.num_bytes_read += num_bytes as u64;
        let ends_early = num_bytes == 0 && !buffer.is_empty() && self.num_bytes_read < self.input.size;
        if ends_early || !is_as_listed(&self.file.metadata()?, &self.input) {
            return Err(io::Error::other(StoreError::InputChanged { uri: self.input.uri.clone() }));
        }
        Ok(num_bytes)
    }
}

fn is_as_listed(metadata: &Metadata, input: &InputFile) -> bool {
    metadata.len() == input.size && etag_of(metadata) == input.etag
}

/// The files that `pattern` names, which is `path`.
pub(super) fn list(pattern: &str, path: &Path) -> Result<Vec<InputFile>, StoreError> {
    if path.is_dir() {
        list_directory(path)
    } else if path.exists() {
        Ok(vec![input_file(path)?])
    } else {
        list_glob(pattern, path)
    }
}

fn list_directory(directory: &Path) -> Result<Vec<InputFile>, StoreError> {
    let is_wanted =
        |entry: &DirEntry| entry.depth() == 0 || !is_skipped(entry.file_name().as_encoded_bytes());
    let mut files = Vec::new();
    for entry in WalkDir::new(directory).follow_links(true).into_iter().filter_entry(is_wanted) {
        let entry = entry.map_err(|error| walk_error(directory, error))?;
        if entry.file_type().is_file() {
            files.push(input_file(entry.path())?);
        }
    }
    Ok(files)
}

fn list_glob(pattern: &str, path: &Path) -> Result<Vec<InputFile>, StoreError> {
    let invalid = |source| StoreError::InvalidPattern { pattern: pattern.to_owned(), source };
    let text = path.to_str().expect("a pattern is a string");
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let fixed = fixed_directory(path);
    let mut files = Vec::new();
    for matched in glob::glob_with(text, options).map_err(invalid)? {
        let matched = matched.map_err(|error| {
            let path = error.path().to_owned();
            StoreError::io("list", &path)(error.into())
        })?;
        let below = matched.strip_prefix(&fixed).unwrap_or(&matched);
        let is_wanted =
            below.components().all(|component| !is_skipped(component.as_os_str().as_encoded_bytes()));
        if is_wanted && matched.is_file() {
            files.push(input_file(&matched)?);
        }
    }
    Ok(files)
}

/// `path` made absolute, with links followed as far as the path exists.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let resolve = |existing: &Path| {
        let rest = absolute.strip_prefix(existing).ok()?;
        Some(existing.canonicalize().ok()?.components().chain(rest.components()).collect())
    };
    absolute.ancestors().find_map(resolve).unwrap_or_else(|| absolute.clone())
}

fn input_file(path: &Path) -> Result<InputFile, StoreError> {
    let path = without_dots(path);
    let metadata = fs::metadata(&path).map_err(StoreError::io("look up", &path))?;
    let uri = path.to_str().ok_or_else(|| StoreError::NameNotUtf8 { path: path.clone() })?;
    if !metadata.is_file() {
        return Err(StoreError::NotAFile { uri: uri.to_owned() });
    }
    Ok(InputFile { uri: uri.to_owned(), size: metadata.len(), etag: etag_of(&metadata) })
}

pub(super) fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}
