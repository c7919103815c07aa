//! Recognizes the kind of a file by its first bytes, whatever its name.

use std::fmt;

/// Bytes that tell.
pub(crate) const SIGNATURE_NUM_BYTES: usize = 8;

/// Kinds of files that are taken for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    Empty,
    Gzip,
    Zstd,
    Zip,
    Bzip2,
    Xz,
    Parquet,
    Other,
}

impl Signature {
    /// Of a file that begins with `head`.
    pub(crate) fn of(head: &[u8]) -> Signature {
        match head {
            [] => Signature::Empty,
            [0x1f, 0x8b, ..] => Signature::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Signature::Zstd,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Signature::Zip,
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => Signature::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Signature::Xz,
            [b'P', b'A', b'R', b'1', ..] => Signature::Parquet,
            _ => Signature::Other,
        }
    }

    /// The ending that names a compressed file which Baton reads.
    pub(crate) fn archive_suffix(self) -> Option<&'static str> {
        match self {
            Signature::Gzip => Some(".gz"),
            Signature::Zstd => Some(".zst"),
            _ => None,
        }
    }

    /// Whether it is certainly no text.
    pub(crate) fn is_binary(self) -> bool {
        !matches!(self, Signature::Empty | Signature::Other)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signature::Empty => "empty",
            Signature::Gzip => "a gzip file",
            Signature::Zstd => "a Zstandard file",
            Signature::Zip => "a zip archive",
            Signature::Bzip2 => "a bzip2 file",
            Signature::Xz => "an xz file",
            Signature::Parquet => "a Parquet file",
            Signature::Other => "not compressed",
        })
    }
}
