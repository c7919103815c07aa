//! SentencePiece models, read directly from their `.spm` files. They give the ids and the texts of the C++
//! library.
//!
//! Owns normalization, both ways of cutting (unigram and BPE), byte fallback, and decoding. Which id a token
//! has in a model's embedding matrix can be another matter: Marian's `vocab.json` says, and
//! `spm_vocabulary.rs` follows it. Reference: Kudo and Richardson, arXiv 1808.06226.

mod bpe;
mod model_file;
mod normalizer;
mod piece_trie;
mod unigram;

use std::{collections::HashMap, ops::Range};

use prost::Message;

use self::{
    bpe::{Bpe, BpePiece},
    model_file::{ModelFile, Piece, PieceType},
    normalizer::Normalizer,
    piece_trie::PieceTrie,
    unigram::{Unigram, UnigramScore},
};

/// Replaces a space in pieces.
pub(crate) const SPACE_MARK: &str = "▁";
/// The text for an unknown piece, unless the file names another.
const UNKNOWN_SURFACE: &str = " ⁇ ";

/// A SentencePiece model.
#[derive(Debug, Clone)]
pub(crate) struct SentencePiece {
    pieces: Vec<Piece>,
    ids: HashMap<String, u32>,
    byte_ids: Option<Box<[u32; 256]>>, // where unknown characters are written by their bytes
    unknown_id: u32,
    unknown_surface: String,
    cutter: Cutter,
    normalizer: Normalizer,
    denormalizer: Option<Normalizer>,
}

#[derive(Debug, Clone)]
enum Cutter {
    Unigram(Unigram),
    Bpe(Bpe),
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpannedPiece<'a> {
    /// Id in the file.
    pub(crate) id: u32,
    /// Its normalized text; empty for a token that is one byte of a character.
    pub(crate) piece: &'a str,
    /// The bytes of the original text that it covers; of a token that is a part of a character, the whole
    /// character's.
    pub(crate) span: Range<usize>,
}

/// The contribution of a piece to a decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written<'a> {
    /// Its text, in which "▁" is a space.
    Text(&'a str),
    /// A byte of UTF-8.
    Byte(u8),
    /// Something that the vocabulary does not have.
    Unknown,
    /// Nothing: it begins, ends or pads.
    Nothing,
}

/// A piece of a normalized text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    bytes: Range<usize>,
    id: u32,
}

/// The pieces of an `.spm` file by their ids in it.
///
/// # Errors
/// In words: the file is not a SentencePiece model.
pub fn sentencepiece_pieces(file: &[u8]) -> Result<Vec<String>, String> {
    let SentencePiece { pieces, .. } = SentencePiece::new(file)?;
    Ok(pieces.into_iter().map(|piece| piece.text).collect())
}

