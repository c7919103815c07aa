#!/usr/bin/env python3
"""Makes tests/fixtures/adapters/: LoRA adapters as PEFT writes them, for checkpoints of
tests/fixtures/families/, and what PEFT computes with them.

Needs torch, transformers and peft (the versions used are written into each file):

    python3 scripts/adapter_fixtures.py

A fixture is a directory: `adapter_config.json` and `adapter_model.safetensors`, which `save_pretrained`
writes, and `expected.json`. The latter has a prompt and the logits after its last token, with the adapter
and without, in f32.
"""

import argparse
import json
import shutil
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

FAMILIES = Path("tests/fixtures/families")
NUM_TOKENS = 19
FORCED = [0, 9, 17, 33, 4]  # what a decoder behind an encoder is fed, its start token first

# name: (checkpoint, settings, seed)
CASES = {
    "llama": (
        "llama-untied",
        {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "v_proj", "down_proj", "lm_head"]},
        1,
    ),
    "qwen2-rslora": (
        "qwen2-tied",
        {"r": 4, "lora_alpha": 2, "use_rslora": True, "target_modules": "all-linear"},
        2,
    ),
    "qwen3": (
        "qwen3-tied",
        {"r": 2, "lora_alpha": 4, "target_modules": ["k_proj", "o_proj", "gate_proj"]},
        3,
    ),
    "gemma3": (
        "gemma3-tied",
        {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1, 3]},
        4,
    ),
    "gpt2": ("gpt2-tied", {"r": 2, "lora_alpha": 3, "target_modules": ["c_attn", "c_fc", "c_proj"]}, 5),
    "t5": ("t5-tied", {"r": 2, "lora_alpha": 4, "target_modules": ["q", "k", "wi", "wo"]}, 6),
}


def rounded(values):
    return [float(f"{value:.7g}") for value in values]


def logits(model, tokens):
    ids = torch.tensor([tokens])
    if model.config.is_encoder_decoder:
        return rounded(model(input_ids=ids, decoder_input_ids=torch.tensor([FORCED])).logits[0, -1].tolist())
    return rounded(model(ids).logits[0, -1].tolist())


def make(name, directory):
    checkpoint, settings, seed = CASES[name]
    is_encoder_decoder = checkpoint.startswith("t5")
    family = AutoModelForSeq2SeqLM if is_encoder_decoder else AutoModelForCausalLM
    model = family.from_pretrained(
        FAMILIES / checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 61, [NUM_TOKENS], generator=generator).tolist()
    without = logits(model, tokens)
    task = "SEQ_2_SEQ_LM" if is_encoder_decoder else "CAUSAL_LM"
    model = get_peft_model(model, LoraConfig(task_type=task, lora_dropout=0.1, **settings)).eval()
    for weight_name, weight in sorted(model.named_parameters()):
        if "lora_" in weight_name:  # B is zero before it learns
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.5 / weight.shape[-1] ** 0.5))
    expected = {
        "made_by": "scripts/adapter_fixtures.py",
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "checkpoint": checkpoint,
        "tokens": tokens,
        "forced": FORCED if is_encoder_decoder else [],
        "logits": logits(model, tokens),
        "logits_without": without,
    }
    model.save_pretrained(directory, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in expected.items())
    (directory / "expected.json").write_text(f"{{{lines}}}\n", encoding="utf-8")
    print(f"{name}: {sum(file.stat().st_size for file in directory.iterdir())} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures/adapters"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in CASES:
        directory = arguments.out / name
        shutil.rmtree(directory, ignore_errors=True)
        make(name, directory)


if __name__ == "__main__":
    main()
