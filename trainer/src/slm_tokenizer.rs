//! The small model's tokenizer: byte-level BPE that continues where the LLM's tokenizer ends.
//!
//! A model copies a name easily if prompt and response have the same tokens for it. The tokenizer therefore
//! keeps the LLM tokenizer's merges that copied words need (`llm_merges.rs`), up to a budget. The rest of the
//! vocabulary is learned on top of them, from words that are written and not copied. Learned merges come
//! after all kept ones: they can join the pieces that the LLM's tokenizer gives for a word, but not cut the
//! word elsewhere.
//!
//! BPE: Sennrich et al., arXiv 1508.07909.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use tokenizers::{
    AddedToken, Model, NormalizedString, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper, Tokenizer,
    decoders::byte_level::ByteLevel as ByteLevelDecoder,
    models::bpe::{BPE, BpeTrainerBuilder, Vocab},
    normalizers::NFC,
    pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence},
};

use crate::{TrainError, llm_merges::LlmMerges, pairs::TextPair};

/// Begins every response.
pub(crate) const BOS_TOKEN: &str = "<s>";
/// Ends every response.
pub(crate) const EOS_TOKEN: &str = "</s>";

/// A merge is learned from at least this many occurrences.
const MIN_OCCURRENCES: u64 = 2;
/// First of the characters that represent tokens while merges are learned; 65,534 private ones follow.
const FIRST_PRIVATE_CHAR: u32 = 0xF_0000;

/// The material of a tokenizer.
pub(crate) struct SlmTokenizerTraining<'a> {
    /// The training pairs.
    pub(crate) pairs: &'a [TextPair],
    /// The LLM's `tokenizer.json`.
    pub(crate) llm_tokenizer: &'a Path,
    /// Maximum of its tokens to keep, without bytes and special tokens.
    pub(crate) llm_tokens: usize,
    /// Tokens in all.
    pub(crate) vocab_size: usize,
}

/// How often a word of the targets was copied from its source, and how often it was not.
#[derive(Debug, Clone, Copy, Default)]
struct WordUse {
    copied: u64,
    written: u64,
}

impl SlmTokenizerTraining<'_> {
    /// Makes the tokenizer and saves it as `tokenizer.json`. Equal pairs give equal bytes.
    pub(crate) fn write(&self, path: &Path) -> Result<(), TrainError> {
        let failed = |e: tokenizers::Error| TrainError::Tokenizer(format!("making {}: {e}", path.display()));
        let llm = if self.llm_tokens == 0 { None } else { Some(self.open_llm_tokenizer()?) };
        let pre_tokenizer: PreTokenizerWrapper = match &llm {
            None => Sequence::new(vec![
                Digits::new(true).into(), // so that version numbers are the same pieces wherever they occur
                ByteLevel::new(false, true, true).into(),
            ])
            .into(),
            Some((tokenizer, _)) => {
                tokenizer.get_pre_tokenizer().cloned().ok_or_else(|| self.not_byte_level())?
            }
        };
        let words = self.count_words(&pre_tokenizer).map_err(failed)?;
        let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        if words.keys().any(|word| word.chars().any(|c| !alphabet.contains(&c))) {
            return Err(self.not_byte_level());
        }

        let mut vocabulary = Vocabulary::new(alphabet);
        if let Some((_, llm_merges)) = &llm {
            let copied = words.iter().filter(|(_, uses)| uses.copied > 0).map(|(word, _)| word.as_str());
            let room = self.vocab_size.saturating_sub(vocabulary.tokens.len());
            for merge in llm_merges.needed_by(copied, self.llm_tokens.min(room)).map_err(failed)? {
                vocabulary.add(merge);
            }
        }
        learn_merges(&mut vocabulary, &words, self.vocab_size).map_err(failed)?;

        let byte_level = ByteLevel::new(false, true, true);
        let mut tokenizer = Tokenizer::new(vocabulary.model().map_err(failed)?);
        tokenizer.with_normalizer(Some(NFC)).map_err(failed)?;
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
        tokenizer.with_post_processor(Some(byte_level));
        tokenizer.with_decoder(Some(ByteLevelDecoder::new(false, true, true)));
        tokenizer
            .add_special_tokens([BOS_TOKEN, EOS_TOKEN].map(|token| AddedToken::from(token, true)))
            .map_err(failed)?;
        let temporary = path.with_extension("json.partial");
        tokenizer.save(&temporary, true).map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(TrainError::io("write", path))
    }

    fn open_llm_tokenizer(&self) -> Result<(Tokenizer, LlmMerges), TrainError> {
        let tokenizer = open_tokenizer(self.llm_tokenizer)?;
        let merges = LlmMerges::of(&tokenizer).ok_or_else(|| self.not_byte_level())?;
        Ok((tokenizer, merges))
    }

    fn not_byte_level(&self) -> TrainError {
        let path = self.llm_tokenizer.display();
        TrainError::Tokenizer(format!("{path} is not a byte-level BPE tokenizer: set slm.llm_tokens = 0"))
    }

    /// The words of all targets, in the byte-level alphabet.
    fn count_words(
        &self,
        pre_tokenizer: &PreTokenizerWrapper,
    ) -> Result<BTreeMap<String, WordUse>, tokenizers::Error> {
        let mut words: BTreeMap<String, WordUse> = BTreeMap::new();
        for pair in self.pairs {
            let source: HashSet<String> =
                split_words(pre_tokenizer, pair.source.as_str().into())?.into_iter().collect();
            let mut target = NormalizedString::from(pair.target.as_str());
            target.nfc();
            for word in split_words(pre_tokenizer, target)? {
                let is_copied = source.contains(&word);
                let uses = words.entry(word).or_default();
                if is_copied {
                    uses.copied += 1;
                } else {
                    uses.written += 1;
                }
            }
        }
        Ok(words)
    }
}