impl SentencePiece {
    /// Reads the contents of an `.spm` file.
    ///
    /// # Errors
    /// It is no SentencePiece model, or of a kind that is not implemented (words, characters).
    pub(crate) fn new(file: &[u8]) -> Result<Self, String> {
        let ModelFile { pieces, trainer, normalizer, denormalizer } = ModelFile::decode(file)
            .map_err(|error| format!("it is no SentencePiece model, or is cut: {error}"))?;
        let trainer = trainer.unwrap_or_default();
        let mut ids = HashMap::with_capacity(pieces.len());
        for (piece, id) in pieces.iter().zip(0_u32..) {
            if piece.text.is_empty() || ids.insert(piece.text.clone(), id).is_some() {
                return Err(format!("its piece {id}, {:?}, is empty or occurs twice", piece.text));
            }
        }
        let of_type =
            |wanted| pieces.iter().zip(0_u32..).filter(move |(piece, _)| piece.piece_type() == wanted);
        let mut unknown = of_type(PieceType::Unknown).map(|(_, id)| id);
        let (Some(unknown_id), None) = (unknown.next(), unknown.next()) else {
            return Err("it must have exactly one unknown piece".to_owned());
        };
        let user_defined =
            || PieceTrie::new(of_type(PieceType::UserDefined).map(|(piece, id)| (piece.text.as_bytes(), id)));
        let as_suffix = trainer.treat_whitespace_as_suffix.unwrap_or(false);
        let byte_ids = trainer.byte_fallback.unwrap_or(false).then(|| byte_ids(&ids)).transpose()?;
        let cutter = match trainer.model_type.unwrap_or(1) {
            1 => Cutter::Unigram(unigram(&pieces, unknown_id)),
            2 => Cutter::Bpe(bpe(&pieces, user_defined(), unknown_id)),
            other => {
                let kinds = "unigram (1) and BPE (2) are implemented";
                return Err(format!("its model type is {other}; {kinds}"));
            }
        };
        let denormalizer = denormalizer
            .filter(|rules| rules.precompiled_charsmap.as_ref().is_some_and(|table| !table.is_empty()))
            .map(|rules| {
                // Only the table counts: a decoded text keeps its spaces.
                let rules = model_file::Normalization {
                    add_dummy_prefix: Some(false),
                    remove_extra_whitespaces: Some(false),
                    escape_whitespaces: Some(false),
                    ..rules
                };
                Normalizer::new(Some(&rules), false, PieceTrie::new([]))
            });
        Ok(Self {
            unknown_surface: trainer.unk_surface.unwrap_or_else(|| UNKNOWN_SURFACE.to_owned()),
            normalizer: Normalizer::new(normalizer.as_ref(), as_suffix, user_defined())?,
            denormalizer: denormalizer.transpose()?,
            pieces,
            ids,
            byte_ids,
            unknown_id,
            cutter,
        })
    }

    /// Cuts a text into tokens and hands them to `take`, in order. No control piece is among them.
    pub(crate) fn encode(&self, text: &str, mut take: impl FnMut(SpannedPiece<'_>)) {
        let normalized = self.normalizer.normalize(text);
        let cuts = match &self.cutter {
            Cutter::Unigram(unigram) => unigram.cut(&normalized.text),
            Cutter::Bpe(bpe) => bpe.cut(&normalized.text),
        };
        let mut cuts = cuts.into_iter().peekable();
        while let Some(Cut { id, mut bytes }) = cuts.next() {
            let is_unknown = id == self.unknown_id;
            match &self.byte_ids {
                // Adjacent unknown pieces are one token.
                None if is_unknown => {
                    while let Some(next) = cuts.next_if(|next| next.id == self.unknown_id) {
                        bytes.end = next.bytes.end;
                    }
                }
                _ => {}
            }
            let span = normalized.origins[bytes.start]..normalized.origins[bytes.end];
            match self.byte_ids.as_deref().filter(|_| is_unknown) {
                None => take(SpannedPiece { id, piece: &normalized.text[bytes], span }),
                Some(byte_ids) => {
                    for byte in normalized.text[bytes].bytes() {
                        take(SpannedPiece { id: byte_ids[usize::from(byte)], piece: "", span: span.clone() });
                    }
                }
            }
        }
    }

    /// The text that a sequence of pieces writes. Bytes that are not UTF-8 become U+FFFD; an unknown piece
    /// becomes the file's text for it.
    pub(crate) fn decode<'a>(&self, pieces: impl IntoIterator<Item = Written<'a>>) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        let mut is_begin = true; // nothing is written yet, nor the space that begins every text
        for piece in pieces {
            if let Written::Byte(byte) = piece {
                bytes.push(byte);
                continue;
            }
            write_bytes(&mut bytes, &mut text);
            is_begin &= text.is_empty();
            match piece {
                Written::Nothing | Written::Byte(_) => {}
                Written::Unknown => text.push_str(&self.unknown_surface),
                Written::Text(piece) => {
                    let mut rest = piece;
                    if is_begin
                        && self.normalizer.first_space_is_added()
                        && let Some(without) = rest.strip_prefix(SPACE_MARK)
                    {
                        rest = without;
                        is_begin = self.normalizer.removes_extra_whitespaces();
                    }
                    text.push_str(&rest.replace(SPACE_MARK, " "));
                }
            }
        }
        write_bytes(&mut bytes, &mut text);
        match &self.denormalizer {
            None => text,
            Some(denormalizer) => denormalizer.normalize(&text).text,
        }
    }

    /// The text of a piece, by its id. An id outside the file counts as unknown.
    pub(crate) fn written(&self, id: u32) -> Written<'_> {
        let Some(piece) = self.pieces.get(id as usize) else { return Written::Unknown };
        match piece.piece_type() {
            PieceType::Unknown => Written::Unknown,
            PieceType::Control => Written::Nothing,
            PieceType::Byte => byte_of(&piece.text).map_or(Written::Nothing, Written::Byte),
            PieceType::Normal | PieceType::UserDefined | PieceType::Unused => Written::Text(&piece.text),
        }
    }

    /// The pieces that no text has, such as `</s>`, with their ids.
    pub(crate) fn control_pieces(&self) -> impl Iterator<Item = (&str, u32)> {
        let pieces = self.pieces.iter().zip(0_u32..);
        let control = pieces.filter(|(piece, _)| piece.piece_type() == PieceType::Control);
        control.map(|(piece, id)| (piece.text.as_str(), id))
    }

    /// Id of a piece by its exact text.
    pub(crate) fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// The text of a piece.
    pub(crate) fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(|piece| piece.text.as_str())
    }

    /// How many pieces there are; ids are below.
    pub(crate) fn num_pieces(&self) -> usize {
        self.pieces.len()
    }
}

