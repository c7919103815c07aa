//! Directories of Firefox Translations and Bergamot students: `model.*.bin`, `vocab.*.spm`, and the shortlist
//! `lex.*.bin` if it is there.
//!
//! The settings inside the model file describe the network. A setting that Baton does not implement is
//! refused by name. Tensors come out in f32 under the names of Hugging Face's Marian.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use baton_bundle::{
    BartActivation, BartConfig, BartKind, BundleError, FamilyConfig, ModelConfig, OutputRules,
    UnsupportedSetting, WeightDtype, io_error, read_bytes,
};

use crate::{
    Checkpoint, ImportError,
    marian_file::{Lying, MarianFile},
};

/// Settings that must have these values if the file has them; several values mean the same.
const IMPLEMENTED: [(&str, &[&str]); 19] = [
    ("type", &["transformer"]),
    ("dec-cell", &["ssru"]),
    ("transformer-decoder-autoreg", &["rnn"]),
    ("transformer-preprocess", &["", "d"]),
    ("transformer-postprocess", &["dan", "an"]),
    ("transformer-postprocess-emb", &["", "d"]),
    ("transformer-postprocess-top", &["", "d"]),
    ("transformer-tied-layers", &["[]"]),
    ("transformer-train-position-embeddings", &["false"]),
    ("transformer-no-projection", &["false"]),
    ("transformer-no-bias", &["false"]),
    ("transformer-rnn-projection", &["false"]),
    ("transformer-pool", &["false"]),
    ("transformer-ffn-depth", &["2"]),
    ("tied-embeddings-all", &["true"]),
    ("output-omit-bias", &["false"]),
    ("lemma-dim-emb", &["0"]),
    ("right-left", &["false"]),
    ("ulr", &["false"]),
];
/// Id of `</s>` in every vocabulary that Marian makes. It also begins an output, which students read as
/// zeros.
const END: u32 = 0;
/// Added to the variance in every norm.
const LAYER_NORM_EPS: f64 = 1e-6;
/// Positions are computed, so this bounds nothing; Marian cuts training sentences there.
const USUAL_POSITIONS: usize = 512;

/// An open student with all its tensors present.
pub(crate) struct BergamotCheckpoint {
    path: PathBuf,
    vocabulary: PathBuf,
    shortlist: Option<PathBuf>,
    file: MarianFile,
    config: ModelConfig,
}

impl BergamotCheckpoint {
    /// The model file of a directory, if it has exactly one of Marian's kind.
    pub(crate) fn model_file(directory: &Path) -> Option<PathBuf> {
        let mut files = files_with(directory, "bin").ok()?;
        files.retain(|path| MarianFile::is_one(path) && !is_shortlist(path));
        (files.len() == 1).then(|| files.swap_remove(0))
    }

    pub(crate) fn open(path: PathBuf) -> Result<Self, ImportError> {
        let file = MarianFile::open(&path)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut vocabularies = files_with(directory, "spm")?;
        let unsupported =
            |reason: String| ImportError::UnsupportedSource { path: directory.to_owned(), reason };
        if vocabularies.len() != 1 {
            let found = vocabularies.len();
            let reason =
                format!("it has {found} .spm files; students with one joint vocabulary are supported");
            return Err(unsupported(reason));
        }
        let mut shortlists = files_with(directory, "bin")?;
        shortlists.retain(|path| is_shortlist(path));
        if shortlists.len() > 1 {
            return Err(unsupported(format!("it has {} shortlists; keep one lex.*.bin", shortlists.len())));
        }
        let shortlist = shortlists.pop();
        let settings =
            file.settings().ok_or_else(|| unsupported("its model has no special:model.yml".to_owned()))?;
        let config = config(&settings, &file)
            .map_err(|reason| BundleError::UnsupportedConfig { path: path.clone(), reason })?;
        let checkpoint = Self { vocabulary: vocabularies.swap_remove(0), shortlist, path, file, config };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    fn check_tensors(&self) -> Result<(), BundleError> {
        let mut expected = BTreeMap::new();
        for (name, _) in self.config.tensor_shapes() {
            expected.insert(marian_name(&name), name);
        }
        let is_unread = |name: &str| name.ends_with("_QuantMultA") || name.starts_with("special:");
        match self.file.names().find(|name| !is_unread(name) && !expected.contains_key(*name)) {
            None => Ok(()),
            Some(name) => {
                Err(self.tensor_error(name, "is not part of this family as Baton runs it".to_owned()))
            }
        }
    }

    fn tensor_error(&self, tensor: &str, problem: String) -> BundleError {
        BundleError::Tensor { path: self.path.clone(), tensor: tensor.to_owned(), problem }
    }
}

impl Checkpoint for BergamotCheckpoint {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let shapes = self.config.tensor_shapes();
        let shape = shapes.iter().find(|(known, _)| known == name).map(|(_, shape)| shape.as_slice());
        let (stored, lying) = match *shape.expect("only tensors of the family are asked for") {
            [width] => ([1, width], Lying::ByRows),
            [rows, columns] if rows == 1 || name == self.config.embedding_name() => {
                ([rows, columns], Lying::ByRows)
            }
            [outputs, inputs] => ([inputs, outputs], Lying::Product),
            _ => unreachable!("a tensor of this family has one or two dimensions"),
        };
        let marian_name = marian_name(name);
        let numbers = self.file.numbers(&marian_name, &stored, lying);
        Ok(numbers.map_err(|problem| self.tensor_error(&marian_name, problem))?)
    }

    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
        let mut files = vec![("vocab.spm", read_bytes(&self.vocabulary)?)];
        if let Some(shortlist) = &self.shortlist {
            files.push(("lex.bin", read_bytes(shortlist)?));
        }
        Ok(files)
    }
}

