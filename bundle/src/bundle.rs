//! A bundle on disk: opened cheaply by every process, verified fully on request, sealed by the trainer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::file::{read_bytes, sha256, sha256_of_file, write_atomically};
use crate::manifest::{BUNDLE_FILES, DEFAULT_TEMPLATE, FileDigest, MANIFEST_FILE};
use crate::{BundleError, BundleManifest, LlamaConfig, PromptTokenizer, TextTokenizer};

/// An open bundle: its manifest and configs are read and agree, its files are there with the right sizes.
#[derive(Debug, Clone)]
pub struct Bundle {
    directory: PathBuf,
    manifest: BundleManifest,
    digest: String,
    llm_config: LlamaConfig,
    slm_config: LlamaConfig,
}

impl Bundle {
    /// Opens the bundle in `directory`. Reads `bundle.json` and the two `config.json`, hashes nothing.
    ///
    /// # Errors
    /// A file is missing or of another size than the manifest says, does not parse, or contradicts another.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        let (manifest, digest) = read_manifest(directory)?;
        let bundle = Self::of_checked_parts(directory, manifest, digest)?;
        for name in BUNDLE_FILES {
            bundle.check_size(name)?;
        }
        Ok(bundle)
    }

    fn of_checked_parts(
        directory: &Path,
        manifest: BundleManifest,
        digest: String,
    ) -> Result<Self, BundleError> {
        let manifest_problem =
            |problem| BundleError::Manifest { path: directory.join(MANIFEST_FILE), problem };
        if let Some(problem) = manifest.problem() {
            return Err(manifest_problem(problem));
        }
        for name in BUNDLE_FILES {
            require(directory, &manifest, name)?;
        }
        let llm_config = LlamaConfig::read(&directory.join("llm/config.json"))?;
        let slm_config = LlamaConfig::read(&directory.join("slm/config.json"))?;
        let (llm, slm) = (&manifest.llm, &manifest.slm);
        let dimensions = [
            ("llm.d_model", llm.d_model, "llm/config.json", "hidden_size", llm_config.hidden_size),
            ("llm.vocab_size", llm.vocab_size, "llm/config.json", "vocab_size", llm_config.vocab_size),
            ("slm.d_model", slm.d_model, "slm/config.json", "hidden_size", slm_config.hidden_size),
            ("slm.vocab_size", slm.vocab_size, "slm/config.json", "vocab_size", slm_config.vocab_size),
        ];
        for (field, said, file, config_field, found) in dimensions {
            if said != found {
                let problem = format!(
                    "`{field}` is {said}, but {file} has `{config_field}` {found}; \
                     is {file} from another checkpoint?"
                );
                return Err(manifest_problem(problem));
            }
        }
        if llm.layers > llm_config.num_hidden_layers {
            let (asked, there) = (llm.layers, llm_config.num_hidden_layers);
            let problem = format!("`llm.layers` is {asked}, but llm/config.json has only {there} layers");
            return Err(manifest_problem(problem));
        }
        Ok(Self { directory: directory.to_owned(), manifest, digest, llm_config, slm_config })
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
    pub(crate) fn check_sha256(&self, name: &str) -> Result<(), BundleError> {
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

    /// Shape of the LLM's checkpoint, of which the bundle runs [`crate::LlmPart::layers`] blocks.
    pub fn llm_config(&self) -> &LlamaConfig {
        &self.llm_config
    }

    /// Shape of the SLM.
    pub fn slm_config(&self) -> &LlamaConfig {
        &self.slm_config
    }

    /// The LLM's tokenizer with a template of the manifest; `None` takes the default.
    ///
    /// # Errors
    /// The manifest has no template of this name, or the tokenizer does not load.
    pub fn prompt_tokenizer(&self, template: Option<&str>) -> Result<PromptTokenizer, BundleError> {
        let name = template.unwrap_or(DEFAULT_TEMPLATE);
        let Some(template) = self.manifest.templates.get(name) else {
            let names: Vec<&str> = self.manifest.templates.keys().map(String::as_str).collect();
            let problem = format!("there is no template `{name}`; there are: {}", names.join(", "));
            return Err(BundleError::Manifest { path: self.path(MANIFEST_FILE), problem });
        };
        PromptTokenizer::open(&self.path("llm/tokenizer.json"), template)
    }

    /// The SLM's tokenizer.
    ///
    /// # Errors
    /// It does not load.
    pub fn text_tokenizer(&self) -> Result<TextTokenizer, BundleError> {
        TextTokenizer::open(&self.path("slm/tokenizer.json"))
    }
}

/// Reads the manifest of the bundle in `directory` and its digest, and no other file: enough for who does not load models.
///
/// # Errors
/// `bundle.json` is missing, does not parse, or contradicts itself.
pub fn read_manifest(directory: &Path) -> Result<(BundleManifest, String), BundleError> {
    let path = directory.join(MANIFEST_FILE);
    if !path.exists() {
        let remedy =
            "name a directory that `baton train` wrote or that has bundle.json, llm/, projector/ and slm/";
        return Err(BundleError::MissingFile { path, remedy: remedy.to_owned() });
    }
    let bytes = read_bytes(&path)?;
    let manifest: BundleManifest =
        serde_json::from_slice(&bytes).map_err(|source| BundleError::Json { path: path.clone(), source })?;
    match manifest.problem() {
        Some(problem) => Err(BundleError::Manifest { path, problem }),
        None => Ok((manifest, sha256(&bytes))),
    }
}

/// Seals a bundle whose parts are written: hashes its files and writes `bundle.json`, in one step, last.
///
/// `manifest.files` is computed; what it held is ignored.
///
/// # Errors
/// A file is missing or unreadable, the manifest contradicts itself or a config, or the write fails. Nothing
/// is written then.
pub fn write_manifest(directory: &Path, manifest: BundleManifest) -> Result<Bundle, BundleError> {
    let mut bundle = Bundle::of_checked_parts(directory, manifest, String::new())?;
    let digests = BUNDLE_FILES.into_iter().map(|name| {
        let path = directory.join(name);
        let sha256 = sha256_of_file(&path)?;
        let bytes =
            fs::metadata(&path).map_err(|source| BundleError::Io { action: "read", path, source })?.len();
        Ok((name.to_owned(), FileDigest { bytes, sha256 }))
    });
    bundle.manifest.files = digests.collect::<Result<BTreeMap<_, _>, BundleError>>()?;
    let json = bundle.manifest.to_json();
    bundle.digest = sha256(json.as_bytes());
    write_atomically(&directory.join(MANIFEST_FILE), json.as_bytes())?;
    Ok(bundle)
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
        _ => format!("copy {} again from where the bundle came from{origin}", target.display()),
    }
}
