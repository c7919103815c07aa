//! Import of a public small model as a bundle of its own: `slm/` and a manifest, in the mode `slm`.
//!
//! The model reads its own tokens. Its prompt is the tokenizer's output for a text, special tokens included,
//! or a template that the caller gives. The model's files supply the rest: the token that begins an output,
//! the one that ends it, and how to generate outputs (`generation_config.json`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use baton_bundle::{
    Alignment, BartConfig, BartKind, Bundle, BundleError, BundleManifest, DEFAULT_TEMPLATE,
    DirectoryInProgress, FamilyConfig, Limits, MANIFEST_FORMAT, ModelConfig, PartOrigin, SLM_SHORTLIST,
    SlmLanguages, SlmPart, TEXT_PLACEHOLDER, Task, WeightDtype, io_error, read_bytes, write_atomically,
    write_manifest,
};
use baton_job::{GenerationLayer, Mode, Setting};
use serde_json::{Map, Value};

use crate::conventions::{LanguageConvention, suppress_unknown};
use crate::slm_template::SlmTokenizer;
use crate::{ImportError, open_checkpoint, write_weights};

const GENERATION_CONFIG: &str = "generation_config.json";
/// Tokens that an imported model reads and writes at most, if neither the caller nor its positions say less.
const USUAL_MAX_PROMPT_TOKENS: usize = 512;
const USUAL_MAX_NEW_TOKENS: usize = 256;

/// The model to import as a bundle, and facts that its files do not state.
#[derive(Debug, Clone)]
pub struct SlmImportOptions {
    /// A directory with `config.json`, safetensors and the tokenizer's files, a `.gguf` file, or a directory
    /// with a student of Marian's.
    pub from: PathBuf,
    /// The bundle's directory to create; must not exist, or be empty.
    pub out: PathBuf,
    /// The bundle's name. Default: the source's.
    pub name: Option<String>,
    /// The model's task.
    pub task: Task,
    /// The prompt template, with `{text}`. Default: the text alone. Special tokens that the model's tokenizer
    /// puts around a text are added where the template lacks them. A decoder-only model needs one: its last
    /// token begins the output.
    pub template: Option<String>,
    /// The token that ends an output, where the config names none or several.
    pub eos_token: Option<String>,
    /// Longest prompt, in tokens.
    pub max_prompt_tokens: Option<usize>,
    /// Longest output, in tokens.
    pub max_new_tokens: Option<usize>,
    /// Number type of the written tensors. Default: the source's.
    pub dtype: Option<WeightDtype>,
    /// SPDX expression.
    pub licence: Option<String>,
    /// The model's author, and where it was published.
    pub origin: Option<String>,
}

/// Imports a small model; the bundle appears complete or not at all.
///
/// # Errors
/// As for [`crate::import_llm`]. Also: files and options leave open the token that begins or ends an output,
/// or the template cannot be used.
pub fn import_slm(options: &SlmImportOptions) -> Result<Bundle, ImportError> {
    let mut checkpoint = open_checkpoint(&options.from)?;
    let directory = DirectoryInProgress::create(&options.out)?;
    let slm = directory.path().join("slm");
    fs::create_dir(&slm).map_err(io_error("create", &slm))?;
    for (name, bytes) in checkpoint.side_files()? {
        write_atomically(&slm.join(name), &bytes)?;
    }
    let tokenizer = SlmTokenizer::read(&options.from, &slm)?;
    let mut config = checkpoint.config().clone();
    config.dtype = options.dtype.unwrap_or(config.dtype);
    let generation = GenerationFile::read(&options.from)?;
    config.add_output_rules(&generation.json).map_err(|reason| BundleError::UnsupportedConfig {
        path: options.from.join(GENERATION_CONFIG),
        reason,
    })?;
    suppress_unknown(&mut config, tokenizer.unknown_id());
    let told = languages(options, (&tokenizer, &mut config))?;
    let (around, languages) =
        told.map_or((None, None), |(around, languages)| (Some(around), Some(languages)));
    let template = tokenizer.settle((options.template.as_deref(), around), &mut config)?;
    if let Some(token) = &options.eos_token {
        config.eos_token_ids = vec![tokenizer.id(token)?];
    }
    let mut proposed = generation.proposed()?;
    if reads_sentences(&config.family) && options.task.target_language().is_some() {
        proposed.by_sentence = Setting::To(true);
    }
    if directory.path().join(SLM_SHORTLIST).exists() {
        proposed.shortlist = Setting::To(true);
    }
    let manifest = manifest(options, &config, (&tokenizer, template, languages), (&generation, proposed))?;
    write_weights(checkpoint.as_mut(), &config, &slm)?;
    write_manifest(directory.path(), manifest)?;
    directory.finish()?;
    Ok(Bundle::open(&options.out)?)
}