/// Marian's name of a tensor.
fn marian_name(name: &str) -> String {
    match name {
        "model.shared.weight" => return "Wemb".to_owned(),
        "final_logits_bias" => return "decoder_ff_logit_out_b".to_owned(),
        _ => {}
    }
    let mut parts = name.trim_start_matches("model.").splitn(4, '.');
    let mut part = || parts.next().unwrap_or_default();
    let (stack, _, layer, rest) = (part(), part(), part(), part());
    let layer = layer.parse::<usize>().map_or(0, |layer| layer + 1);
    let own = match rest {
        "rnn.forget.weight" => "rnn_Wf",
        "rnn.forget.bias" => "rnn_bf",
        "rnn.input.weight" => "rnn_W",
        "rnn_layer_norm.weight" => "rnn_ffn_ln_scale",
        "rnn_layer_norm.bias" => "rnn_ffn_ln_bias",
        "fc1.weight" => "ffn_W1",
        "fc1.bias" => "ffn_b1",
        "fc2.weight" => "ffn_W2",
        "fc2.bias" => "ffn_b2",
        "final_layer_norm.weight" => "ffn_ffn_ln_scale",
        "final_layer_norm.bias" => "ffn_ffn_ln_bias",
        attention => {
            let attention = attention.replace("self_attn", "self").replace("encoder_attn", "context");
            let own = match attention.split_once('.').unwrap_or((&attention, "")) {
                (part, "q_proj.weight") => format!("{part}_Wq"),
                (part, "k_proj.weight") => format!("{part}_Wk"),
                (part, "v_proj.weight") => format!("{part}_Wv"),
                (part, "out_proj.weight") => format!("{part}_Wo"),
                (part, "q_proj.bias") => format!("{part}_bq"),
                (part, "k_proj.bias") => format!("{part}_bk"),
                (part, "v_proj.bias") => format!("{part}_bv"),
                (part, "out_proj.bias") => format!("{part}_bo"),
                (part, "weight") => format!("{}_Wo_ln_scale", part.trim_end_matches("_layer_norm")),
                (part, _) => format!("{}_Wo_ln_bias", part.trim_end_matches("_layer_norm")),
            };
            return format!("{stack}_l{layer}_{own}");
        }
    };
    format!("{stack}_l{layer}_{own}")
}

fn config(settings: &str, file: &MarianFile) -> Result<ModelConfig, UnsupportedSetting> {
    // Of the YAML only `name: value` at the outermost level is of use.
    let settings: BTreeMap<&str, &str> = settings
        .lines()
        .filter(|line| !line.starts_with([' ', '-', '#']))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim().trim_matches(['"', '\''])))
        .collect();
    for (name, accepted) in IMPLEMENTED {
        if let Some(value) = settings.get(name).filter(|value| !accepted.contains(value)) {
            return Err(UnsupportedSetting::new(name, value, supported(accepted)));
        }
    }
    let size = |name: &str| {
        let value = settings.get(name).copied().unwrap_or("missing");
        value.parse::<usize>().map_err(|_| UnsupportedSetting::new(name, &value, "a whole number"))
    };
    let activation_function = match settings.get("transformer-ffn-activation").copied().unwrap_or("swish") {
        "relu" => BartActivation::Relu,
        "swish" => BartActivation::Swish,
        other => return Err(UnsupportedSetting::new("transformer-ffn-activation", &other, "relu or swish")),
    };
    let (hidden_size, heads) = (size("dim-emb")?, size("transformer-heads")?);
    ModelConfig {
        hidden_size,
        intermediate_size: size("transformer-dim-ffn")?,
        num_hidden_layers: size("enc-depth")?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: hidden_size / heads.max(1),
        vocab_size: file.shape("Wemb").map_or(0, |shape| shape[0]),
        max_position_embeddings: USUAL_POSITIONS,
        tie_word_embeddings: true,
        bos_token_id: Some(END),
        eos_token_ids: vec![END],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Bart(BartConfig {
            kind: BartKind::Bergamot,
            num_decoder_layers: size("dec-depth")?,
            activation_function,
            scale_embedding: true,
            layer_norm_eps: LAYER_NORM_EPS,
        }),
    }
    .checked()
}

/// The accepted values, for the error about a refused setting.
fn supported(accepted: &[&'static str]) -> &'static str {
    accepted.iter().copied().find(|value| !value.is_empty()).unwrap_or("nothing")
}

fn is_shortlist(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lex."))
}

/// Files of a directory by their extension, sorted.
fn files_with(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, BundleError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error("read", directory))? {
        let path = entry.map_err(io_error("read", directory))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
