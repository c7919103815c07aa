//! Decode throughput of a small model with random weights, and where a step's time goes.
//!
//! `cargo bench -p baton-model --bench decode`: one libtorch thread, bf16, 32 prompt and 32 new tokens a row. The machine's speed is in
//! every number; compare ratios within one run. Parts are timed alone, at the cache's mean fill, each as often as a step runs it.

#![allow(clippy::print_stdout)] // a bench talks to the terminal

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use baton_bundle::{LlamaConfig, PromptAttention, WeightDtype};
use baton_decoding::{SlotId, StepRow};
use baton_model::{
    CacheLimits, Compute, Linear, Llama, LlamaParts, PrefillRow, PromptStates, Rope, SlmDecoder,
    TensorSource, rms_norm,
};
use tch::{Device, Kind, Tensor, no_grad};

const COMPUTE: Compute = Compute::CPU_BF16;
const PROMPT_TOKENS: usize = 32;
const NEW_TOKENS: usize = 32;
const ROUNDS: usize = 5;

fn main() {
    baton_model::set_num_threads(1);
    let config = config();
    let weights: BTreeMap<String, Tensor> = config
        .tensor_shapes()
        .into_iter()
        .map(|(name, shape)| {
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            (name, Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu)) * 0.05)
        })
        .collect();
    println!(
        "{} blocks, d {}, ff {}, {} heads ({} kv), vocab {}; {COMPUTE:?}",
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size
    );
    for num_rows in [1, 8, 32, 128] {
        whole_decoder(&config, &weights, num_rows);
        parts_of_a_step(&config, num_rows as i64);
    }
}

fn config() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 320,
        intermediate_size: 864,
        num_hidden_layers: 5,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 40,
        vocab_size: 8000,
        max_position_embeddings: 1024,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: true,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        dtype: WeightDtype::F32,
    }
}

fn whole_decoder(config: &LlamaConfig, weights: &BTreeMap<String, Tensor>, num_rows: usize) {
    let parts = LlamaParts { blocks: config.num_hidden_layers, lm_head: true };
    let model =
        Llama::load(config, weights as &dyn TensorSource, parts, COMPUTE).expect("weights fit the config");
    let capacity_tokens = PROMPT_TOKENS + NEW_TOKENS;
    let limits = CacheLimits { max_slots: num_rows, max_cache_tokens: num_rows * capacity_tokens };
    let mut decoder = SlmDecoder::new(model, PromptAttention::Bidirectional, COMPUTE, limits)
        .expect("the cache fits in memory");
    let data = vec![0x3c; PROMPT_TOKENS * config.hidden_size * 2];
    let states = PromptStates::new(PROMPT_TOKENS, config.hidden_size, data.into()).expect("sizes agree");

    let (mut prefill_seconds, mut decode_seconds) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let rows: Vec<PrefillRow<'_>> = (0..num_rows)
            .map(|slot| PrefillRow { slot: SlotId(slot), states: &states, capacity_tokens })
            .collect();
        let start = Instant::now();
        decoder.prefill(&rows);
        prefill_seconds = prefill_seconds.min(start.elapsed().as_secs_f64());

        let mut step: Vec<StepRow> =
            (0..num_rows).map(|slot| StepRow { slot: SlotId(slot), token: 1, allow_stop: false }).collect();
        let start = Instant::now();
        for _ in 0..NEW_TOKENS {
            let choices = decoder.step(&step);
            for (row, choice) in step.iter_mut().zip(choices) {
                row.token = choice.token;
            }
        }
        decode_seconds = decode_seconds.min(start.elapsed().as_secs_f64());
        (0..num_rows).for_each(|slot| decoder.release(SlotId(slot)));
    }
    println!(
        "\nbatch {num_rows:3}: {:6.0} new tokens/s decode only, {:6.0} with prefill; {:.3} ms a step, prefill {:.3} ms",
        (num_rows * NEW_TOKENS) as f64 / decode_seconds,
        (num_rows * NEW_TOKENS) as f64 / (decode_seconds + prefill_seconds),
        decode_seconds / NEW_TOKENS as f64 * 1e3,
        prefill_seconds * 1e3
    );
}

/// What the tensor operations of one step cost; the rest of a step is attention, selection and bookkeeping.
fn parts_of_a_step(config: &LlamaConfig, num_rows: i64) {
    let [d, ff, vocab, head_dim, heads, kv_heads, layers] = [
        config.hidden_size,
        config.intermediate_size,
        config.vocab_size,
        config.head_dim,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.num_hidden_layers,
    ]
    .map(|size| size as i64);
    let random = |size: &[i64], kind| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind);
    let linear = |out, inner| Linear::new(random(&[out, inner], COMPUTE.kind), None);
    let x = random(&[num_rows, d], Kind::Float);
    let norm_weight = random(&[d], Kind::Float);
    let narrow = random(&[num_rows, d], COMPUTE.kind);
    let gate_up = random(&[num_rows, 2 * ff], COMPUTE.kind);
    let inner = random(&[num_rows, ff], COMPUTE.kind);
    let qkv = random(&[num_rows, heads + 2 * kv_heads, head_dim], COMPUTE.kind);
    let positions = Tensor::full([num_rows], 48, (Kind::Int64, Device::Cpu));
    let rope = Rope::new(&positions, head_dim, config.rope_theta);
    let (qkv_proj, o_proj) = (linear((heads + 2 * kv_heads) * head_dim, d), linear(d, heads * head_dim));
    let (gate_up_proj, down_proj, lm_head) = (linear(2 * ff, d), linear(d, ff), linear(vocab, d));

    let report = |name: &str, times: i64, run: &dyn Fn()| {
        let seconds = no_grad(|| {
            (0..50).map(|_| Instant::now()).fold(f64::INFINITY, |best, _| {
                let start = Instant::now();
                run();
                best.min(start.elapsed().as_secs_f64())
            })
        });
        println!(
            "  {name:28} {:2} x {:8.1} us = {:7.3} ms",
            times,
            seconds * 1e6,
            seconds * times as f64 * 1e3
        );
    };
    report("block's linears", layers, &|| {
        let _ = black_box((qkv_proj.forward(&narrow), o_proj.forward(&narrow)));
        let _ = black_box((gate_up_proj.forward(&narrow), down_proj.forward(&inner)));
    });
    report("lm_head", 1, &|| drop(black_box(lm_head.forward(&narrow))));
    report("rms_norm and its rounding", 2 * layers + 1, &|| {
        drop(black_box(rms_norm(&x, &norm_weight, 1e-5).to_kind(COMPUTE.kind)));
    });
    report("rope table", 1, &|| drop(black_box(Rope::new(&positions, head_dim, config.rope_theta))));
    report("rope on queries and keys", layers, &|| {
        let parts = qkv.split_with_sizes([heads, kv_heads, kv_heads], 1);
        let _ = black_box((rope.apply(&parts[0]), rope.apply(&parts[1])));
    });
    report("silu and product", layers, &|| {
        let halves = gate_up.chunk(2, -1);
        drop(black_box(halves[0].silu() * &halves[1]));
    });
    report("residual sum", 2 * layers, &|| drop(black_box(&x + &narrow)));
}