/// Whether models of this family are trained on single sentences: of a longer text they translate the
/// beginning.
fn reads_sentences(family: &FamilyConfig) -> bool {
    matches!(family, FamilyConfig::Bart(BartConfig { kind: BartKind::Bergamot | BartKind::Marian, .. }))
}

fn manifest(
    options: &SlmImportOptions,
    config: &ModelConfig,
    (tokenizer, template, languages): (&SlmTokenizer, String, Option<SlmLanguages>),
    (generation, proposed): (&GenerationFile, GenerationLayer),
) -> Result<BundleManifest, ImportError> {
    let refused = |reason: String| ImportError::UnsupportedSource { path: options.from.clone(), reason };
    let bos = config
        .bos_token_id
        .ok_or_else(|| refused(format!("its config.json has no `{}`", config.field_name("bos_token_id"))))?;
    let &[eos] = config.eos_token_ids.as_slice() else {
        let ids = &config.eos_token_ids;
        return Err(refused(format!(
            "its config.json has {} tokens that end an output ({ids:?}); name one with --eos-token",
            ids.len()
        )));
    };
    let usual = generation.max_new_tokens(config).unwrap_or(USUAL_MAX_NEW_TOKENS);
    let max_new_tokens = options.max_new_tokens.unwrap_or(usual);
    let usual = match &config.family {
        FamilyConfig::Bart(_) => config.max_position_embeddings,
        _ => USUAL_MAX_PROMPT_TOKENS.min(config.longest_prompt(max_new_tokens).unwrap_or(usize::MAX)),
    };
    let from = options.from.canonicalize().unwrap_or_else(|_| options.from.clone());
    let name = if from.is_dir() { from.file_name() } else { from.file_stem() };
    let name = name.map(|name| name.to_string_lossy().into_owned());
    let origin = options.origin.clone().or_else(|| name.clone()).unwrap_or_default();
    let part = |licence: &String| {
        let (path, licence, origin) = ("slm".to_owned(), licence.clone(), origin.clone());
        PartOrigin { path, licence, origin }
    };
    let is_empty = proposed == GenerationLayer::default();
    Ok(BundleManifest {
        format: MANIFEST_FORMAT,
        name: options.name.clone().or(name).unwrap_or_else(|| "small-model".to_owned()),
        task: options.task.clone(),
        llm: None,
        projector: None,
        slm: Some(SlmPart {
            family: config.family(),
            d_model: config.hidden_size,
            vocab_size: config.vocab_size,
            prompt_attention: config.prompt_attention(),
            bos_token: tokenizer.token(bos)?,
            eos_token: tokenizer.token(eos)?,
            languages,
            tokenizer: tokenizer.kind(),
            templates: BTreeMap::from([(DEFAULT_TEMPLATE.to_owned(), template)]),
        }),
        fusion: None,
        alignment: Alignment::Characters,
        modes: vec![Mode::Slm],
        templates: BTreeMap::new(),
        generation: (!is_empty).then_some((Mode::Slm, proposed)).into_iter().collect(),
        quality: BTreeMap::new(),
        limits: Limits {
            max_prompt_tokens: options.max_prompt_tokens.unwrap_or(usual),
            max_slm_prompt_tokens: None,
            max_new_tokens,
        },
        parts: options.licence.iter().map(part).collect(),
        training: Map::new(),
        files: BTreeMap::new(),
    })
}

