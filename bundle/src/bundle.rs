//! A bundle on disk: opened cheaply by every process, verified fully on request, sealed by the trainer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::file::{read_bytes, sha256_of_file, write_atomically};
use baton_job::{Mode, sha256_hex};

use crate::manifest::{
    DEFAULT_TEMPLATE, FileDigest, LlmPart, LlmWriter, MANIFEST_FILE, PromptSource, SLM_CHANGES,
    SLM_SHORTLIST, SmallModel,
};
use crate::part_checks::part_problem;
use crate::{
    BundleError, BundleManifest, LanguageChoice, LexicalShortlist, LlmReader, LoraAdapter, ModelConfig,
    PromptReader, PromptTokenizer, QualityModel, TextTokenizer,
};

/// An open bundle: manifest and configs are read and agree, and all files exist with the right sizes.
#[derive(Debug, Clone)]
pub struct Bundle {
    directory: PathBuf,
    manifest: BundleManifest,
    digest: String,
    llm_config: Option<ModelConfig>,
    slm_config: Option<ModelConfig>,
}

impl Bundle {
    /// Opens the bundle in `directory`. Reads `bundle.json` and each `config.json`, hashes nothing.
    ///
    /// # Errors
    /// A file is missing or of another size than the manifest says, does not parse, or contradicts another.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        let (manifest, digest) = read_manifest(directory)?;
        let bundle = Self::of_checked_parts(directory, manifest, digest)?;
        for name in bundle.manifest.file_names() {
            bundle.check_size(name)?;
        }
        Ok(bundle)
    }

    pub(crate) fn of_checked_parts(
        directory: &Path,
        manifest: BundleManifest,
        digest: String,
    ) -> Result<Self, BundleError> {
        let manifest_problem =
            |problem| BundleError::Manifest { path: directory.join(MANIFEST_FILE), problem };
        if let Some(problem) = manifest.problem() {
            return Err(manifest_problem(problem));
        }
        for name in manifest.file_names() {
            require(directory, &manifest, name)?;
        }
        if manifest.slm.is_some() && !manifest.files.contains_key(SLM_CHANGES) && has_changes(directory) {
            let problem = format!(
                "`files` has no `{SLM_CHANGES}`, but it lies beside the weights and would change them; \
                 remove it, or copy bundle.json again from where it came from"
            );
            return Err(manifest_problem(problem));
        }
        let config_of = |part: &str| ModelConfig::read_checkpoint(&directory.join(part));
        let llm_config = manifest.llm.as_ref().map(|_| config_of("llm")).transpose()?;
        let slm_config = manifest.slm.as_ref().map(|_| config_of("slm")).transpose()?;
        if let Some(problem) = part_problem(&manifest, llm_config.as_ref(), slm_config.as_ref()) {
            return Err(manifest_problem(problem));
        }
        let bundle = Self { directory: directory.to_owned(), manifest, digest, llm_config, slm_config };
        bundle.adapter()?;
        Ok(bundle)
    }

    fn check_size(&self, name: &str) -> Result<(), BundleError> {
        let expected = self.file_digest(name)?.bytes;
        let path = self.path(name);
        let found = fs::metadata(&path)
            .map_err(|source| BundleError::Io { action: "read", path: path.clone(), source })?
            .len();
        if found == expected {
            return Ok(());
        }
        let problem = format!("has {found} bytes, but the bundle was made with one of {expected}");
        Err(BundleError::CorruptFile { path, problem, remedy: remedy(&self.directory, &self.manifest, name) })
    }

    fn file_digest(&self, name: &str) -> Result<&FileDigest, BundleError> {
        self.manifest.files.get(name).ok_or_else(|| BundleError::Manifest {
            path: self.path(MANIFEST_FILE),
            problem: format!("`files` has no `{name}`"),
        })
    }

    /// Hashes one file of the bundle and compares.
    ///
    /// # Errors
    /// The file cannot be read, does not belong to the bundle, or has changed.
    pub fn check_sha256(&self, name: &str) -> Result<(), BundleError> {
        let expected = &self.file_digest(name)?.sha256;
        let path = self.path(name);
        let found = sha256_of_file(&path)?;
        if found == *expected {
            return Ok(());
        }
        let problem = format!("has sha256 {found}, but the bundle was made with {expected}");
        Err(BundleError::CorruptFile { path, problem, remedy: remedy(&self.directory, &self.manifest, name) })
    }

    /// The manifest.
    pub fn manifest(&self) -> &BundleManifest {
        &self.manifest
    }

    /// Identity of the bundle: sha256 of `bundle.json`, which has the hash of every other file.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The bundle's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Path of a file of the bundle, such as `slm/model.safetensors`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The LLM as the bundle uses it, and the shape of its checkpoint. [`LlmPart::layers`] of its blocks
    /// read.
    ///
    /// # Errors
    /// The bundle has none: its small model works alone.
    pub fn llm(&self) -> Result<(&LlmPart, &ModelConfig), BundleError> {
        self.manifest.llm.as_ref().zip(self.llm_config.as_ref()).ok_or_else(|| BundleError::Manifest {
            path: self.path(MANIFEST_FILE),
            problem: "there is no LLM: the bundle serves only mode slm".to_owned(),
        })
    }

    /// The small model with the source of its prompts, and the shape of its checkpoint.
    ///
    /// # Errors
    /// The bundle has none: its LLM works alone.
    pub fn small_model(&self) -> Result<(SmallModel<'_>, &ModelConfig), BundleError> {
        self.manifest.small_model().zip(self.slm_config.as_ref()).ok_or_else(|| BundleError::Manifest {
            path: self.path(MANIFEST_FILE),
            problem: "there is no small model: the bundle serves only mode llm".to_owned(),
        })
    }

    /// How the LLM writes.
    ///
    /// # Errors
    /// The bundle does not say: it does not serve mode `llm`.
    pub fn llm_writer(&self) -> Result<&LlmWriter, BundleError> {
        let writer = self.manifest.llm.as_ref().and_then(|llm| llm.writer.as_ref());
        writer.ok_or_else(|| BundleError::Manifest {
            path: self.path(MANIFEST_FILE),
            problem: "there is no `llm.writer`: the bundle does not serve mode llm or verified".to_owned(),
        })
    }

    /// The LLM's fine-tuning, if it has one.
    ///
    /// # Errors
    /// It cannot be read, or does not fit the LLM.
    pub fn adapter(&self) -> Result<Option<LoraAdapter>, BundleError> {
        let Ok((LlmPart { adapter: Some(_), .. }, config)) = self.llm() else { return Ok(None) };
        Ok(Some(LoraAdapter::open(&self.path("adapter"), config)?))
    }

    /// The LLM's tokenizer with one of its templates; `None` takes the default.
    ///
    /// # Errors
    /// The manifest has no template of this name, or the tokenizer does not load.
    pub fn prompt_tokenizer(&self, template: Option<&str>) -> Result<PromptTokenizer, BundleError> {
        let template = self.template(&self.manifest.templates, template)?;
        PromptTokenizer::open(&self.path("llm/tokenizer.json"), template)
    }

    /// Makes prompts of texts in a mode, in the bundle's own languages; `template` as for
    /// [`prompt_tokenizer`](Self::prompt_tokenizer).
    ///
    /// # Errors
    /// The manifest has no template of this name, or a tokenizer does not load.
    pub fn prompt_reader(&self, mode: Mode, template: Option<&str>) -> Result<PromptReader, BundleError> {
        let small_model = self.manifest.small_model().filter(|_| mode.uses_slm());
        let reads_own = |model: SmallModel<'_>| matches!(model.prompts, PromptSource::OwnTokens { .. });
        if !small_model.is_some_and(reads_own) {
            return Ok(PromptReader::LlmTokens(self.prompt_tokenizer(template)?));
        }
        let llm = |(_, config): (&LlmPart, &ModelConfig)| {
            let tokenizer = self.prompt_tokenizer(template)?;
            Ok::<_, BundleError>(LlmReader { tokenizer, attention: config.prompt_attention() })
        };
        let llm = (mode != Mode::Slm).then(|| llm(self.llm()?)).transpose()?;
        let slm = self.slm_prompt_tokenizer(template, &LanguageChoice::default())?;
        Ok(PromptReader::OwnTokens { slm, llm })
    }

    /// The same in other languages.
    ///
    /// # Errors
    /// As for [`prompt_reader`](Self::prompt_reader), or the small model has no such language.
    pub fn prompt_reader_for(
        &self,
        mode: Mode,
        template: Option<&str>,
        languages: &LanguageChoice,
    ) -> Result<PromptReader, BundleError> {
        let reader = self.prompt_reader(mode, template)?;
        match reader {
            PromptReader::OwnTokens { .. } => {
                reader.with_slm_template(&self.slm_template(template, languages)?)
            }
            PromptReader::LlmTokens(_) => Ok(reader),
        }
    }

    /// The small model's tokenizer with one of its own templates; `None` takes the default.
    ///
    /// # Errors
    /// The manifest has no such template, the small model has no such language, or the tokenizer does not
    /// load.
    pub fn slm_prompt_tokenizer(
        &self,
        template: Option<&str>,
        languages: &LanguageChoice,
    ) -> Result<PromptTokenizer, BundleError> {
        let slm = self.small_model()?.0.slm;
        let template = self.slm_template(template, languages)?;
        PromptTokenizer::open(&self.path(slm.tokenizer.prompt_file()), &template)
    }

    /// One of the small model's own templates, with the tokens of languages in it; `None` takes the default.
    ///
    /// # Errors
    /// The manifest has no such template, or the small model no such language.
    pub fn slm_template(
        &self,
        template: Option<&str>,
        languages: &LanguageChoice,
    ) -> Result<String, BundleError> {
        let slm = self.small_model()?.0.slm;
        slm.template_for(self.template(&slm.templates, template)?, languages)
            .map_err(|problem| BundleError::Manifest { path: self.path(MANIFEST_FILE), problem })
    }

    /// The token that every output of the small model begins with because of its language.
    ///
    /// # Errors
    /// The small model has no such language, or its tokenizer, `tokenizer`, no such token.
    pub fn first_token(
        &self,
        languages: &LanguageChoice,
        tokenizer: &TextTokenizer,
    ) -> Result<Option<u32>, BundleError> {
        let problem = |problem| BundleError::Manifest { path: self.path(MANIFEST_FILE), problem };
        let Some(token) = self.small_model()?.0.slm.first_token(languages).map_err(problem)? else {
            return Ok(None);
        };
        let unknown = || problem(format!("the tokenizer has no token `{token}` for a language"));
        tokenizer.token_id(token).map(Some).ok_or_else(unknown)
    }

    fn template<'t>(
        &self,
        templates: &'t BTreeMap<String, String>,
        name: Option<&str>,
    ) -> Result<&'t str, BundleError> {
        let name = name.unwrap_or(DEFAULT_TEMPLATE);
        templates.get(name).map(String::as_str).ok_or_else(|| {
            let names: Vec<&str> = templates.keys().map(String::as_str).collect();
            let problem = format!("there is no template `{name}`; there are: {}", names.join(", "));
            BundleError::Manifest { path: self.path(MANIFEST_FILE), problem }
        })
    }

    /// The lexical shortlist of the small model, if it has one.
    ///
    /// # Errors
    /// It cannot be read, or does not fit the small model.
    pub fn shortlist(&self) -> Result<Option<LexicalShortlist>, BundleError> {
        if !self.manifest.has_shortlist() {
            return Ok(None);
        }
        let vocab_size = self.small_model()?.1.vocab_size;
        LexicalShortlist::open(&self.path(SLM_SHORTLIST), vocab_size).map(Some)
    }

    /// The tokenizer of the model that writes in a mode.
    ///
    /// # Errors
    /// It does not load.
    pub fn text_tokenizer(&self, mode: Mode) -> Result<TextTokenizer, BundleError> {
        TextTokenizer::open(&self.path(self.manifest.output_tokenizer(mode)))
    }

    /// The tokens that the LLM reads after a prompt, before it writes; never empty.
    ///
    /// # Errors
    /// The bundle does not serve mode `llm`, the tokenizer does not load, or it makes no token of the text.
    pub fn prompt_end_ids(&self) -> Result<Vec<u32>, BundleError> {
        self.llm_writer()?.prompt_end_ids(&self.path("llm"), self.llm()?.1)
    }
}

