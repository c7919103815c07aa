//! Files as this crate touches them: errors with paths, hashes, and writes that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use baton_job::hex;
use sha2::{Digest, Sha256};
use tempfile::{Builder, TempDir};

use crate::BundleError;

/// Turns an `io::Error` into a [`BundleError`] that names the action and the path.
pub fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { action, path, source }
}

/// Reads a whole file.
///
/// # Errors
/// It cannot be read.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, BundleError> {
    fs::read(path).map_err(io_error("read", path))
}

/// Lower-case hexadecimal sha256 of a file, read in pieces.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String, BundleError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(io_error("read", path))? {
            0 => return Ok(hex(&hasher.finalize())),
            num_bytes => hasher.update(&piece[..num_bytes]),
        }
    }
}

/// Replaces `path` by a file with these bytes in one step: a crash leaves the old file or the new one.
///
/// # Errors
/// The directory cannot be written to.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    let write = || -> io::Result<()> {
        let mut builder = Builder::new();
        let mut file = public(&mut builder, 0o666).prefix(".baton-").tempfile_in(parent(path))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(io_error("write", path))
}

/// A directory that is filled beside its final place and moved there when it is complete.
///
/// Dropped before [`DirectoryInProgress::finish`], it leaves nothing behind.
pub struct DirectoryInProgress {
    temporary: TempDir,
    target: PathBuf,
}

impl DirectoryInProgress {
    /// Starts a directory that will be `target`, which must not exist or be empty.
    ///
    /// # Errors
    /// `target` has files already, or the directory above it cannot be written to.
    pub fn create(target: &Path) -> Result<Self, BundleError> {
        let occupied = match fs::read_dir(target) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if occupied {
            return Err(BundleError::OutputExists { path: target.to_owned() });
        }
        let parent = parent(target);
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        let mut builder = Builder::new();
        let temporary = public(&mut builder, 0o777)
            .prefix(".baton-")
            .tempdir_in(parent)
            .map_err(io_error("create a directory in", parent))?;
        Ok(Self { temporary, target: target.to_owned() })
    }

    /// Where to write the files.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Moves the directory to its final place.
    ///
    /// # Errors
    /// Something else has appeared there.
    pub fn finish(self) -> Result<(), BundleError> {
        fs::rename(self.temporary.path(), &self.target).map_err(io_error("move files to", &self.target))?;
        let _moved = self.temporary.keep();
        Ok(())
    }
}

/// The directory that holds `path`; `.` for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Temporary files are private by default; files that stay must have the permissions of any new file.
fn public<'b, 'p, 's>(builder: &'b mut Builder<'p, 's>, mode: u32) -> &'b mut Builder<'p, 's> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}