fn unigram(pieces: &[Piece], unknown_id: u32) -> Unigram {
    let is_cut = |piece: &&Piece| {
        matches!(piece.piece_type(), PieceType::Normal | PieceType::UserDefined | PieceType::Unused)
    };
    let with_ids = pieces.iter().zip(0_u32..).filter(|(piece, _)| is_cut(piece));
    let scores = pieces.iter().map(|piece| match piece.piece_type() {
        PieceType::UserDefined => UnigramScore::UserDefined,
        PieceType::Normal => UnigramScore::Normal(piece.score),
        _ => UnigramScore::Unused,
    });
    let normal = pieces.iter().filter(|piece| piece.piece_type() == PieceType::Normal);
    Unigram {
        trie: PieceTrie::new(with_ids.map(|(piece, id)| (piece.text.as_bytes(), id))),
        scores: scores.collect(),
        unknown_id,
        lowest_score: normal.map(|piece| piece.score).fold(f32::MAX, f32::min),
    }
}

fn bpe(pieces: &[Piece], whole: PieceTrie, unknown_id: u32) -> Bpe {
    let known = pieces.iter().zip(0_u32..).filter_map(|(piece, id)| {
        let is_unused = match piece.piece_type() {
            PieceType::Normal | PieceType::UserDefined => false,
            PieceType::Unused => true,
            _ => return None,
        };
        Some((piece.text.clone(), BpePiece { id, score: piece.score, is_unused }))
    });
    Bpe { pieces: known.collect(), whole, unknown_id }
}

/// `<0x00>` to `<0xFF>`
fn byte_ids(ids: &HashMap<String, u32>) -> Result<Box<[u32; 256]>, String> {
    let mut byte_ids = Box::new([0; 256]);
    for byte in 0..=u8::MAX {
        let id = ids.get(&format!("<0x{byte:02X}>"));
        byte_ids[usize::from(byte)] =
            *id.ok_or_else(|| format!("it falls back to bytes, but has no piece for byte {byte:#04x}"))?;
    }
    Ok(byte_ids)
}

fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

/// Moves bytes to the end of a text, decoding them as UTF-8 where possible.
fn write_bytes(bytes: &mut Vec<u8>, text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|_| text.push(char::REPLACEMENT_CHARACTER));
    }
    bytes.clear();
}