/// Reads the manifest of the bundle in `directory` and its digest, and no other file: enough for who does not
/// load models.
///
/// # Errors
/// `bundle.json` is missing, does not parse, or contradicts itself.
pub fn read_manifest(directory: &Path) -> Result<(BundleManifest, String), BundleError> {
    let path = directory.join(MANIFEST_FILE);
    if !path.exists() {
        let remedy = "name a directory that `baton train` or `baton bundle import-slm` wrote, or one with \
            bundle.json and what it names";
        return Err(BundleError::MissingFile { path, remedy: remedy.to_owned() });
    }
    let bytes = read_bytes(&path)?;
    let manifest: BundleManifest =
        serde_json::from_slice(&bytes).map_err(|source| BundleError::Json { path: path.clone(), source })?;
    match manifest.problem() {
        Some(problem) => Err(BundleError::Manifest { path, problem }),
        None => Ok((manifest, sha256_hex(&bytes))),
    }
}

/// Seals a bundle whose parts are written: hashes its files and writes `bundle.json`, in one step, last.
///
/// `manifest.files` is computed; its old content is ignored. `slm/changes.safetensors` and `slm/lex.bin` are
/// part of the bundle if they exist.
///
/// # Errors
/// A file is missing or unreadable, the manifest contradicts itself or a config, or the write fails. Nothing
/// is written then.
pub fn write_manifest(directory: &Path, mut manifest: BundleManifest) -> Result<Bundle, BundleError> {
    manifest.files.clear();
    for name in [SLM_CHANGES, SLM_SHORTLIST].into_iter().filter(|name| directory.join(name).exists()) {
        manifest.files.insert(name.to_owned(), FileDigest { bytes: 0, sha256: String::new() });
    }
    let mut bundle = Bundle::of_checked_parts(directory, manifest, String::new())?;
    let digests = bundle.manifest.file_names().map(|name| {
        let path = directory.join(name);
        let sha256 = sha256_of_file(&path)?;
        let bytes =
            fs::metadata(&path).map_err(|source| BundleError::Io { action: "read", path, source })?.len();
        Ok((name.to_owned(), FileDigest { bytes, sha256 }))
    });
    bundle.manifest.files = digests.collect::<Result<BTreeMap<_, _>, BundleError>>()?;
    let json = bundle.manifest.to_json();
    bundle.digest = sha256_hex(json.as_bytes());
    write_atomically(&directory.join(MANIFEST_FILE), json.as_bytes())?;
    Ok(bundle)
}

