//! Compression of whole files. A file's name tells it; inputs are decompressed, parts are compressed.
//!
//! Owns that an archive is read to its very end or reported as broken. The written bytes depend on the
//! content alone: no time, no name, one thread.

use std::io::{self, BufRead, BufReader, Cursor, Read, Write};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::signature::{SIGNATURE_NUM_BYTES, Signature};

/// Bytes read from an input at a time.
pub(crate) const READ_BUFFER_NUM_BYTES: usize = 64 * 1024;

/// The default of the zstd command line.
const ZSTD_LEVEL: i32 = 3;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
}

impl Compression {
    /// Every one.
    pub const ALL: [Compression; 3] = [Compression::Plain, Compression::Gzip, Compression::Zstd];

    /// The ending of file names, with its point; empty where files are plain.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::Plain => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }

    /// Cuts the ending off a file's name.
    pub(crate) fn of_name(name: &str) -> (&str, Compression) {
        for compression in [Compression::Gzip, Compression::Zstd] {
            if let Some(stem) = name.strip_suffix(compression.suffix()) {
                return (stem, compression);
            }
        }
        (name, Compression::Plain)
    }

    /// Decompresses `input`. Errors name the problem of the archive; those of `input` pass unchanged.
    ///
    /// # Errors
    /// The input cannot be read, or its first bytes show that it is not such a file.
    pub(crate) fn decode(self, input: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let mut input = Uninterrupted(input);
        let mut head = Vec::with_capacity(SIGNATURE_NUM_BYTES);
        input.by_ref().take(SIGNATURE_NUM_BYTES as u64).read_to_end(&mut head)?;
        let found = Signature::of(&head);
        let input = BufReader::with_capacity(READ_BUFFER_NUM_BYTES, Cursor::new(head).chain(input));
        match self {
            Compression::Plain => match found.archive_suffix() {
                Some(suffix) => {
                    Err(broken(format!("it is {found}, but its name does not say so: name it `{suffix}`")))
                }
                None => Ok(Box::new(input)),
            },
            Compression::Gzip if found != Signature::Gzip => Err(not_as_named(".gz", found)),
            Compression::Zstd if found != Signature::Zstd => Err(not_as_named(".zst", found)),
            Compression::Gzip => Ok(Box::new(GzipMembers::new(input))),
            Compression::Zstd => Ok(Box::new(ZstdFrames(zstd::Decoder::with_buffer(input)?))),
        }
    }

    /// The compressed bytes of a whole file.
    ///
    /// # Errors
    /// The encoder cannot be made.
    pub fn compressed(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        let mut sink = self.encode(Box::new(&mut output))?;
        sink.write_all(bytes)?;
        sink.finish()?;
        Ok(output)
    }

    /// The bytes of a whole file that was compressed.
    ///
    /// # Errors
    /// It is no such file, or damaged.
    pub fn decompressed(self, bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        self.decode(Box::new(Cursor::new(bytes)))?.read_to_end(&mut output)?;
        Ok(output)
    }

    /// A writer that compresses into `output`.
    ///
    /// # Errors
    /// The encoder cannot be made.
    pub(crate) fn encode<'w>(self, output: Box<dyn Write + Send + 'w>) -> io::Result<Sink<'w>> {
        Ok(match self {
            Compression::Plain => Sink::Plain(output),
            Compression::Gzip => Sink::Gzip(GzEncoder::new(output, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(output, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Sink::Zstd(encoder)
            }
        })
    }
}

/// Where a writer's bytes go, compressed. It must be finished.
pub(crate) enum Sink<'w> {
    Plain(Box<dyn Write + Send + 'w>),
    Gzip(GzEncoder<Box<dyn Write + Send + 'w>>),
    Zstd(zstd::Encoder<'static, Box<dyn Write + Send + 'w>>),
}

impl Sink<'_> {
    /// Writes the rest.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Sink::Plain(mut output) => output.flush(),
            Sink::Gzip(encoder) => encoder.finish()?.flush(),
            Sink::Zstd(encoder) => encoder.finish()?.flush(),
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(output) => output.write(bytes),
            Sink::Gzip(encoder) => encoder.write(bytes),
            Sink::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(output) => output.flush(),
            Sink::Gzip(encoder) => encoder.flush(),
            Sink::Zstd(encoder) => encoder.flush(),
        }
    }
}

type Buffered = BufReader<io::Chain<Cursor<Vec<u8>>, Uninterrupted>>;

/// The members of a gzip file, one after the other, and the zeros that tapes and some tools append.
struct GzipMembers {
    /// `None` after the last member.
    member: Option<GzDecoder<Buffered>>,
}

impl GzipMembers {
    fn new(input: Buffered) -> GzipMembers {
        GzipMembers { member: Some(GzDecoder::new(input)) }
    }
}

impl Read for GzipMembers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let num_bytes = member.read(buffer).map_err(|error| archive_error("gzip", &error))?;
            if num_bytes > 0 || buffer.is_empty() {
                return Ok(num_bytes);
            }
            let mut input = self.member.take().expect("it was just read").into_inner();
            match skip_zeros(&mut input)? {
                None => break,
                Some(Signature::Gzip) => self.member = Some(GzDecoder::new(input)),
                Some(_) => return Err(broken("other bytes follow its gzip data".to_owned())),
            }
        }
        Ok(0)
    }
}

/// The bytes after the zeros; `None` at the end of the file.
fn skip_zeros(input: &mut Buffered) -> io::Result<Option<Signature>> {
    loop {
        let chunk = input.fill_buf()?;
        let num_zeros = chunk.iter().take_while(|&&byte| byte == 0).count();
        if num_zeros < chunk.len() || chunk.is_empty() {
            let rest = &chunk[num_zeros..];
            // A member's two first bytes may be the last ones of a chunk, or be cut between two.
            let found = match rest {
                [] => None,
                [0x1f] => Some(Signature::Gzip), // the decoder tells
                rest => Some(Signature::of(rest)),
            };
            input.consume(num_zeros);
            return Ok(found);
        }
        let num_bytes = chunk.len();
        input.consume(num_bytes);
    }
}

struct ZstdFrames(zstd::Decoder<'static, Buffered>);

impl Read for ZstdFrames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| archive_error("zstd", &error))
    }
}

/// An error of a decoder in plain words. One of the source below is told from it elsewhere.
fn archive_error(what: &str, error: &io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            broken(format!("its {what} data ends too early: the file is cut off"))
        }
        _ => broken(format!("its {what} data is corrupt ({error})")),
    }
}

fn not_as_named(suffix: &str, found: Signature) -> io::Error {
    broken(format!("it is named `{suffix}`, but it is {found}"))
}

fn broken(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Retries reads that a signal interrupted, so that no layer above has to.
pub(crate) struct Uninterrupted(pub(crate) Box<dyn Read + Send>);

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
