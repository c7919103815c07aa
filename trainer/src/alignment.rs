//! Initial values by which prompt and response share one embedding space from the first step on.
//!
//! The principal components of the LLM's embeddings that fit the small model's width become the map of the
//! prompt embedding. The same components of a token's LLM embedding become its row in the small model's
//! embedding. To copy a token from the prompt, the small model then has to find it, but not to learn it.

use std::path::Path;

use tch::{Kind, Tensor, no_grad};
use tokenizers::{Model, ModelWrapper, Tokenizer};

use crate::{
    TrainError,
    slm_tokenizer::{merges_of, open_tokenizer},
    weights::Weights,
};

const RMS_EPS: f64 = 1e-6;

/// Replaces random values by aligned ones.
///
/// `prompt_embedding.map`, if there is one, becomes the components, scaled to outputs of mean square one like
/// a random map. Rows of the embedding, which is called `embedding_name`, get length one, like random rows.
/// `llm_embeddings`: `[llm vocab, d_llm]`. Tokens that the LLM lacks start as the mean of their merged parts;
/// special tokens, which have no parts, keep their random rows.
pub(crate) fn align(
    (weights, embedding_name): (&mut Weights, &str),
    llm_embeddings: &Tensor,
    llm_tokenizer: &Path,
    slm_tokenizer: &Path,
) -> Result<(), TrainError> {
    let sources = embedding_sources(&open_tokenizer(llm_tokenizer)?, &open_tokenizer(slm_tokenizer)?)?;
    no_grad(|| {
        let embeddings = &weights[embedding_name];
        let (slm_vocab, d_slm) = embeddings.size2().expect("embeddings are [vocab, d]");
        let scaled = baton_model::rms_scale(&llm_embeddings.to_kind(Kind::Float), RMS_EPS);
        let mean = scaled.mean_dim([0i64].as_slice(), true, Kind::Float);
        let centred = &scaled - &mean;
        let (_, directions) = centred.tr().matmul(&centred).linalg_eigh("L"); // columns, by rising variance
        let components = directions.narrow(1, directions.size()[1] - d_slm, d_slm); // [d_llm, d_slm]
        let projected = centred.matmul(&components);

        for (id, llm_ids) in (0..slm_vocab).zip(&sources).filter(|(_, llm_ids)| !llm_ids.is_empty()) {
            let row = projected.index_select(0, &Tensor::from_slice(llm_ids)).mean_dim(
                [0i64].as_slice(),
                false,
                Kind::Float,
            );
            embeddings.get(id).copy_(&(&row / row.norm().clamp_min(RMS_EPS)));
        }
        if weights.contains_key("prompt_embedding.map.weight") {
            let map = (components.tr() / projected.square().mean(Kind::Float).sqrt()).contiguous();
            let bias = -map.matmul(&mean.view([-1]));
            weights.insert("prompt_embedding.map.weight".into(), map);
            weights.insert("prompt_embedding.map.bias".into(), bias);
        }
    });
    Ok(())
}

/// For each token of the small model, the LLM's tokens that it starts from.
fn embedding_sources(llm: &Tokenizer, slm: &Tokenizer) -> Result<Vec<Vec<i64>>, TrainError> {
    let ModelWrapper::BPE(model) = slm.get_model() else {
        return Err(TrainError::Tokenizer("the small model's tokenizer is not BPE".into()));
    };
    let vocabulary = model.get_vocab();
    let mut sources = vec![Vec::new(); vocabulary.len()];
    for (token, &id) in &vocabulary {
        sources[id as usize].extend(llm.get_model().token_to_id(token).map(i64::from));
    }
    // Parts come before their merge.
    for (left, right) in merges_of(model) {
        let whole = vocabulary[&format!("{left}{right}")] as usize;
        if sources[whole].is_empty() {
            let part = |token: &String| sources[vocabulary[token] as usize].as_slice();
            sources[whole] = [part(&left), part(&right)].concat();
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Device;
    use tokenizers::{AddedToken, models::bpe::BPE};

    use super::*;

    fn write_tokenizer(path: &Path, tokens: &[&str], merges: &[(&str, &str)]) {
        let vocabulary: tokenizers::models::bpe::Vocab =
            tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
        let merges = merges.iter().map(|(left, right)| ((*left).to_owned(), (*right).to_owned())).collect();
        let mut tokenizer =
            Tokenizer::new(BPE::builder().vocab_and_merges(vocabulary, merges).build().unwrap());
        tokenizer.add_special_tokens([AddedToken::from(tokens[0], true)]).unwrap();
        tokenizer.save(path, false).unwrap();
    }

    fn direction(row: &Tensor) -> Tensor {
        row / row.norm()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).norm()).unwrap()
    }

    #[test]
    fn a_token_of_both_models_starts_in_the_direction_that_the_prompt_has_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let (llm, slm) = (directory.path().join("llm.json"), directory.path().join("slm.json"));
        write_tokenizer(&llm, &["<|end|>", "a", "b", "c", "ab"], &[("a", "b")]);
        write_tokenizer(&slm, &["<s>", "c", "b", "a", "ab", "abc"], &[("a", "b"), ("ab", "c")]);
        let (d_llm, d_slm) = (6, 4);
        tch::manual_seed(5);
        let random = |rows: i64, columns: i64| Tensor::randn([rows, columns], (Kind::Float, Device::Cpu));
        let llm_embeddings = random(5, d_llm);
        let special_row = random(1, d_slm);
        let mut weights = BTreeMap::from([
            (
                "model.embed_tokens.weight".to_owned(),
                Tensor::cat(&[special_row.shallow_clone(), random(5, d_slm)], 0),
            ),
            ("prompt_embedding.map.weight".to_owned(), random(d_slm, d_llm)),
            ("prompt_embedding.map.bias".to_owned(), random(1, d_slm).view([-1])),
        ]);
        align((&mut weights, "model.embed_tokens.weight"), &llm_embeddings, &llm, &slm).unwrap();

        let prompt_embedding = baton_model::PromptEmbedding::load(
            &weights,
            d_llm as usize,
            d_slm as usize,
            baton_model::Compute::CPU_F32.differentiable(),
        )
        .unwrap();
        let prompt = prompt_embedding.forward(&llm_embeddings);
        let mean_square = f64::try_from(prompt.square().mean(Kind::Float)).unwrap();
        assert!((mean_square - 1.0).abs() < 1e-4, "{mean_square}");

        let embeddings = &weights["model.embed_tokens.weight"];
        for (slm_id, llm_id) in [(1, 3), (2, 2), (3, 1), (4, 4)] {
            assert!(distance(&embeddings.get(slm_id), &direction(&prompt.get(llm_id))) < 1e-4, "{slm_id}");
        }
        let mean_of_parts = prompt.get(4) + prompt.get(3);
        assert!(distance(&embeddings.get(5), &direction(&mean_of_parts)) < 1e-4);
        assert!(distance(&embeddings.get(0), &special_row.view([-1])) == 0.0, "special tokens stay random");
    }
}