fn split_words(
    pre_tokenizer: &PreTokenizerWrapper,
    text: NormalizedString,
) -> Result<Vec<String>, tokenizers::Error> {
    let mut splits = PreTokenizedString::from(text);
    pre_tokenizer.pre_tokenize(&mut splits)?;
    let words = splits.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(words.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

/// Tokens and merges so far, in the order of their ids and ranks.
struct Vocabulary {
    tokens: Vec<String>,
    known: HashSet<String>,
    merges: Vec<(String, String)>,
}

impl Vocabulary {
    /// The special tokens and one token for each byte.
    fn new(alphabet: HashSet<char>) -> Self {
        let mut bytes: Vec<String> = alphabet.into_iter().map(String::from).collect();
        bytes.sort_unstable();
        let tokens = [vec![BOS_TOKEN.to_owned(), EOS_TOKEN.to_owned()], bytes].concat();
        Self { known: tokens.iter().cloned().collect(), tokens, merges: Vec::new() }
    }

    fn add(&mut self, (left, right): (String, String)) {
        let token = format!("{left}{right}");
        if self.known.insert(token.clone()) {
            self.tokens.push(token);
        }
        self.merges.push((left, right));
    }

    fn model(&self) -> Result<BPE, tokenizers::Error> {
        let vocabulary: Vocab = self.tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect();
        BPE::builder().vocab_and_merges(vocabulary, self.merges.clone()).build()
    }
}

/// Fills the vocabulary up to `vocab_size` with merges learned on the words that are written, not copied.
///
/// The library's trainer starts from characters. Each token of the present vocabulary is therefore presented
/// as one character.
fn learn_merges(
    vocabulary: &mut Vocabulary,
    words: &BTreeMap<String, WordUse>,
    vocab_size: usize,
) -> Result<(), tokenizers::Error> {
    let model = vocabulary.model()?;
    let char_of = |id: u32| {
        char::from_u32(FIRST_PRIVATE_CHAR + id).ok_or_else(|| format!("token {id} is beyond 65,534 tokens"))
    };
    let mut word_counts = Vec::new();
    for (word, uses) in words.iter().filter(|(_, uses)| uses.written > 0) {
        let pieces = model.tokenize(word)?.into_iter().map(|token| char_of(token.id));
        word_counts.push((pieces.collect::<Result<String, _>>()?, uses.written));
    }
    let trainer = BpeTrainerBuilder::new()
        // Characters that no word has are not counted by the trainer, so this is more than is needed.
        .vocab_size(vocabulary.tokens.len() + vocab_size)
        .min_frequency(MIN_OCCURRENCES)
        .show_progress(false)
        .build();
    let mut learned = BPE::default();
    trainer.do_train(
        &word_counts.into_iter().map(|(word, count)| (word.into(), count)).collect(),
        &mut learned,
    )?;

    let known_tokens = vocabulary.tokens.clone();
    let spell = |token: &str| -> String {
        token.chars().map(|c| known_tokens[(u32::from(c) - FIRST_PRIVATE_CHAR) as usize].as_str()).collect()
    };
    for (left, right) in merges_of(&learned) {
        if vocabulary.tokens.len() == vocab_size {
            break;
        }
        vocabulary.add((spell(&left), spell(&right)));
    }
    Ok(())
}

/// Reads a `tokenizer.json`.
pub(crate) fn open_tokenizer(path: &Path) -> Result<Tokenizer, TrainError> {
    Tokenizer::from_file(path).map_err(|e| TrainError::Tokenizer(format!("reading {}: {e}", path.display())))
}

/// The merges of a BPE model in order of rank; the library shows them in its JSON alone.
pub(crate) fn merges_of(model: &BPE) -> Vec<(String, String)> {
    let json = serde_json::to_value(model).expect("a BPE model is plain data");
    serde_json::from_value(json["merges"].clone()).expect("merges are pairs of tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn pairs(texts: &[(&str, &str)]) -> Vec<TextPair> {
        let pair = |&(source, target): &(&str, &str)| TextPair {
            source: source.into(),
            target: target.into(),
            sentence_of: None,
        };
        texts.iter().map(pair).collect()
    }

    /// A tokenizer trained on `texts` replaces the LLM's.
    fn tokenizer(directory: &TempDir, name: &str, training: &SlmTokenizerTraining<'_>) -> Tokenizer {
        let path = directory.path().join(name);
        training.write(&path).unwrap();
        Tokenizer::from_file(path).unwrap()
    }

    fn llm(directory: &TempDir) -> Tokenizer {
        let texts = pairs(&[(
            "",
            "akonadi akonadi akonadi konsole konsole konsole adiabatic kernel kernel kernel the the",
        )]);
        let none = Path::new("");
        tokenizer(
            directory,
            "llm.json",
            &SlmTokenizerTraining { pairs: &texts, llm_tokenizer: none, llm_tokens: 0, vocab_size: 300 },
        )
    }

    fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        tokenizer.encode(text, false).unwrap().get_tokens().to_vec()
    }

    #[test]
    fn a_copied_word_is_cut_as_the_llm_cuts_it_and_a_written_word_gets_merges_of_its_own() {
        let directory = TempDir::new().unwrap();
        let llm = llm(&directory);
        let texts = pairs(&[
            ("the akonadi server", "il servente akonadi"),
            ("a akonadi kernel", "un servente akonadi"),
            ("servers", "servente servente"),
        ]);
        let llm_path = directory.path().join("llm.json");
        let training = |llm_tokens| SlmTokenizerTraining {
            pairs: &texts,
            llm_tokenizer: &llm_path,
            llm_tokens,
            vocab_size: 300,
        };
        let joint = tokenizer(&directory, "joint.json", &training(30));
        assert_eq!(tokens(&joint, " akonadi"), tokens(&llm, " akonadi"));
        assert_eq!(tokens(&joint, " servente"), ["Ġservente"]);
        let own = tokenizer(&directory, "own.json", &training(0));
        assert_ne!(tokens(&own, " akonadi"), tokens(&llm, " akonadi"), "without the LLM's merges it differs");
    }

    #[test]
    fn any_text_survives_encoding_and_decoding() {
        let directory = TempDir::new().unwrap();
        llm(&directory);
        let texts = pairs(&[("the kernel", "il kernel")]);
        let llm_path = directory.path().join("llm.json");
        let training =
            SlmTokenizerTraining { pairs: &texts, llm_tokenizer: &llm_path, llm_tokens: 10, vocab_size: 280 };
        let joint = tokenizer(&directory, "joint.json", &training);
        for text in ["perché no? 3.14 – €", "東京 🙂", "a\n\tb", "konsole</s>"] {
            let ids = joint.encode_fast(text, false).unwrap().get_ids().to_vec();
            assert_eq!(joint.decode(&ids, false).unwrap(), text);
        }
    }

    #[test]
    fn the_vocabulary_has_no_more_tokens_than_asked_for() {
        let directory = TempDir::new().unwrap();
        llm(&directory);
        let texts = pairs(&[("the kernel konsole akonadi", "il kernel konsole akonadi servente servente")]);
        let llm_path = directory.path().join("llm.json");
        for (llm_tokens, vocab_size) in [(0, 265), (4, 265), (100, 265), (100, 262)] {
            let training =
                SlmTokenizerTraining { pairs: &texts, llm_tokenizer: &llm_path, llm_tokens, vocab_size };
            let made = tokenizer(&directory, "joint.json", &training);
            assert_eq!(made.get_vocab_size(true), vocab_size, "{llm_tokens} LLM tokens");
        }
    }
}
