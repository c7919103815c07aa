//! Checks the manifest's statements about its models against their `config.json`.

use baton_job::Mode;

use crate::{BundleManifest, Family, ModelConfig, PromptAttention};

/// A model of the bundle, by the manifest and by its own file.
struct Part<'a> {
    /// Its directory.
    name: &'static str,
    family: Family,
    d_model: usize,
    vocab_size: usize,
    config: &'a ModelConfig,
}

/// The first thing in which the manifest and the models differ.
pub(crate) fn part_problem(
    manifest: &BundleManifest,
    llm_config: Option<&ModelConfig>,
    slm_config: Option<&ModelConfig>,
) -> Option<String> {
    let limits = &manifest.limits;
    let llm_part = manifest.llm.as_ref().zip(llm_config).map(|(llm, config)| {
        let &crate::LlmPart { family, d_model, vocab_size, .. } = llm;
        Part { name: "llm", family, d_model, vocab_size, config }
    });
    let slm_part = manifest.slm.as_ref().zip(slm_config).map(|(slm, config)| {
        let &crate::SlmPart { family, d_model, vocab_size, .. } = slm;
        Part { name: "slm", family, d_model, vocab_size, config }
    });
    let mut problems = llm_part
        .iter()
        .chain(&slm_part)
        .filter_map(Part::problem)
        .chain(layers_problem(manifest, llm_config))
        .chain(visibility_problem(manifest, slm_config));
    problems.next().or_else(|| {
        let reads = llm_part
            .as_ref()
            .and_then(|llm| llm.positions_problem("max_prompt_tokens", limits.max_prompt_tokens));
        let writer = manifest.llm.as_ref().and_then(|llm| llm.writer.as_ref()).zip(llm_part.as_ref());
        let writes = writer.and_then(|(writer, llm)| {
            let tokens = llm.config.longest_sequence(limits.max_prompt_tokens, writer.max_new_tokens);
            llm.positions_problem(&llm.joined("max_prompt_tokens", "llm.writer.max_new_tokens"), tokens)
        });
        let slm_writes = slm_part.and_then(|slm| {
            let of_prompt = match limits.max_slm_prompt_tokens {
                Some(_) => "max_slm_prompt_tokens",
                None => "max_prompt_tokens",
            };
            let tokens = slm.config.longest_sequence(limits.slm_prompt_tokens(), limits.max_new_tokens);
            slm.positions_problem(&slm.joined(of_prompt, "max_new_tokens"), tokens)
        });
        reads.or(writes).or(slm_writes)
    })
}

fn layers_problem(manifest: &BundleManifest, llm_config: Option<&ModelConfig>) -> Option<String> {
    let (llm, llm_config) = manifest.llm.as_ref().zip(llm_config)?;
    let (asked, there) = (llm.layers, llm_config.num_hidden_layers);
    if asked > there {
        return Some(format!("`llm.layers` is {asked}, but llm/config.json has only {there} layers"));
    }
    let reads = manifest.modes.contains(&Mode::Hybrid);
    (reads && llm_config.encoder_decoder().is_some() && asked != there)
        .then(|| format!("`llm.layers` is {asked}, but an encoder is read after its last layer, {there}"))
}

/// An encoder's positions all see each other.
fn visibility_problem(manifest: &BundleManifest, slm_config: Option<&ModelConfig>) -> Option<String> {
    let (slm, config) = manifest.slm.as_ref().zip(slm_config)?;
    let is_causal = slm.prompt_attention == PromptAttention::Causal;
    (is_causal && config.encoder_decoder().is_some()).then(|| {
        "`slm.prompt_attention` is `causal`, but slm/ reads with an encoder, which is `bidirectional`"
            .to_owned()
    })
}

impl Part<'_> {
    fn problem(&self) -> Option<String> {
        let &Self { name, family, d_model, vocab_size, config } = self;
        let (said, found) = (family.model_type(), config.family().model_type());
        if said != found {
            return Some(format!(
                "`{name}.family` is that of model type `{said}`, but {name}/config.json has `model_type` \
                 `{found}`"
            ));
        }
        let sizes = [
            ("d_model", d_model, config.field_name("hidden_size"), config.hidden_size),
            ("vocab_size", vocab_size, "vocab_size", config.vocab_size),
        ];
        let (field, said, config_field, found) =
            sizes.into_iter().find(|(_, said, _, found)| said != found)?;
        Some(format!(
            "`{name}.{field}` is {said}, but {name}/config.json has `{config_field}` {found}; \
             is {name}/config.json from another checkpoint?"
        ))
    }

    /// The limits that bound the longest sequence: prompt or output for an encoder-decoder, else both
    /// together.
    fn joined(&self, of_prompt: &str, of_output: &str) -> String {
        let joint = if self.config.encoder_decoder().is_some() { "or" } else { "+" };
        format!("{of_prompt} {joint} {of_output}")
    }

    /// Whether sequences of `tokens` tokens, which the limit `limit` allows, go beyond the model's positions.
    fn positions_problem(&self, limit: &str, tokens: usize) -> Option<String> {
        let positions = self.config.max_positions().filter(|&positions| tokens > positions)?;
        let name = self.name;
        Some(format!("`limits` allows {tokens} tokens ({limit}), but {name}/ has only {positions} positions"))
    }
}
