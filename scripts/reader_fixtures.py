#!/usr/bin/env python3
"""Makes fixtures for the families that large public models are of, without any weight among them.

    python3 scripts/reader_fixtures.py [NAME...]

Needs torch, transformers and safetensors (the versions used are written into each file).

tests/fixtures/families/NAME/ gets `config.json` and `expected.json`, as scripts/family_fixtures.py makes
them. The weights are a formula of a tensor's name and an element's place, which the test evaluates as well.

bundle/tests/fixtures/readers.json has the settings of public checkpoints, and the number of parameters that
transformers counts in each.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

import family_expectations
from family_expectations import BEGIN, COMMON, END, VOCAB_SIZE
from family_fixtures import T5_COMMON

PROMPT_LENS = [1, 7, 18, 47]
SIZES = {
    **COMMON, "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3,
}
WIDE = {**SIZES, "intermediate_size": 36}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 24,
}
YARN = {
    "rope_type": "yarn", "rope_theta": 900.0, "factor": 4.0, "original_max_position_embeddings": 40,
    "beta_fast": 4.0,
}

# name: (class, settings, layer whose hidden states are kept, settings of the file that transformers' config
# class does not write)
CASES = {
    "llama3-scaled": ("LlamaForCausalLM", {**WIDE, "head_dim": 10, "rope_parameters": LLAMA3}, 2),
    "mistral-sliding": ("MistralForCausalLM", {**WIDE, "head_dim": 8, "sliding_window": 7}, 2),
    "mistral-yarn": (
        "MistralForCausalLM", {**WIDE, "head_dim": 12, "sliding_window": None, "rope_parameters": YARN}, 3,
    ),
    # Its queries grow from position 96 on, which no prompt reaches.
    "ministral3": (
        "Ministral3ForCausalLM",
        {
            **WIDE, "head_dim": 12,
            "rope_parameters": {
                **YARN, "original_max_position_embeddings": 96, "beta_fast": 8.0, "mscale": 1.0,
                "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
            },
        },
        2,
    ),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM",
        {
            **WIDE, "head_dim": 8, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
            "norm_topk_prob": True, "mlp_only_layers": [1], "tie_word_embeddings": False,
        },
        3,
    ),
    "gemma2": (
        "Gemma2ForCausalLM",
        {
            **WIDE, "head_dim": 8, "query_pre_attn_scalar": 12, "sliding_window": 6,
            "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
        },
        2,
    ),
    "gemma3-scaled": (
        "Gemma3ForCausalLM",
        {
            **WIDE, "head_dim": 8, "query_pre_attn_scalar": 12, "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
            },
        },
        2,
    ),
    "phi3-partial": (
        "Phi3ForCausalLM",
        {
            **WIDE, "hidden_size": 32, "tie_word_embeddings": True, "max_position_embeddings": 256,
            "original_max_position_embeddings": 96,
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 5000.0, "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.25, 2.0], "long_factor": [2.0, 4.0, 8.0],
                "original_max_position_embeddings": 96,
            },
        },
        2,
    ),
    "phi3-sliding": ("Phi3ForCausalLM", {**WIDE, "sliding_window": 9}, 3),
    "olmo2": ("Olmo2ForCausalLM", {**WIDE, "head_dim": 6}, 2),
    "granite": (
        "GraniteForCausalLM",
        {
            **WIDE, "embedding_multiplier": 6.0, "residual_multiplier": 0.4, "attention_multiplier": 0.25,
            "logits_scaling": 3.0,
        },
        2,
    ),
    "smollm3": (
        "SmolLM3ForCausalLM",
        {**WIDE, "num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0], "rope_theta": 3000.0},
        3,
    ),
    "umt5": (
        "UMT5ForConditionalGeneration",
        {
            **T5_COMMON, "d_model": 24, "d_kv": 8, "d_ff": 36, "num_layers": 3,
            "num_decoder_layers": 2, "num_heads": 3,
        },
        3,
    ),
}
CONFIGS = {"UMT5ForConditionalGeneration": "UMT5Config", "Gemma3ForCausalLM": "Gemma3TextConfig"}


def formula(name, shape, norms_around_one):
    """A tensor's numbers: eight bits from a hash of its name and the place, scaled by its width."""
    mask = 0xFFFF_FFFF_FFFF_FFFF
    seed = 0xCBF2_9CE4_8422_2325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x0000_0100_0000_01B3) & mask
    with numpy.errstate(over="ignore"):
        count = numpy.prod(shape, dtype=numpy.uint64)
        steps = numpy.arange(count, dtype=numpy.uint64) * numpy.uint64(0x9E37_79B9_7F4A_7C15)
        mixed = numpy.uint64(seed) + steps
        mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58_476D_1CE4_E5B9)
        mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D0_49BB_1331_11EB)
        mixed ^= mixed >> numpy.uint64(31)
    eighths = (mixed >> numpy.uint64(56)).astype(numpy.float32)
    uniform = (eighths - numpy.float32(127.5)) / numpy.float32(128)  # between -1 and 1
    if len(shape) == 1 and name.endswith(".bias"):
        numbers = uniform * numpy.float32(0.25)
    elif len(shape) == 1:
        numbers = uniform * numpy.float32(0.5) + numpy.float32(0 if norms_around_one else 1)
    else:
        size = 1.0 if name.endswith(".q.weight") else 2.0  # a T5 does not scale its scores down
        numbers = uniform * numpy.float32(size / numpy.sqrt(numpy.float64(shape[-1])))
    return numbers.astype(numpy.float32).reshape(shape)


