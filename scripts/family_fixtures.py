#!/usr/bin/env python3
"""Makes tests/fixtures/families/: tiny random checkpoints of every family, and what Hugging Face transformers
computes with them.

Needs torch, transformers and safetensors (the versions used are written into each file):

    python3 scripts/family_fixtures.py

A fixture is a directory: `config.json` and `model.safetensors`, which `save_pretrained` writes, and
`expected.json`. The latter has hidden states after some block or an encoder, logits, and the outputs of
greedy and beam search. Weights are bf16 numbers, so that files are small; everything is computed in f32, on
one thread.
Outputs are also generated in f64. A case whose tokens differ between the two is no reference and ends the
script; choose another seed then.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from family_expectations import (
    BEGIN,
    COMMON,
    END,
    OUTPUT_RULES,
    VOCAB_SIZE,
    decoder_only_prompt,
    encoder_decoder_prompt,
    prompt,
    write_expected,
)

PROMPT_LENS = [1, 2, 7, 18, 33, 47]  # the cache's blocks have 16 tokens
# Few buckets and a short reach, so that prompts are longer than both.
T5_COMMON = {
    "vocab_size": VOCAB_SIZE, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": END,
    "relative_attention_num_buckets": 12, "relative_attention_max_distance": 20,
}


def bart_sizes(d, heads, inner, encoder_layers, decoder_layers):
    """The sizes of BART and its kin under their names."""
    return {
        "vocab_size": VOCAB_SIZE, "d_model": d, "max_position_embeddings": 72,
        "encoder_layers": encoder_layers, "decoder_layers": decoder_layers,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner, "decoder_ffn_dim": inner,
    }


# The last norms of stacks and blocks of BART and its kin.
LAST_NORMS = ("final_layer_norm.weight", "decoder.layer_norm.weight")
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

# name: (model, config, layer whose hidden states are kept, seed)
CASES = {
    "llama-untied": (
        LlamaForCausalLM,
        LlamaConfig(
            hidden_size=36,
            intermediate_size=52,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            rope_theta=5000.0,
            tie_word_embeddings=False,
            rms_norm_eps=1e-5,
            **COMMON,
        ),
        2,
        1,
    ),
    "qwen2-tied": (
        Qwen2ForCausalLM,
        Qwen2Config(
            hidden_size=40,
            intermediate_size=56,
            num_hidden_layers=3,
            num_attention_heads=5,
            num_key_value_heads=1,
            rope_theta=1e6,
            tie_word_embeddings=True,
            **COMMON,
        ),
        2,
        2,
    ),
    "qwen2-sliding": (
        Qwen2ForCausalLM,
        Qwen2Config(
            hidden_size=36,
            intermediate_size=44,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            use_sliding_window=True,
            sliding_window=6,
            max_window_layers=1,
            tie_word_embeddings=False,
            **COMMON,
        ),
        3,
        3,
    ),
    "qwen3-tied": (
        Qwen3ForCausalLM,
        Qwen3Config(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=14,
            rope_theta=1e6,
            tie_word_embeddings=True,
            **COMMON,
        ),
        1,
        4,
    ),
    "qwen3-untied": (
        Qwen3ForCausalLM,
        Qwen3Config(
            hidden_size=40,
            intermediate_size=36,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=20,
            tie_word_embeddings=False,
            **COMMON,
        ),
        2,
        5,
    ),
    "gemma3-tied": (
        Gemma3ForCausalLM,
        Gemma3TextConfig(
            hidden_size=33,
            intermediate_size=50,
            num_hidden_layers=4,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=18,
            query_pre_attn_scalar=29,
            sliding_window=9,
            layer_types=[*SLIDING, "full_attention"],
            **COMMON,
        ),
        3,
        6,
    ),
    "gemma3-untied": (
        Gemma3ForCausalLM,
        Gemma3TextConfig(
            hidden_size=36,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=17,
            layer_types=SLIDING,
            tie_word_embeddings=False,
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 50000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
            },
            **COMMON,
        ),
        2,
        7,
    ),
    "gpt2-tied": (
        GPT2LMHeadModel,
        GPT2Config(n_embd=36, n_layer=3, n_head=3, n_positions=72, **COMMON),
        2,
        8,
    ),
    "gpt2-untied": (
        GPT2LMHeadModel,
        GPT2Config(
            n_embd=40,
            n_inner=56,
            n_layer=2,
            n_head=5,
            n_positions=80,
            tie_word_embeddings=False,
            layer_norm_epsilon=1e-6,
            **COMMON,
        ),
        1,
        9,
    ),
    # T5 1.0
    "t5-tied": (
        T5ForConditionalGeneration,
        T5Config(
            d_model=36,
            d_kv=10,
            d_ff=48,
            num_layers=3,
            num_decoder_layers=2,
            num_heads=3,
            feed_forward_proj="relu",
            **T5_COMMON,
        ),
        3,
        10,
    ),
    # T5 1.1 and Flan-T5, as published
    "t5-untied": (
        T5ForConditionalGeneration,
        T5Config(
            d_model=32,
            d_kv=8,
            d_ff=40,
            num_layers=2,
            num_heads=5,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            **T5_COMMON,
        ),
        2,
        11,
    ),
    # T5 1.1 as releases of transformers from 5 on make it anew
    "t5-tied-unscaled": (
        T5ForConditionalGeneration,
        T5Config(
            d_model=28,
            d_kv=12,
            d_ff=36,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            layer_norm_epsilon=1e-5,
            **T5_COMMON,
        ),
        2,
        12,
    ),
    # mT5, saved again by a release from 5 on
    "mt5-untied": (
        MT5ForConditionalGeneration,
        MT5Config(d_model=32, d_kv=6, d_ff=44, num_layers=2, num_heads=4, **T5_COMMON),
        2,
        13,
    ),
    # As opus-mt: what pads also begins outputs and is never written.
    "marian": (
        MarianMTModel,
        MarianConfig(
            **bart_sizes(36, 3, 44, 3, 2), activation_function="swish", scale_embedding=True,
            eos_token_id=END, bos_token_id=0, pad_token_id=60, decoder_start_token_id=60,
            forced_eos_token_id=None,
        ),
        3,
        34,
    ),
    # As NLLB-200: the first token is given.
    "m2m-100": (
        M2M100ForConditionalGeneration,
        M2M100Config(
            **bart_sizes(32, 4, 40, 2, 3), activation_function="relu", scale_embedding=True,
            eos_token_id=END, bos_token_id=0, pad_token_id=1, decoder_start_token_id=END,
        ),
        2,
        124,
    ),
    "bart": (
        BartForConditionalGeneration,
        BartConfig(
            **bart_sizes(40, 5, 36, 2, 2), activation_function="gelu", scale_embedding=False,
            eos_token_id=END, bos_token_id=0, pad_token_id=1, decoder_start_token_id=END,
            forced_eos_token_id=None,
        ),
        2,
        234,
    ),
    "mbart": (
        MBartForConditionalGeneration,
        MBartConfig(
            **bart_sizes(28, 2, 32, 3, 2), activation_function="gelu", scale_embedding=True,
            eos_token_id=END, bos_token_id=0, pad_token_id=1, decoder_start_token_id=END,
            forced_eos_token_id=None,
        ),
        3,
        17,
    ),
    "pegasus": (
        PegasusForConditionalGeneration,
        PegasusConfig(
            **bart_sizes(36, 4, 48, 2, 2), activation_function="relu", scale_embedding=True,
            eos_token_id=END, pad_token_id=0, decoder_start_token_id=0, forced_eos_token_id=None,
        ),
        2,
        18,
    ),
}


def draw_weights(model, seed):
    """Weights large enough for attention to be far from uniform, and norms and biases far from one and
    zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        drawn = torch.randn(weight.shape, generator=generator)
        if name == "model.shared.weight":
            drawn = drawn * (1.2 / weight.shape[-1] ** 0.5 if model.config.scale_embedding else 1.2)
        elif name.startswith("model.") and name.endswith(LAST_NORMS):
            pass  # of either sign, or each token is followed by itself
        elif name == "shared.weight" and getattr(model.config, "scale_decoder_outputs", False):
            drawn = drawn * 2.5  # what the head reads is divided by the root of its width
        elif "embed_positions" in name and not weight.requires_grad:
            continue  # sines
        elif weight.dim() == 1:
            around = 1.0 if name.endswith("weight") and not isinstance(model, Gemma3ForCausalLM) else 0.0
            drawn = around + 0.25 * drawn
        else:
            drawn = drawn * (1.2 / weight.shape[-1] ** 0.5)
        weight.copy_(drawn.bfloat16())
    for name, weight in model.named_buffers():
        if name == "final_logits_bias":
            weight.copy_((0.2 * torch.randn(weight.shape, generator=generator)).bfloat16())
            if isinstance(model, MarianMTModel):
                weight[0, model.config.pad_token_id] = 9.0  # it would be written, were it not forbidden