/// Notes in `bundle.json` what tells the quality of a mode's outputs; the bundle's digest changes.
///
/// # Errors
/// The manifest cannot be read or written, or the bundle does not serve the mode.
pub fn write_quality(directory: &Path, mode: Mode, quality: QualityModel) -> Result<(), BundleError> {
    let (mut manifest, _) = read_manifest(directory)?;
    manifest.quality.insert(mode, quality);
    let path = directory.join(MANIFEST_FILE);
    match manifest.problem() {
        Some(problem) => Err(BundleError::Manifest { path, problem }),
        None => write_atomically(&path, manifest.to_json().as_bytes()),
    }
}

fn has_changes(directory: &Path) -> bool {
    directory.join(SLM_CHANGES).exists()
}

fn require(directory: &Path, manifest: &BundleManifest, name: &str) -> Result<(), BundleError> {
    let path = directory.join(name);
    if path.exists() {
        return Ok(());
    }
    Err(BundleError::MissingFile { path, remedy: remedy(directory, manifest, name) })
}

/// How to get a good copy of a file of this bundle.
fn remedy(directory: &Path, manifest: &BundleManifest, name: &str) -> String {
    let part = name.split('/').next().expect("split gives at least one piece");
    let origin = manifest.origin_of(part).map_or(String::new(), |part| format!(" (origin: {})", part.origin));
    let target = directory.join(part);
    match part {
        "llm" => format!(
            "remove {0} and import it{origin} with `baton bundle import-llm --from SOURCE --out {0}`",
            target.display()
        ),
        "slm" if manifest.files.contains_key(SLM_CHANGES) => format!(
            "its weights are published ones{origin} and what training changed in them: put the published \
             ones there (in a clone of Baton `make llm` does), or copy {} again from where the bundle came \
             from",
            target.display()
        ),
        _ => format!("copy {} again from where the bundle came from{origin}", target.display()),
    }
}