/// The model's conventions for languages, if any: the tokens around a text, and the languages.
///
/// A model whose begin token is that of a language gets the one that its task writes.
fn languages(
    options: &SlmImportOptions,
    (tokenizer, config): (&SlmTokenizer, &mut ModelConfig),
) -> Result<Option<([String; 2], SlmLanguages)>, ImportError> {
    let path = options.from.join("tokenizer_config.json");
    let settings = if path.exists() { read_json(&path)? } else { Map::new() };
    let end = tokenizer.end(config)?;
    let Some(convention) = LanguageConvention::of(config.family(), &end, &settings) else { return Ok(None) };
    let tokens = tokenizer.special_tokens();
    let found = convention.languages(tokens.iter(), &options.task).map_err(|problem| {
        tokenizer.refused(format!(
            "{problem}; name languages as it does, with --source-language and --target-language"
        ))
    })?;
    let Some(mut languages) = found else { return Ok(None) };
    if convention.target_begins
        && let Some(target) = languages.target.take()
    {
        config.bos_token_id = Some(tokenizer.id(&languages.tokens[&target])?);
    }
    Ok(Some((convention.around, languages)))
}

fn read_json(path: &Path) -> Result<Map<String, Value>, ImportError> {
    let json = serde_json::from_slice(&read_bytes(path)?);
    Ok(json.map_err(|source| BundleError::Json { path: path.to_owned(), source })?)
}

/// How the model's makers generate outputs: `generation_config.json` beside the weights, which overrules
/// `config.json` of old files.
struct GenerationFile {
    path: PathBuf,
    json: Map<String, Value>,
}

impl GenerationFile {
    fn read(from: &Path) -> Result<Self, ImportError> {
        let mut json = Map::new();
        for name in ["config.json", GENERATION_CONFIG] {
            let path = from.join(name);
            if path.exists() {
                json.extend(read_json(&path)?.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
        json.retain(|name, _| !name.starts_with("quantization"));
        Ok(Self { path: from.join(GENERATION_CONFIG), json })
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.json.get(name)?.as_u64().and_then(|number| usize::try_from(number).ok())
    }

    /// Longest output of an encoder-decoder; theirs counts the begin token.
    fn max_new_tokens(&self, config: &ModelConfig) -> Option<usize> {
        let longest = self.number("max_new_tokens").or_else(|| self.number("max_length")?.checked_sub(1));
        longest.filter(|&longest| config.encoder_decoder().is_some() && longest > 0)
    }

    /// The settings that are worth a default.
    fn proposed(&self) -> Result<GenerationLayer, ImportError> {
        const NAMES: [(&str, &str); 3] = [
            ("num_beams", "beams"),
            ("no_repeat_ngram_size", "no_repeat_ngram"),
            ("repetition_penalty", "repetition_penalty"),
        ];
        let value = |name: &str| self.json.get(name).filter(|value| value.as_f64() != Some(0.0)).cloned();
        let mut ours: Map<String, Value> =
            NAMES.iter().filter_map(|(theirs, ours)| Some(((*ours).to_owned(), value(theirs)?))).collect();
        if let Some(least) = self.number("min_length").filter(|&least| least > 1) {
            ours.insert("min_new_tokens".to_owned(), (least - 1).into());
        }
        if self.number("num_beams").is_some_and(|beams| beams > 1) {
            ours.extend(value("length_penalty").map(|value| ("length_penalty".to_owned(), value)));
            let stopping = match value("early_stopping") {
                Some(Value::Bool(true)) => Some("at_once"),
                Some(Value::String(never)) if never == "never" => Some("never"),
                _ => None,
            };
            ours.extend(stopping.map(|name| ("early_stopping".to_owned(), name.into())));
        }
        serde_json::from_value(Value::Object(ours)).map_err(|error| ImportError::UnsupportedSource {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }
}

/// The template's text around [`TEXT_PLACEHOLDER`].
pub(crate) fn around_text(template: &str) -> Option<(&str, &str)> {
    template.split_once(TEXT_PLACEHOLDER)
}