def make(name, directory):
    family, config, layer, seed = CASES[name]
    config._attn_implementation = "eager"
    model = family(config).eval()
    draw_weights(model, seed)
    model.bfloat16().save_pretrained(directory)
    (directory / "generation_config.json").unlink()
    if name == "pegasus":
        # Its sines, rounded; transformers computes them where they are missing.
        weights = load_file(directory / "model.safetensors")
        weights = {key: weight for key, weight in weights.items() if "embed_positions" not in key}
        save_file(weights, directory / "model.safetensors", {"format": "pt"})
    if name in ("t5-untied", "mt5-untied"):
        untie(directory, published=name == "t5-untied")
    if name in OUTPUT_RULES:
        config = json.loads((directory / "config.json").read_text())
        rules = {rule: value for rule, value in OUTPUT_RULES[name].items() if rule != "renormalize_logits"}
        (directory / "config.json").write_text(json.dumps({**config, **rules}, indent=2) + "\n")
    model = family.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    exact_model = family.from_pretrained(directory, dtype=torch.float64, attn_implementation="eager").eval()

    prompts = []
    for index, length in enumerate(PROMPT_LENS):
        tokens = prompt(index, length)
        if model.config.pad_token_id == BEGIN:
            tokens[-1] = END  # what pads has no position
        if model.config.is_encoder_decoder:
            prompts.append(encoder_decoder_prompt(model, exact_model, tokens, name))
            continue
        prompts.append(decoder_only_prompt(model, exact_model, tokens, name, blocks(model)[layer - 1]))
    write_expected(directory, "scripts/family_fixtures.py", layer, prompts)


def untie(directory, published):
    """Gives a T5 a head of its own, which transformers from 5 on does not do; `published`: says so in the
    config, as hubs do."""
    weights = load_file(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(99)
    shape = weights["shared.weight"].shape
    weights["lm_head.weight"] = (torch.randn(shape, generator=generator) * (1.2 / shape[1] ** 0.5)).bfloat16()
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    if published:
        config["tie_word_embeddings"] = False
        del config["scale_decoder_outputs"]
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def blocks(model):
    return model.transformer.h if isinstance(model, GPT2LMHeadModel) else model.model.layers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures/families"))
    parser.add_argument("names", nargs="*", help="fixtures to make; all if none is named")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in arguments.names or CASES:
        directory = arguments.out / name
        shutil.rmtree(directory, ignore_errors=True)
        make(name, directory)


if __name__ == "__main__":
    main()
