//! Text from a file's bytes: byte order marks, UTF-16, and files that are not text.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use crate::compression::READ_BUFFER_NUM_BYTES;
use crate::signature::Signature;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file is not text if at least one in this many of its first bytes is NUL.
const MIN_BYTES_PER_NUL: usize = 64;

/// The bytes of a text file as UTF-8, without a byte order mark. UTF-16 is known by its mark and converted;
/// half of a surrogate pair in it becomes bytes that are not UTF-8, so that its row fails and no other.
///
/// # Errors
/// The input cannot be read, or is not text: the message names its apparent kind.
pub(crate) fn open_text(mut input: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut head = Vec::with_capacity(READ_BUFFER_NUM_BYTES);
    if let Err(error) = input.by_ref().take(READ_BUFFER_NUM_BYTES as u64).read_to_end(&mut head) {
        if head.is_empty() {
            return Err(error);
        }
        input = Box::new(Deferred(Some(error))); // what was read before is read
    }
    let found = Signature::of(&head);
    if found.is_binary() {
        return Err(no_text(format!("it is {found}, not a text file")));
    }
    let (mark_num_bytes, utf16) = match &head[..] {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            return Err(no_text("it is UTF-32; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)".to_owned()));
        }
        [0xff, 0xfe, ..] => (2, Some(u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xfe, 0xff, ..] => (2, Some(u16::from_be_bytes as fn([u8; 2]) -> u16)),
        head if head.starts_with(UTF8_MARK) => (UTF8_MARK.len(), None),
        _ => (0, None),
    };
    if utf16.is_none() {
        let num_nuls = head.iter().filter(|&&byte| byte == 0).count();
        if num_nuls * MIN_BYTES_PER_NUL > head.len() {
            return Err(no_text(format!(
                "it is no text: {num_nuls} of its first {} bytes are NUL; UTF-16 without a byte order mark \
                 is converted by iconv -f UTF-16LE -t UTF-8",
                head.len()
            )));
        }
    }
    let mut head = Cursor::new(head);
    head.set_position(mark_num_bytes as u64);
    let input = head.chain(input);
    Ok(match utf16 {
        None => Box::new(BufReader::with_capacity(READ_BUFFER_NUM_BYTES, input)),
        Some(decode) => {
            let units = Units { input: BufReader::with_capacity(READ_BUFFER_NUM_BYTES, input), decode };
            let utf16 = Utf16 { units, waiting: None, text: Vec::new(), place: 0 };
            Box::new(BufReader::with_capacity(READ_BUFFER_NUM_BYTES, utf16))
        }
    })
}

/// Fails once, where the input did.
struct Deferred(Option<io::Error>);

impl Read for Deferred {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn no_text(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The 16-bit units of a file.
struct Units<R> {
    input: BufReader<R>,
    decode: fn([u8; 2]) -> u16,
}

impl<R: Read> Units<R> {
    fn next(&mut self) -> io::Result<Option<u16>> {
        let mut unit = [0; 2];
        if self.input.read(&mut unit[..1])? == 0 {
            return Ok(None);
        }
        if self.input.read(&mut unit[1..])? == 0 {
            return Err(no_text(
                "its UTF-16 text ends in the middle of a character: the file is cut off".into(),
            ));
        }
        Ok(Some((self.decode)(unit)))
    }
}

/// UTF-16 read as UTF-8.
struct Utf16<R> {
    units: Units<R>,
    /// A unit that was read after a half pair.
    waiting: Option<u16>,
    /// Converted, and given away up to `place`.
    text: Vec<u8>,
    place: usize,
}

impl<R: Read> Utf16<R> {
    /// Converts some more; false at the end.
    fn convert(&mut self) -> io::Result<bool> {
        self.text.clear();
        self.place = 0;
        while self.text.len() < READ_BUFFER_NUM_BYTES {
            let Some(unit) = self.waiting.take().map_or_else(|| self.units.next(), |unit| Ok(Some(unit)))?
            else {
                break;
            };
            let next = if (0xd800..0xdc00).contains(&unit) { self.units.next()? } else { None };
            match char::decode_utf16([unit].into_iter().chain(next)).next() {
                Some(Ok(character)) => {
                    self.text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => {
                    // Its bytes in the scheme of UTF-8, which has none for it.
                    let bits = |shift: u32| 0x80 | ((unit >> shift) & 0x3f) as u8;
                    self.text.extend_from_slice(&[0xe0 | (unit >> 12) as u8, bits(6), bits(0)]);
                    self.waiting = next;
                }
            }
        }
        Ok(!self.text.is_empty())
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.place == self.text.len() && !self.convert()? {
            return Ok(0);
        }
        let num_bytes = (&self.text[self.place..]).read(buffer)?;
        self.place += num_bytes;
        Ok(num_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        open_text(Box::new(Cursor::new(bytes.to_vec())))?.read_to_end(&mut text)?;
        Ok(text)
    }

    fn utf16(text: &str) -> Vec<u16> {
        [0xfeff].into_iter().chain(text.encode_utf16()).collect()
    }

    #[test]
    fn utf16_with_a_mark_is_read_as_the_utf8_that_it_says() {
        let text = "id,text\r\n1,perché 🎉 \u{10ffff}\n".repeat(9000);
        let little: Vec<u8> = utf16(&text).into_iter().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = utf16(&text).into_iter().flat_map(u16::to_be_bytes).collect();
        assert!(read(&little).unwrap() == text.as_bytes());
        assert!(read(&big).unwrap() == text.as_bytes());
        assert_eq!(read(&little[..2]).unwrap(), b"");
    }

    #[test]
    fn half_a_pair_becomes_bytes_that_are_not_utf8_and_the_rest_is_kept() {
        let units = [0xfeff, u16::from(b'a'), 0xd83c, u16::from(b'b'), 0xdf89, u16::from(b'c')];
        let bytes: Vec<u8> = units.into_iter().flat_map(u16::to_le_bytes).collect();
        let text = read(&bytes).unwrap();
        assert_eq!((text.first(), text[4], text.last()), (Some(&b'a'), b'b', Some(&b'c')));
        assert!(std::str::from_utf8(&text).is_err());
    }

    #[test]
    fn a_cut_character_and_invalid_text_are_named() {
        for (bytes, message) in [
            (&b"\xff\xfea\0b"[..], "ends in the middle"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
            (b"i\0d\0,\0", "no text: 3 of its first 6 bytes are NUL"),
            (b"PAR1....", "a Parquet file, not a text"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_mark_is_no_text_and_one_nul_among_many_bytes_is_left_to_its_row() {
        assert_eq!(read(b"\xef\xbb\xbfx").unwrap(), b"x");
        let text = [vec![b'x'; 100], vec![0], vec![b'y'; 100]].concat();
        assert_eq!(read(&text).unwrap(), text);
    }
}
