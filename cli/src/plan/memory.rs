//! The memory that the models of a job take, from their shapes alone: no weight is read.

use std::path::Path;

use baton_bundle::{Bundle, BundleError, WeightFormat};
use baton_job::{JobSpec, Mode};
use baton_worker::{CPU_CACHE_TOKENS, CPU_PASS_TOKENS, ModelService};
use indicatif::{HumanBytes, HumanCount};

/// Prints a line for each service that loads models.
pub(super) fn show(spec: &JobSpec) {
    let bundle = Bundle::open(Path::new(&spec.bundle));
    match bundle.and_then(|bundle| lines(&bundle, spec.mode)) {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(error) => println!("memory: not known, because {error}"),
    }
}

fn lines(bundle: &Bundle, mode: Mode) -> Result<Vec<String>, BundleError> {
    let mut lines = Vec::new();
    for service in [ModelService::Encoder, ModelService::Decoder] {
        let mut sizes = Vec::new();
        let (mut reads, mut caches) = (false, false);
        for format in WeightFormat::ALL {
            let memory = service.memory(bundle, mode, format)?;
            reads |= memory.weights > 0;
            caches |= memory.cache_per_token > 0;
            let size = HumanBytes(memory.of_engine(CPU_PASS_TOKENS, CPU_CACHE_TOKENS));
            sizes.push(format!("{size} in {}", format.name()));
        }
        if reads {
            let pass = HumanCount(CPU_PASS_TOKENS as u64);
            let cache = match caches {
                true => format!(" and a cache of {} tokens", HumanCount(CPU_CACHE_TOKENS as u64)),
                false => String::new(),
            };
            lines.push(format!(
                "memory of the {} in mode {mode}, an engine: {}; with passes of {pass} tokens{cache}",
                service.name(),
                sizes.join(", ")
            ));
        }
    }
    Ok(lines)
}
