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

BEGIN, END = 1, 2  # the last token of every prompt, and the token that ends what is written
VOCAB_SIZE = 61
MAX_NEW_TOKENS = 20
NUM_BEAMS = 4
PROMPT_LENS = [1, 2, 7, 18, 33, 47]  # the cache's blocks have 16 tokens

COMMON = {"vocab_size": VOCAB_SIZE, "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": None}
# Few buckets and a short reach, so that prompts are longer than both.
T5_COMMON = {
    "vocab_size": VOCAB_SIZE, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": END,
    "relative_attention_num_buckets": 12, "relative_attention_max_distance": 20,
}
NUM_FORCED_TOKENS = 30


def bart_sizes(d, heads, inner, encoder_layers, decoder_layers):
    """The sizes of BART and its kin under their names."""
    return {
        "vocab_size": VOCAB_SIZE, "d_model": d, "max_position_embeddings": 72,
        "encoder_layers": encoder_layers, "decoder_layers": decoder_layers,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner, "decoder_ffn_dim": inner,
    }


# Options of generation; `config.json` says the same to Baton.
OUTPUT_RULES = {
    "marian": {"bad_words_ids": [[60]], "renormalize_logits": True},
    "m2m-100": {"forced_bos_token_id": 7},
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


def prompt(index, length):
    """Token ids that are not special, and the begin token."""
    generator = torch.Generator().manual_seed(1000 + index)
    return [*torch.randint(3, VOCAB_SIZE, [length], generator=generator).tolist(), BEGIN]


def generate(model, tokens, num_beams, rules):
    """Outputs of beam search, best first, without the end token; greedy search with one beam."""
    ids = torch.tensor([tokens])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=MAX_NEW_TOKENS,
        pad_token_id=0 if model.config.pad_token_id is None else model.config.pad_token_id,
        **rules,
    )
    num_given = 1 if model.config.is_encoder_decoder else ids.shape[1]
    sequences = []
    for sequence in output[:, num_given:].tolist():
        length = sequence.index(END) if END in sequence else MAX_NEW_TOKENS
        sequences.append(sequence[:length])
    return sequences


def generate_surely(model, exact_model, tokens, num_beams, name):
    rules = OUTPUT_RULES.get(name, {})
    sequences = generate(model, tokens, num_beams, rules)
    if sequences != generate(exact_model, tokens, num_beams, rules):
        raise SystemExit(
            f"a near tie: f32 and f64 differ for {name}, a prompt of {len(tokens)} tokens, {num_beams} beams"
        )
    return sequences


def rounded(values):
    return [float(f"{value:.7g}") for value in values]


def some_positions(states):
    """The first, the middle and the last of `[1, length, d]`."""
    length = states.shape[1]
    return rounded(states[0, [0, length // 2, length - 1]].flatten().tolist())


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


def decoder_only_prompt(model, exact_model, tokens, name, block):
    """The states after a block, the logits, and what the model writes."""
    states = []
    # The output of a block, not `hidden_states`, whose last entry has gone through the final norm.
    hook = block.register_forward_hook(
        lambda _module, _inputs, output: states.append(output[0] if isinstance(output, tuple) else output)
    )
    logits = model(torch.tensor([tokens])).logits[0]
    hook.remove()
    return {
        "tokens": tokens,
        "hidden_states": some_positions(states[0]),
        "logits": rounded(logits[-1].tolist()),
        "greedy": generate_surely(model, exact_model, tokens, 1, name)[0],
        "beams": generate_surely(model, exact_model, tokens, NUM_BEAMS, name),
    }


def write_expected(directory, made_by, layer, prompts, **more):
    """Writes what the tests compare with, a prompt a line."""
    expected = {
        "made_by": made_by,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "layer": layer,
        "max_new_tokens": MAX_NEW_TOKENS,
        "num_beams": NUM_BEAMS,
        **more,
    }
    lines = ",\n".join(json.dumps(prompt, separators=(",", ":")) for prompt in prompts)
    (directory / "expected.json").write_text(
        f'{json.dumps(expected)[:-1]}, "prompts": [\n{lines}\n]}}\n', encoding="utf-8"
    )
    lengths = [len(prompt["greedy"]) for prompt in prompts]
    num_bytes = sum(file.stat().st_size for file in directory.iterdir())
    print(f"{directory.name}: {num_bytes} bytes, greedy sequences of {min(lengths)} to {max(lengths)} tokens")


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


def encoder_decoder_prompt(model, exact_model, tokens, name):
    """Both stacks on a batch padded to a longer neighbour, as a mask hides it; logits behind some forced
    tokens."""
    neighbour = torch.full([len(tokens) + 11], 5)
    ids = torch.full([2, len(neighbour)], model.config.pad_token_id)
    ids[0, : len(tokens)], ids[1] = torch.tensor(tokens), neighbour
    mask = torch.ones_like(ids)
    mask[0, len(tokens):] = 0
    forced = torch.randint(
        3, VOCAB_SIZE, [NUM_FORCED_TOKENS], generator=torch.Generator().manual_seed(len(tokens))
    )
    decoder_ids = torch.cat([torch.tensor([model.config.decoder_start_token_id]), forced])
    output = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids.repeat(2, 1))
    return {
        "tokens": tokens,
        "hidden_states": some_positions(output.encoder_last_hidden_state[:1, : len(tokens)]),
        "forced": forced.tolist(),
        "logits": rounded(output.logits[0, -1].tolist()),
        "greedy": generate_surely(model, exact_model, tokens, 1, name)[0],
        "beams": generate_surely(model, exact_model, tokens, NUM_BEAMS, name),
    }


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
