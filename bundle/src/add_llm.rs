//! Makes the LLM of a bundle that reads one that writes, too.

use std::fs;
use std::path::{Path, PathBuf};

use baton_job::Mode;

use crate::adapter::adapter_files;
use crate::file::{io_error, read_bytes, write_atomically};
use crate::verify::{check_drafts, check_writer};
use crate::{Bundle, BundleError, DEFAULT_TEMPLATE, LlmAdapter, LlmPart, LlmWriter, write_manifest};

/// How an LLM becomes a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddedLlm {
    /// Unchanged.
    AsItIs(LlmWriter),
    /// As the bundle in this directory has it: with its writer, and its adapter if it has one.
    Of(PathBuf),
}

/// Adds mode `llm`, and `verified` on request, to the bundle in `directory`, and rewrites its `bundle.json`.
/// An adapter is copied, but the small model still reads the LLM without it.
///
/// # Errors
/// A file cannot be read or written; the writer's tokens are not the LLM's; the other bundle has another LLM
/// or template; or `verified` is requested and the small model cannot draft for the LLM. The bundle then
/// stays unchanged.
pub fn add_llm(directory: &Path, added: &AddedLlm, verified: bool) -> Result<Bundle, BundleError> {
    let bundle = Bundle::open(directory)?;
    let other = match added {
        AddedLlm::AsItIs(_) => None,
        AddedLlm::Of(other) => Some(Bundle::open(other)?),
    };
    if let Some(other) = &other {
        fits(&bundle, other)?;
    }
    let mut manifest = bundle.manifest().clone();
    let (mut llm, _) = bundle.llm().map(|(llm, config)| (llm.clone(), config))?;
    llm.writer = Some(match (added, &other) {
        (AddedLlm::AsItIs(writer), _) => writer.clone(),
        (AddedLlm::Of(_), other) => other.as_ref().expect("just opened").llm_writer()?.clone(),
    });
    manifest.llm = Some(llm.clone());
    for mode in [Some(Mode::Llm), verified.then_some(Mode::Verified)].into_iter().flatten() {
        if !manifest.modes.contains(&mode) {
            manifest.modes.push(mode);
        }
    }
    let writing = Bundle::of_checked_parts(directory, manifest.clone(), String::new())?;
    let llm_tokenizer = writing.text_tokenizer(Mode::Llm)?;
    check_writer(&writing, &llm_tokenizer)?;
    if manifest.modes.contains(&Mode::Verified) {
        check_drafts(&writing, &llm_tokenizer)?;
    }
    if let Some(other) = other.filter(has_adapter)
        && llm.adapter.is_none()
    {
        let target = bundle.path("adapter");
        fs::create_dir_all(&target).map_err(io_error("create", &target))?;
        let files = adapter_files(&other.path("adapter")).into_iter().zip(adapter_files(&target));
        for (from, to) in files {
            write_atomically(&to, &read_bytes(&from)?)?;
        }
        manifest.llm = Some(LlmPart { adapter: Some(LlmAdapter { hybrid_reads_it: false }), ..llm });
        let origin = other.manifest().origin_of("adapter").cloned();
        manifest.parts.retain(|part| part.path != "adapter");
        manifest.parts.extend(origin);
    }
    write_manifest(directory, manifest)
}

/// Whether the fine-tuning of `other`'s LLM can be used in `bundle`.
fn fits(bundle: &Bundle, other: &Bundle) -> Result<(), BundleError> {
    let refused = |problem: String| BundleError::AddLlm { path: bundle.directory().to_owned(), problem };
    let from = other.directory().display();
    let (ours, theirs) = (bundle.manifest(), other.manifest());
    for name in ["llm/model.safetensors", "llm/tokenizer.json"] {
        if ours.files.get(name).map(|file| &file.sha256) != theirs.files.get(name).map(|file| &file.sha256) {
            return Err(refused(format!(
                "{from} has another {name}; only an LLM that was fine-tuned by an adapter (`lora`) shares \
                 its weights with the reader of a small model"
            )));
        }
    }
    if ours.templates.get(DEFAULT_TEMPLATE) != theirs.templates.get(DEFAULT_TEMPLATE) {
        return Err(refused(format!(
            "{from} has another default template, {:?}, but a record is put into one template for both \
             models; train both with the same",
            theirs.templates.get(DEFAULT_TEMPLATE)
        )));
    }
    let digests = |bundle: &Bundle| {
        let files = bundle.manifest().files.iter();
        let adapter = files.filter(|(name, _)| name.starts_with("adapter/"));
        adapter.map(|(name, file)| (name.clone(), file.sha256.clone())).collect::<Vec<_>>()
    };
    if has_adapter(bundle) && digests(bundle) != digests(other) {
        return Err(refused(format!(
            "it has an adapter already, and that of {from} is another; take the bundle as it was trained"
        )));
    }
    Ok(())
}

fn has_adapter(bundle: &Bundle) -> bool {
    bundle.llm().is_ok_and(|(llm, _)| llm.adapter.is_some())
}
