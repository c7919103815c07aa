//! The tokenizer of a Hugging Face directory as files of a bundle.
//!
//! `tokenizer.json` is copied unchanged. For SentencePiece models, the family determines the ids of their
//! pieces in the embedding matrix: those of the file, those of a `vocab.json`, or those that the family's
//! slow tokenizer in transformers computes. They become a `vocab.json` of the bundle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use baton_bundle::{BundleError, Family, ModelConfig, language_of_token, read_bytes, sentencepiece_pieces};
use serde_json::{Map, Value};

use crate::ImportError;

const JSON: &str = "tokenizer.json";
const IDS: &str = "vocab.json";
/// The names that a SentencePiece model for both languages has.
const PIECES: [&str; 3] = ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model"];

/// The files that a directory has for a model of `config`, by their names in a bundle.
///
/// # Errors
/// The directory has no files that suit the family.
pub(crate) fn tokenizer_files(
    directory: &Path,
    config: &ModelConfig,
) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
    let source = Source { directory };
    let family = config.family();
    if family == Family::Marian && source.has("source.spm") {
        return source.of_two_languages();
    }
    if source.has(JSON) {
        return Ok(vec![(JSON, source.read(JSON)?)]);
    }
    let Some(pieces_file) = PIECES.into_iter().find(|name| source.has(name)) else {
        let files = match family {
            Family::Marian => "source.spm, target.spm and vocab.json",
            _ => JSON,
        };
        let reason = format!("it has no {files}; save it once with a fast tokenizer of transformers");
        return Err(source.refused(reason));
    };
    let pieces = source.read(pieces_file)?;
    let texts = || {
        sentencepiece_pieces(&pieces)
            .map_err(|problem| source.refused(format!("{pieces_file} cannot be read: {problem}")))
    };
    let ids = match family {
        Family::T5 | Family::Mt5 => return Ok(vec![("vocab.spm", pieces)]),
        Family::M2m100 if source.has(IDS) => source.ids_of_file()?,
        Family::Mbart => fairseq_ids(&texts()?),
        Family::Pegasus => pegasus_ids(&texts()?),
        _ => {
            let reason = format!(
                "it has {pieces_file}, but no {JSON}; save it once with a fast tokenizer of transformers"
            );
            return Err(source.refused(reason));
        }
    };
    let ids = source.with_languages(ids)?;
    let json = serde_json::to_vec(&ids).expect("names and numbers are JSON");
    Ok(vec![("vocab.spm", pieces), (IDS, json)])
}

/// Ids by piece.
type Ids = BTreeMap<String, u32>;

/// mBART's: fairseq put four pieces before those of the file, in place of the file's first three.
fn fairseq_ids(pieces: &[String]) -> Ids {
    let own = ["<s>", "<pad>", "</s>", "<unk>"].map(str::to_owned).into_iter().zip(0..);
    own.chain(pieces.iter().cloned().zip(1..).skip(3)).collect()
}

/// Pegasus': 103 pieces for gaps precede those of the file, except the pieces that pad and end.
fn pegasus_ids(pieces: &[String]) -> Ids {
    const OFFSET: u32 = 103;
    let gaps = ["<mask_1>", "<mask_2>"].map(str::to_owned).into_iter().zip(2..);
    let unused = (4..OFFSET + 2).map(|id| (format!("<unk_{}>", id - 2), id));
    let own = [("<pad>".to_owned(), 0), ("</s>".to_owned(), 1)];
    pieces.iter().cloned().zip(OFFSET..).chain(gaps).chain(unused).chain(own).collect()
}

struct Source<'a> {
    directory: &'a Path,
}

impl Source<'_> {
    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        Ok(read_bytes(&self.path(name))?)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, ImportError> {
        let path = self.path(name);
        let json = serde_json::from_slice(&read_bytes(&path)?);
        Ok(json.map_err(|source| BundleError::Json { path, source })?)
    }

    /// A file of settings; without it, none.
    fn settings(&self, name: &str) -> Result<Map<String, Value>, ImportError> {
        if self.has(name) { self.json(name) } else { Ok(Map::new()) }
    }

    fn of_two_languages(&self) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
        if self.settings("tokenizer_config.json")?.get("separate_vocabs") == Some(&Value::Bool(true)) {
            let reason = "`separate_vocabs` is true in its tokenizer_config.json, but only models with one \
                          vocabulary for both languages are supported";
            return Err(self.refused(reason.to_owned()));
        }
        let file = |name| Ok((name, self.read(name)?));
        ["source.spm", "target.spm", IDS].into_iter().map(file).collect()
    }

    fn ids_of_file(&self) -> Result<Ids, ImportError> {
        self.json(IDS)
    }

    /// The same ids, plus those of languages from other files: by their ids, or in their order after all
    /// others.
    fn with_languages(&self, mut ids: Ids) -> Result<Ids, ImportError> {
        let content = |value: &Value| value.get("content").unwrap_or(value).as_str().map(str::to_owned);
        let mut settings = self.settings("special_tokens_map.json")?;
        settings.extend(self.settings("tokenizer_config.json")?);
        let mut known: Ids = Ids::new();
        for (token, id) in self.settings("added_tokens.json")? {
            known.extend(id.as_u64().and_then(|id| Some((token, u32::try_from(id).ok()?))));
        }
        let decoder = settings.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in decoder.into_iter().flatten() {
            known.extend(content(token).and_then(|token| Some((token, id.parse().ok()?))));
        }
        let languages = |tokens: &Ids| tokens.keys().any(|token| language_of_token(token).is_some());
        if !languages(&known) && !languages(&ids) {
            let mut names = ["additional_special_tokens", "extra_special_tokens"].into_iter();
            let listed = names.find_map(|name| settings.get(name)?.as_array());
            let first = ids.values().max().map_or(0, |largest| largest + 1);
            let tokens = listed.into_iter().flatten().filter_map(content);
            known.extend(tokens.filter(|token| language_of_token(token).is_some()).zip(first..));
        }
        ids.extend(known);
        Ok(ids)
    }

    fn refused(&self, reason: String) -> ImportError {
        ImportError::UnsupportedSource { path: self.directory.to_owned(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn ids_are_those_of_the_slow_tokenizers() {
        let mbart = fairseq_ids(&pieces(&["<unk>", "<s>", "</s>", ",", "▁a"]));
        let expected = [("<s>", 0), ("<pad>", 1), ("</s>", 2), ("<unk>", 3), (",", 4), ("▁a", 5)];
        assert_eq!(mbart, expected.map(|(piece, id)| (piece.to_owned(), id)).into());

        let pegasus = pegasus_ids(&pieces(&["<pad>", "</s>", "<unk>", "▁the"]));
        for (piece, id) in [
            ("<pad>", 0),
            ("</s>", 1),
            ("<mask_2>", 3),
            ("<unk_2>", 4),
            ("<unk_102>", 104),
            ("<unk>", 105),
            ("▁the", 106),
        ] {
            assert_eq!(pegasus[piece], id, "{piece}");
        }
        assert_eq!(pegasus.len(), 107);
    }
}
