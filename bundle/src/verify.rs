//! Full verification of a bundle: every hash, every tensor, both tokenizers, every template.

use std::path::Path;

use baton_job::Mode;
use safetensors::Dtype;

use crate::manifest::MANIFEST_FILE;
use crate::safetensors_file::SafetensorsFile;
use crate::{
    Bundle, BundleError, LanguageChoice, Limits, ModelConfig, PromptTokenizer, SmallModel, StoredWeights,
    TextTokenizer,
};

/// Verifies all that can be verified without running the models. Reads every byte of the bundle once.
///
/// # Errors
/// The first missing, corrupt or unsuitable thing, with what to do about it.
pub fn verify(directory: &Path) -> Result<Bundle, BundleError> {
    let bundle = Bundle::open(directory)?;
    for name in bundle.manifest().file_names() {
        bundle.check_sha256(name)?;
    }
    let manifest = bundle.manifest();
    if let Ok((llm, config)) = bundle.llm() {
        check_checkpoint(&bundle.path("llm/model.safetensors"), config)?;
        let llm_tokenizer = check_vocabulary(&bundle.path("llm/tokenizer.json"), config)?;
        if manifest.modes.contains(&Mode::Verified) {
            check_drafts(&bundle, &llm_tokenizer)?;
        }
        if llm.writer.is_some() {
            check_writer(&bundle, &llm_tokenizer)?;
        }
    }
    if manifest.slm.is_some() {
        check_small_model(&bundle)?;
    }
    let Limits { max_prompt_tokens, .. } = manifest.limits;
    for (name, template) in &manifest.templates {
        check_room(template, &bundle.prompt_tokenizer(Some(name))?, max_prompt_tokens)?;
    }
    for (name, template) in manifest.slm.iter().flat_map(|slm| &slm.templates) {
        let tokenizer = bundle.slm_prompt_tokenizer(Some(name), &LanguageChoice::default())?;
        check_room(template, &tokenizer, manifest.limits.slm_prompt_tokens())?;
    }
    Ok(bundle)
}

/// Checks that a template leaves room for a text.
fn check_room(
    template: &str,
    tokenizer: &PromptTokenizer,
    max_prompt_tokens: usize,
) -> Result<(), BundleError> {
    if tokenizer.encode("")?.len() < max_prompt_tokens {
        return Ok(());
    }
    let problem = "leaves no room for a text under the prompt tokens that `limits` allows";
    Err(BundleError::Template { template: template.to_owned(), problem })
}

fn check_small_model(bundle: &Bundle) -> Result<(), BundleError> {
    let (small_model, config) = bundle.small_model()?;
    let reads_llm = bundle.manifest().modes.contains(&Mode::Hybrid);
    check_checkpoint(&bundle.path("slm/model.safetensors"), config)?;
    if let Some(projector) = small_model.projector() {
        let shapes = projector.tensor_shapes(reads_llm);
        check_tensors(&bundle.path("projector/model.safetensors"), &shapes, None)?;
    }
    let tokenizer_files = small_model.slm.tokenizer;
    check_vocabulary(&bundle.path(tokenizer_files.prompt_file()), config)?;
    let tokenizer = check_vocabulary(&bundle.path(tokenizer_files.output_file()), config)?;
    bundle.shortlist()?;
    check_end_tokens(bundle, (small_model, config), &tokenizer)
}

/// Checks that the LLM's tokenizer has the tokens that its writer names.
pub(crate) fn check_writer(bundle: &Bundle, llm_tokenizer: &TextTokenizer) -> Result<(), BundleError> {
    bundle.prompt_end_ids()?;
    bundle.llm_writer()?.eos_id(llm_tokenizer)?;
    Ok(())
}

