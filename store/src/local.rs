//! The backend for a local directory.
//!
//! An object is written to a temporary file in the same file system, synced, and then named in one step. A
//! create renames without replacing; a put renames. The directory is synced afterwards. Temporary files live
//! in one hidden directory, where no listing sees them; opening the store removes those of a crashed writer.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::NamedTempFile;
use walkdir::{DirEntry, WalkDir};

use crate::object::etag_of;
use crate::{CreateOutcome, ObjectMeta, StoreError};

/// Hidden, so that it is no key and in no listing.
const TEMPORARY_DIRECTORY: &str = ".baton-tmp";

/// No write takes this long, so the writer of an older temporary file is dead.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
pub(crate) struct LocalDirectory {
    root: PathBuf,
}

impl LocalDirectory {
    pub(crate) fn open(root: PathBuf) -> Result<LocalDirectory, StoreError> {
        let directory = LocalDirectory { root };
        create_directories(&directory.root)?;
        directory.sweep_abandoned(SystemTime::now());
        Ok(directory)
    }

    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut objects = Vec::new();
        self.visit(prefix, |key, entry| {
            let metadata = entry.metadata().map_err(|error| walk_error(&self.root, error))?;
            objects.push(ObjectMeta { key: key.to_owned(), size: metadata.len(), etag: etag_of(&metadata) });
            Ok(())
        })?;
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    pub(crate) fn visit_keys(&self, prefix: &str, mut visit: impl FnMut(&str)) -> Result<(), StoreError> {
        self.visit(prefix, |key, _| {
            visit(key);
            Ok(())
        })
    }

    fn visit(
        &self,
        prefix: &str,
        mut visit: impl FnMut(&str, &DirEntry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let may_match = |entry: &DirEntry| match self.key_of(entry.path()) {
            Ok(key) if entry.file_type().is_dir() => {
                let key = if key.is_empty() { key } else { key + "/" };
                !is_hidden(entry) && (key.starts_with(prefix) || prefix.starts_with(&key))
            }
            Ok(key) => !is_hidden(entry) && key.starts_with(prefix),
            Err(_) => true, // reported below
        };
        for entry in WalkDir::new(&self.root).into_iter().filter_entry(may_match) {
            let entry = entry.map_err(|error| walk_error(&self.root, error))?;
            let key = self.key_of(entry.path())?;
            if entry.file_type().is_file() {
                visit(&key, &entry)?;
            }
        }
        Ok(())
    }

    pub(crate) fn list_directories(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for entry in WalkDir::new(&self.root).min_depth(1).max_depth(1).follow_links(true) {
            let entry = entry.map_err(|error| walk_error(&self.root, error))?;
            if entry.file_type().is_dir() && !is_hidden(&entry) {
                names.push(self.key_of(entry.path())?);
            }
        }
        Ok(names)
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let path = self.root.join(key);
        Ok(if_found(fs::read(&path)).map_err(StoreError::io("read", &path))?.map(Bytes::from))
    }

    pub(crate) fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let path = self.root.join(key);
        let metadata = if_found(fs::metadata(&path)).map_err(StoreError::io("look up", &path))?;
        Ok(metadata.filter(fs::Metadata::is_file).map(|metadata| ObjectMeta {
            key: key.to_owned(),
            size: metadata.len(),
            etag: etag_of(&metadata),
        }))
    }

    pub(crate) fn create(&self, key: &str, bytes: &[u8]) -> Result<CreateOutcome, StoreError> {
        self.create_from(key, bytes)
    }

    pub(crate) fn create_from(&self, key: &str, reader: impl Read) -> Result<CreateOutcome, StoreError> {
        let path = self.root.join(key);
        if path.exists() {
            return Ok(CreateOutcome::AlreadyExists); // saves the write; the rename below decides
        }
        let file = self.write_temporary(&path, reader)?;
        match file.persist_noclobber(&path) {
            Ok(_) => sync_parent(&path).map(|()| CreateOutcome::Created),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(CreateOutcome::AlreadyExists)
            }
            Err(error) => Err(StoreError::io("create", &path)(error.error)),
        }
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.root.join(key);
        let file = self.write_temporary(&path, bytes)?;
        file.persist(&path).map_err(|error| StoreError::io("write", &path)(error.error))?;
        sync_parent(&path)
    }

    /// Writes and syncs the bytes of `reader`, ready to be renamed to `path`, whose directory then exists.
    fn write_temporary(&self, path: &Path, mut reader: impl Read) -> Result<NamedTempFile, StoreError> {
        if let Some(parent) = path.parent() {
            create_directories(parent)?;
        }
        let directory = self.temporary_directory();
        create_directories(&directory)?;
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)] // like any other file: the process's umask applies, unlike for a private temporary file
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut write = || {
            let mut file = builder.tempfile_in(&directory)?;
            io::copy(&mut reader, &mut file)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        write().map_err(StoreError::io("write", path))
    }

    /// Removes temporary files that no living writer can own. Files that cannot be removed stay.
    fn sweep_abandoned(&self, now: SystemTime) {
        let is_abandoned = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > ABANDONED_AFTER))
        };
        let Ok(entries) = fs::read_dir(self.temporary_directory()) else { return };
        for entry in entries.flatten().filter(is_abandoned) {
            let (path, outcome) = (entry.path(), fs::remove_file(entry.path()));
            tracing::debug!(path = %path.display(), ?outcome, "swept an abandoned temporary file");
        }
    }

    fn temporary_directory(&self) -> PathBuf {
        self.root.join(TEMPORARY_DIRECTORY)
    }

    fn key_of(&self, path: &Path) -> Result<String, StoreError> {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let key = relative.to_str().ok_or_else(|| StoreError::NameNotUtf8 { path: path.to_owned() })?;
        Ok(key.replace(std::path::MAIN_SEPARATOR, "/"))
    }
}

/// The root is never hidden, whatever its name.
fn is_hidden(entry: &DirEntry) -> bool {
    entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Creates a directory and those above it, and makes their names durable.
fn create_directories(directory: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(StoreError::io("create the directory", directory))?;
    missing.into_iter().rev().try_for_each(sync_parent)
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(StoreError::io("sync", parent))
}

/// `None` instead of an error if there is no such file.
fn if_found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A directory walk's error, with the path it happened at.
pub(crate) fn walk_error(root: &Path, error: walkdir::Error) -> StoreError {
    let path = error.path().unwrap_or(root).to_owned();
    StoreError::io("list", &path)(error.into())
}

#[cfg(test)]
mod tests;