def write_checkpoint(family, config, directory):
    """A checkpoint as save_pretrained writes it, with the formula's numbers."""
    family(config).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    path = directory / "model.safetensors"
    with safe_open(path, "np") as stored:
        shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}
    around_one = family.__name__.startswith("Gemma")
    weights = {name: formula(name, shape, around_one) for name, shape in shapes.items()}
    save_file(weights, path, {"format": "pt"})
    return shapes


def make(name, directory):
    class_name, settings, layer = CASES[name]
    family = getattr(transformers, class_name)
    config_class = getattr(transformers, CONFIGS.get(class_name, class_name.replace("ForCausalLM", "Config")))
    settings = dict(settings)
    layer_types = settings.pop("layer_types", None)
    config = config_class(**settings, **({"layer_types": layer_types} if layer_types else {}))
    if config.pad_token_id is not None and config.pad_token_id >= VOCAB_SIZE:
        config.pad_token_id = None
    config._attn_implementation = "eager"
    prompts = []
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch)
        shapes = write_checkpoint(family, config, checkpoint)
        eager = {"attn_implementation": "eager"}
        if name == "qwen3-moe":
            eager["experts_implementation"] = "eager"
        load = lambda dtype: family.from_pretrained(checkpoint, dtype=dtype, **eager).eval()
        model, exact_model = load(torch.float32), load(torch.float64)
        directory.mkdir(parents=True)
        shutil.copy(checkpoint / "config.json", directory)
    for index, length in enumerate(PROMPT_LENS):
        tokens = family_expectations.prompt(index, length)
        if model.config.is_encoder_decoder:
            prompts.append(family_expectations.encoder_decoder_prompt(model, exact_model, tokens, name))
            continue
        block = model.model.layers[layer - 1]
        prompts.append(family_expectations.decoder_only_prompt(model, exact_model, tokens, name, block))
    family_expectations.write_expected(directory, "scripts/reader_fixtures.py", layer, prompts, shapes=shapes)


def llama_like(model_type, hidden, inner, layers, heads, kv_heads, vocab, **others):
    return {
        "model_type": model_type, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "vocab_size": vocab, **others,
    }


def t5_like(model_type, d_model, d_kv, d_ff, layers, heads, vocab):
    return {
        "model_type": model_type, "d_model": d_model, "d_kv": d_kv, "d_ff": d_ff, "num_layers": layers,
        "num_heads": heads, "vocab_size": vocab, "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
    }


def llama31(factor):
    return {
        "rope_theta": 500000.0, "max_position_embeddings": 131072,
        "rope_scaling": {
            "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
    }


TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
SCALED = {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
EXPERTS = {
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [],
}
GRANITE = {
    "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.015625,
    "logits_scaling": 8.0,
}
PHI4_MINI = {
    "partial_rotary_factor": 0.75, "max_position_embeddings": 131072, "sliding_window": 262144,
    "original_max_position_embeddings": 4096,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0] * 24 + [16.0] * 24},
}

