//! A SentencePiece model with the ids that a model's embedding matrix has for its pieces.
//!
//! Firefox Translations students take ids as the file has them. Marian directories have a file for each
//! language, and a `vocab.json` from the pieces of both to ids.

use std::{collections::HashMap, ops::Range, path::Path};

use crate::{
    BundleError, SpannedTokens,
    file::read_bytes,
    language_of_token,
    sentencepiece::{SPACE_MARK, SentencePiece, Written},
};

/// If this file lies beside a `.spm` file, it has the ids of pieces.
const IDS_FILE: &str = "vocab.json";
/// The name of an unknown piece in it.
const UNKNOWN: &str = "<unk>";
/// Tokens that write nothing, where the `.spm` file does not have them.
const CONTROL: [&str; 3] = ["<pad>", "<s>", "</s>"];

/// Pieces and their ids.
#[derive(Debug, Clone)]
pub(crate) struct SpmVocabulary {
    model: SentencePiece,
    ids: Option<PieceIds>,
}

/// Ids that differ from those of the file.
#[derive(Debug, Clone)]
struct PieceIds {
    of_piece: HashMap<String, u32>,
    control: Vec<(String, u32)>, // those that no text has
    pieces: Vec<Option<String>>, // by id
    unknown: u32,
}

impl SpmVocabulary {
    /// Loads a `.spm` file, and `vocab.json` if it lies beside it.
    ///
    /// # Errors
    /// A file cannot be read or is broken, or `vocab.json` has no `<unk>`.
    pub(crate) fn open(path: &Path) -> Result<Self, BundleError> {
        let problem =
            |source: String| BundleError::Tokenizer { path: path.to_owned(), source: source.into() };
        let model = SentencePiece::new(&read_bytes(path)?).map_err(problem)?;
        let ids_path = path.with_file_name(IDS_FILE);
        let ids = ids_path.exists().then(|| PieceIds::open(&ids_path)).transpose()?;
        Ok(Self { model, ids })
    }

    pub(crate) fn encode(&self, text: &str) -> SpannedTokens {
        let mut tokens = SpannedTokens::default();
        self.model.encode(text, |piece| {
            tokens.ids.push(match &self.ids {
                None => piece.id,
                Some(ids) => *ids.of_piece.get(piece.piece).unwrap_or(&ids.unknown),
            });
            tokens.spans.push(piece.span);
        });
        tokens
    }

    /// The same with control pieces in the text: id, whether it is a control piece, and bytes of `text`.
    pub(crate) fn encode_fixed(&self, text: &str) -> Vec<(u32, bool, Range<usize>)> {
        let control: Vec<(&str, u32)> = match &self.ids {
            None => self.model.control_pieces().collect(),
            Some(ids) => ids.control.iter().map(|(piece, id)| (piece.as_str(), *id)).collect(),
        };
        let mut tokens = Vec::new();
        let mut start = 0;
        loop {
            let found = control
                .iter()
                .filter_map(|&(piece, id)| Some((start + text[start..].find(piece)?, piece, id)))
                .min_by_key(|&(at, piece, _)| (at, std::cmp::Reverse(piece.len())));
            let end = found.map_or(text.len(), |(at, ..)| at);
            let SpannedTokens { ids, spans } = self.encode(&text[start..end]);
            tokens.extend(
                ids.into_iter()
                    .zip(spans)
                    .map(|(id, span)| (id, false, start + span.start..start + span.end)),
            );
            let Some((at, piece, id)) = found else { return tokens };
            start = at + piece.len();
            tokens.push((id, true, at..start));
        }
    }

    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        self.model.decode(ids.iter().map(|&id| self.written(id)))
    }

    fn written(&self, id: u32) -> Written<'_> {
        let Some(ids) = &self.ids else { return self.model.written(id) };
        match ids.pieces.get(id as usize).and_then(Option::as_deref) {
            None | Some(UNKNOWN) => Written::Unknown,
            Some(piece) => match self.model.id(piece) {
                Some(id) => self.model.written(id),
                None if is_control(piece) => Written::Nothing,
                None => Written::Text(piece),
            },
        }
    }

    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        match &self.ids {
            None => self.model.id(token),
            Some(ids) => ids.of_piece.get(token).copied(),
        }
    }

    pub(crate) fn token(&self, id: u32) -> Option<&str> {
        match &self.ids {
            None => self.model.piece(id),
            Some(ids) => ids.pieces.get(id as usize)?.as_deref(),
        }
    }

    /// The tokens that occur in no text.
    pub(crate) fn control_tokens(&self) -> Vec<String> {
        match &self.ids {
            None => self.model.control_pieces().map(|(piece, _)| piece.to_owned()).collect(),
            Some(ids) => ids.control.iter().map(|(piece, _)| piece.clone()).collect(),
        }
    }

    /// The bytes that each token writes, by id.
    pub(crate) fn spellings(&self) -> Vec<Vec<u8>> {
        let spelling = |id| match self.written(id) {
            Written::Text(piece) => piece.replace(SPACE_MARK, " ").into_bytes(),
            Written::Byte(byte) => vec![byte],
            Written::Unknown | Written::Nothing => Vec::new(),
        };
        (0..self.num_ids() as u32).map(spelling).collect()
    }

    pub(crate) fn unknown_ids(&self) -> Vec<u32> {
        let ids = 0..self.num_ids() as u32;
        ids.filter(|&id| matches!(self.written(id), Written::Unknown)).collect()
    }

    pub(crate) fn num_ids(&self) -> usize {
        self.ids.as_ref().map_or(self.model.num_pieces(), |ids| ids.pieces.len())
    }
}

/// Whether a piece of `vocab.json` has no text.
fn is_control(piece: &str) -> bool {
    let is_gap = piece.starts_with("<mask") || piece.starts_with("<unk_"); // of Pegasus and mBART
    CONTROL.contains(&piece) || is_gap || language_of_token(piece).is_some()
}

impl PieceIds {
    fn open(path: &Path) -> Result<Self, BundleError> {
        let of_piece: HashMap<String, u32> = serde_json::from_slice(&read_bytes(path)?)
            .map_err(|source| BundleError::Json { path: path.to_owned(), source })?;
        let problem = |problem: &str| BundleError::WrongTokenizer {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let unknown = *of_piece.get(UNKNOWN).ok_or_else(|| problem("has no id for <unk>"))?;
        let num_ids = of_piece.values().max().map_or(0, |&largest| largest as usize + 1);
        if num_ids > 1 << 24 {
            return Err(problem("has an id above 2^24"));
        }
        let mut pieces = vec![None; num_ids];
        for (piece, &id) in &of_piece {
            if pieces[id as usize].replace(piece.clone()).is_some() {
                return Err(problem("has two pieces with one id"));
            }
        }
        let control = of_piece.iter().filter(|(piece, _)| is_control(piece));
        let control = control.map(|(piece, &id)| (piece.clone(), id)).collect();
        Ok(Self { of_piece, control, pieces, unknown })
    }
}
