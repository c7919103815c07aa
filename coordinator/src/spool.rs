//! Standard input as an input. Its bytes are first copied to a temporary file, because every run and every
//! attempt reads an input from its beginning. Its sha256 is its tag: the same bytes resume a job.

use std::io::{self, Read, Write};

use baton_store::{InputFile, list_inputs};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::CoordinatorError;

/// The name of standard input among inputs.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Bytes copied at a time.
const BUFFER_NUM_BYTES: usize = 64 * 1024;

/// The content of standard input. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Spool {
    /// The input under the job's name.
    pub(crate) input: InputFile,
    /// The file with its bytes.
    pub(crate) stored: InputFile,
    _file: NamedTempFile,
}

impl Spool {
    /// Reads standard input to its end.
    ///
    /// # Errors
    /// Standard input cannot be read, or there is no room for it.
    pub(crate) async fn fill() -> Result<Spool, CoordinatorError> {
        let copied = tokio::task::spawn_blocking(|| copy(io::stdin().lock())).await;
        let copied = copied.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let (file, sha256) = copied.map_err(|source| CoordinatorError::StandardInput { source })?;
        let path = file.path().to_string_lossy().into_owned();
        let stored = list_inputs(&[path]).await?.remove(0); // it exists, so it is no pattern
        let input = InputFile { uri: STANDARD_INPUT.to_owned(), size: stored.size, etag: sha256 };
        Ok(Spool { input, stored, _file: file })
    }
}

/// Copies `input` to a temporary file; returns the sha256 of its bytes, hexadecimal.
fn copy(mut input: impl Read) -> io::Result<(NamedTempFile, String)> {
    let mut file = tempfile::Builder::new().prefix("baton-stdin-").tempfile()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_NUM_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(num_bytes) => {
                hash.update(&buffer[..num_bytes]);
                file.write_all(&buffer[..num_bytes])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((file, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_stored_whole_with_its_sha256() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let (file, sha256) = copy(&bytes[..]).unwrap();
        assert!(std::fs::read(file.path()).unwrap() == bytes);
        assert_eq!(sha256, baton_job::sha256_hex(&bytes));
    }
}
