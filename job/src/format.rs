//! Input formats and compression: told from a file's name, undone on its bytes.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::JobError;

/// Bytes read from an input at a time.
const READ_BUFFER_NUM_BYTES: usize = 64 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How records lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFormat {
    /// One JSON object a line; blank lines are skipped.
    Jsonl,
    /// Comma-separated with a header row, quoted as in RFC 4180.
    Csv,
    /// Tab-separated with a header row. A quote is an ordinary character and a cell has no line break, as in the
    /// IANA definition of the format: so a stray quote cannot swallow the lines after it.
    Tsv,
    /// One text a line; a blank line is a record with an empty text, so lines stay aligned with the file.
    Txt,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
}

impl InputFormat {
    /// Tells format and compression from a file's name; `forced` overrules the format part.
    ///
    /// # Errors
    /// [`JobError::UnknownFormat`] if the name does not tell the format and none is forced.
    pub fn of(uri: &str, forced: Option<InputFormat>) -> Result<(InputFormat, Compression), JobError> {
        let name = uri.rsplit('/').next().unwrap_or(uri).to_ascii_lowercase();
        let (name, compression) = if let Some(stem) = name.strip_suffix(".gz") {
            (stem, Compression::Gzip)
        } else if let Some(stem) = name.strip_suffix(".zst") {
            (stem, Compression::Zstd)
        } else {
            (name.as_str(), Compression::Plain)
        };
        let told = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("jsonl" | "ndjson") => Some(InputFormat::Jsonl),
            Some("csv") => Some(InputFormat::Csv),
            Some("tsv") => Some(InputFormat::Tsv),
            Some("txt") => Some(InputFormat::Txt),
            _ => None,
        };
        let format = forced.or(told).ok_or_else(|| JobError::UnknownFormat { uri: uri.to_owned() })?;
        Ok((format, compression))
    }
}

impl Compression {
    /// Decompresses `input` and drops a byte order mark at its start.
    ///
    /// # Errors
    /// The input cannot be read, or is no such file.
    pub fn decode(self, input: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
        let input = Uninterrupted(input);
        let mut input: Box<dyn Read + Send> = match self {
            Compression::Plain => Box::new(input),
            Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
            Compression::Zstd => Box::new(zstd::Decoder::new(input)?),
        };
        let mut head = Vec::with_capacity(BYTE_ORDER_MARK.len());
        (&mut input).take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut head)?;
        if head == BYTE_ORDER_MARK {
            head.clear();
        }
        Ok(Box::new(BufReader::with_capacity(READ_BUFFER_NUM_BYTES, Cursor::new(head).chain(input))))
    }
}

/// Retries reads that a signal interrupted, so that no layer above has to.
struct Uninterrupted(Box<dyn Read + Send>);

impl Read for Uninterrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_format_and_compression() {
        let cases = [
            ("a/b.jsonl", InputFormat::Jsonl, Compression::Plain),
            ("a/b.ndjson.gz", InputFormat::Jsonl, Compression::Gzip),
            ("B.CSV.ZST", InputFormat::Csv, Compression::Zstd),
            ("x.tar.tsv", InputFormat::Tsv, Compression::Plain),
            ("s3://bucket/x.txt.gz", InputFormat::Txt, Compression::Gzip),
        ];
        for (uri, format, compression) in cases {
            assert_eq!(InputFormat::of(uri, None).unwrap(), (format, compression), "{uri}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_unless_the_format_is_forced() {
        for uri in ["notes.md", "jsonl", "dir.csv/file", "x.gz"] {
            assert!(InputFormat::of(uri, None).unwrap_err().to_string().starts_with(uri));
            let forced = InputFormat::of(uri, Some(InputFormat::Txt)).unwrap();
            assert_eq!(forced.0, InputFormat::Txt);
        }
    }
}