MINISTRAL3 = {
    "max_position_embeddings": 262144,
    "rope_parameters": {
        "type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
}

# The settings that matter of `config.json` files, as published.
PUBLIC = {
    "meta-llama/Llama-3.2-1B": llama_like(
        "llama", 2048, 8192, 16, 32, 8, 128256, head_dim=64, **TIED, **llama31(32.0),
    ),
    "meta-llama/Llama-3.1-8B": llama_like("llama", 4096, 14336, 32, 32, 8, 128256, **UNTIED, **llama31(8.0)),
    "meta-llama/Llama-3.3-70B-Instruct": llama_like(
        "llama", 8192, 28672, 80, 64, 8, 128256, **UNTIED, **llama31(8.0),
    ),
    "utter-project/EuroLLM-1.7B": llama_like("llama", 2048, 5632, 24, 16, 8, 128000, **UNTIED),
    "mistralai/Mistral-7B-v0.1": llama_like(
        "mistral", 4096, 14336, 32, 32, 8, 32000, sliding_window=4096, **UNTIED,
    ),
    "mistralai/Mistral-Nemo-Base-2407": llama_like(
        "mistral", 5120, 14336, 40, 32, 8, 131072, head_dim=128, sliding_window=None, rope_theta=1e6,
        **UNTIED,
    ),
    "mistralai/Ministral-8B-Instruct-2410": llama_like(
        "mistral", 4096, 12288, 36, 32, 8, 131072, head_dim=128, sliding_window=32768, rope_theta=1e8,
        **UNTIED,
    ),
    "mistralai/Ministral-3-8B-Base-2512": llama_like(
        "ministral3", 4096, 14336, 34, 32, 8, 131072, head_dim=128, **UNTIED, **MINISTRAL3,
    ),
    "Qwen/Qwen2.5-7B": llama_like("qwen2", 3584, 18944, 28, 28, 4, 152064, rope_theta=1e6, **UNTIED),
    "Qwen/Qwen3-8B": llama_like(
        "qwen3", 4096, 12288, 36, 32, 8, 151936, head_dim=128, rope_theta=1e6, **UNTIED,
    ),
    "Qwen/Qwen3-30B-A3B": llama_like(
        "qwen3_moe", 2048, 6144, 48, 32, 4, 151936, head_dim=128, rope_theta=1e6, **UNTIED, **EXPERTS,
    ),
    "google/gemma-2-2b": llama_like(
        "gemma2", 2304, 9216, 26, 8, 4, 256000, head_dim=256, sliding_window=4096,
    ),
    "google/gemma-3-12b-pt": llama_like(
        "gemma3_text", 3840, 15360, 48, 16, 8, 262208, head_dim=256, sliding_window=1024, **SCALED,
    ),
    "microsoft/Phi-3-mini-4k-instruct": llama_like(
        "phi3", 3072, 8192, 32, 32, 32, 32064, sliding_window=2047, **UNTIED,
    ),
    "microsoft/Phi-4-mini-instruct": llama_like("phi3", 3072, 8192, 32, 24, 8, 200064, **TIED, **PHI4_MINI),
    "microsoft/phi-4": llama_like("phi3", 5120, 17920, 40, 40, 10, 100352, rope_theta=250000, **UNTIED),
    "allenai/OLMo-2-1124-7B": llama_like(
        "olmo2", 4096, 11008, 32, 32, 32, 100352, rope_theta=500000, **UNTIED,
    ),
    "ibm-granite/granite-3.1-2b-instruct": llama_like(
        "granite", 2048, 8192, 40, 32, 8, 49155, **TIED, **GRANITE,
    ),
    "HuggingFaceTB/SmolLM3-3B": llama_like("smollm3", 2048, 11008, 36, 16, 4, 128256, **TIED),
    "google/flan-t5-xl": t5_like("t5", 2048, 64, 5120, 24, 32, 32128),
    "google/umt5-base": t5_like("umt5", 768, 64, 2048, 12, 12, 256384),
}


def num_parameters(settings):
    """As transformers counts them, without making a number."""
    settings = {**settings, "pad_token_id": settings.get("pad_token_id", 0)}
    config = transformers.AutoConfig.for_model(**settings)
    of_text = transformers.AutoModelForCausalLM
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else of_text
    with torch.device("meta"):
        model = auto.from_config(config)
    # This release takes every T5's head for its embedding matrix; published ones of 1.1 have a head.
    head = settings["vocab_size"] * settings["d_model"] if config.is_encoder_decoder else 0
    return head + sum(parameter.numel() for parameter in model.parameters())


def write_public(path):
    entries = []
    for name, settings in PUBLIC.items():
        entry = {"name": name, "parameters": num_parameters(settings), "config": settings}
        entries.append(json.dumps(entry, separators=(",", ":")))
        print(name, entry["parameters"])
    path.write_text("[\n" + ",\n".join(entries) + "\n]\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures/families"))
    parser.add_argument("--public", type=Path, default=Path("bundle/tests/fixtures/readers.json"))
    parser.add_argument("names", nargs="*", help="fixtures to make; all and the public ones if none is named")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in arguments.names or CASES:
        directory = arguments.out / name
        shutil.rmtree(directory, ignore_errors=True)
        make(name, directory)
    if not arguments.names:
        write_public(arguments.public)


if __name__ == "__main__":
    main()