/// Checks that the SLM's tokens mean the same to the LLM.
pub(crate) fn check_drafts(bundle: &Bundle, llm_tokenizer: &TextTokenizer) -> Result<(), BundleError> {
    let (slm_config, path) =
        (bundle.small_model()?.1, bundle.path(bundle.manifest().slm_tokenizer().output_file()));
    let slm_tokenizer = TextTokenizer::open(&path)?;
    let problem = |problem: String| BundleError::WrongTokenizer {
        path: path.clone(),
        problem: format!(
            "{problem}: in mode `verified` the LLM checks the SLM's tokens, so both must have the same"
        ),
    };
    if !slm_tokenizer.has_same_ids_as(llm_tokenizer) {
        return Err(problem("has other tokens than llm/tokenizer.json".to_owned()));
    }
    let (slm_rows, llm_rows) = (slm_config.vocab_size, bundle.llm()?.1.vocab_size);
    if slm_rows != llm_rows {
        return Err(problem(format!("belongs to {slm_rows} embeddings, llm/tokenizer.json to {llm_rows}")));
    }
    Ok(())
}

fn check_checkpoint(path: &Path, config: &ModelConfig) -> Result<(), BundleError> {
    check_tensors(path, &config.tensor_shapes(), Some(config.dtype.into()))
}

/// Checks presence, shape and dtype of tensors; without a `dtype`, any float type that Baton reads will do.
fn check_tensors(
    path: &Path,
    expected: &[(String, Vec<usize>)],
    dtype: Option<Dtype>,
) -> Result<(), BundleError> {
    StoredWeights::open(path)?;
    let file = SafetensorsFile::open(path)?;
    for (name, shape) in expected {
        let problem = |problem| BundleError::Tensor { path: path.to_owned(), tensor: name.clone(), problem };
        let info = file.info(name).ok_or_else(|| problem("is missing".to_owned()))?;
        if info.shape != *shape {
            let (found, expected) = (&info.shape, shape);
            return Err(problem(format!("has shape {found:?}, but the bundle says {expected:?}")));
        }
        let accepted = match dtype {
            Some(dtype) => info.dtype == dtype,
            None => matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16),
        };
        if !accepted && !file.is_int8(name) {
            let expected = dtype.map_or("a float type".to_owned(), |dtype| dtype.to_string());
            return Err(problem(format!("is {}, but should be {expected}", info.dtype)));
        }
    }
    Ok(())
}

/// Loads a tokenizer and checks that the embedding matrix has a row for each of its ids.
fn check_vocabulary(path: &Path, config: &ModelConfig) -> Result<TextTokenizer, BundleError> {
    let tokenizer = TextTokenizer::open(path)?;
    let (num_ids, num_rows) = (tokenizer.num_ids(), config.vocab_size);
    if num_ids <= num_rows {
        return Ok(tokenizer);
    }
    Err(BundleError::WrongTokenizer {
        path: path.to_owned(),
        problem: format!("has {num_ids} ids, but the embedding matrix has {num_rows} rows"),
    })
}

/// Checks that tokenizer, `config.json` and manifest mean the same begin and end tokens.
fn check_end_tokens(
    bundle: &Bundle,
    (SmallModel { slm, .. }, config): (SmallModel<'_>, &ModelConfig),
    tokenizer: &TextTokenizer,
) -> Result<(), BundleError> {
    let bos_ids: Vec<u32> = config.bos_token_id.into_iter().collect();
    for (role, token, ids) in
        [("bos_token", &slm.bos_token, &bos_ids), ("eos_token", &slm.eos_token, &config.eos_token_ids)]
    {
        let field = format!("slm.{role}");
        let file = slm.tokenizer.output_file();
        let id = token_id(tokenizer, &bundle.path(file), (&field, token))?;
        if !ids.contains(&id) {
            return Err(BundleError::Manifest {
                path: bundle.path(MANIFEST_FILE),
                problem: format!(
                    "`slm.{role}` is `{token}`, id {id} of {file}, \
                     but slm/config.json has `{role}_id` {ids:?}"
                ),
            });
        }
    }
    Ok(())
}

/// Id of a token that a field of the manifest names.
fn token_id(
    tokenizer: &TextTokenizer,
    path: &Path,
    (field, token): (&str, &str),
) -> Result<u32, BundleError> {
    tokenizer.token_id(token).ok_or_else(|| BundleError::WrongTokenizer {
        path: path.to_owned(),
        problem: format!("has no token `{token}`, the bundle's `{field}`"),
    })
}
