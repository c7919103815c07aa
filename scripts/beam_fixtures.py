#!/usr/bin/env python3
"""Makes tests/fixtures/parity/beam.json: what Hugging Face transformers' beam search writes with a tiny
random Llama.

Needs torch and transformers (the versions used are written into the file):

    python3 scripts/beam_fixtures.py

Neither weights nor prompts are stored: model/tests/beam_parity.rs draws the same numbers from the same
generator. A prompt is a few random embeddings, followed by the embedding of the begin token, as the SLM reads
projected states. Each case is run in f32 and f64; a case whose tokens differ between the two is no reference
and ends the script: choose another seed then.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "vocab_size": 40,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MATRIX_SCALE = 0.3125
NORM_SCALE = 0.125
PROMPT_LENS = [1, 3, 8, 17]
PROMPT_SEED = 1000

SETTINGS = [
    {"num_beams": 1},
    {"num_beams": 2},
    {"num_beams": 4},
    {"num_beams": 8, "max_new_tokens": 12},
    {"num_beams": 4, "length_penalty": 0.0},
    {"num_beams": 4, "length_penalty": 0.6},
    {"num_beams": 4, "length_penalty": 2.0},
    {"num_beams": 3, "length_penalty": -1.0},
    {"num_beams": 4, "early_stopping": True},
    {"num_beams": 4, "early_stopping": "never"},
    {"num_beams": 5, "early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 4, "stop_tokens": [5, 9]},
    {"num_beams": 4, "stop_tokens": [5, 9, 11, 30], "early_stopping": True, "length_penalty": 0.6},
    {"num_beams": 4, "min_new_tokens": 10},
    {"num_beams": 4, "no_repeat_ngram": 2},
    {"num_beams": 4, "no_repeat_ngram": 1, "stop_tokens": [7]},
    {"num_beams": 4, "repetition_penalty": 1.3},
    {
        "num_beams": 3,
        "repetition_penalty": 0.8,
        "no_repeat_ngram": 3,
        "min_new_tokens": 4,
        "stop_tokens": [20],
    },
]
DEFAULTS = {
    "max_new_tokens": 20,
    "min_new_tokens": 0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "stop_tokens": [],
    "no_repeat_ngram": 0,
    "repetition_penalty": 1.0,
}


def numbers(seed, shape):
    """f32 numbers in -1..1, row after row; the test has the same generator."""
    values = []
    for _ in range(torch.Size(shape).numel()):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((seed >> 40) / 2**23 - 1.0)
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def build_model():
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, attn_implementation="eager")).eval()
    state = model.state_dict()
    for seed, name in enumerate(sorted(state)):
        drawn = numbers(seed, state[name].shape)
        state[name].copy_(drawn * NORM_SCALE + 1.0 if drawn.dim() == 1 else drawn * MATRIX_SCALE)
    return model


def generate(model, prompt, settings):
    end_tokens = [CONFIG["eos_token_id"], *settings["stop_tokens"]]
    begin = model.get_input_embeddings()(torch.tensor([[CONFIG["bos_token_id"]]]))
    embeddings = torch.cat([prompt.to(begin.dtype)[None], begin], dim=1)
    output = model.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
        do_sample=False,
        num_beams=settings["num_beams"],
        num_return_sequences=settings["num_beams"],
        max_new_tokens=settings["max_new_tokens"],
        min_new_tokens=settings["min_new_tokens"] or None,
        length_penalty=settings["length_penalty"],
        early_stopping=settings["early_stopping"],
        no_repeat_ngram_size=settings["no_repeat_ngram"],
        repetition_penalty=settings["repetition_penalty"],
        eos_token_id=end_tokens,
        pad_token_id=CONFIG["vocab_size"] - 1,
        output_scores=True,
        return_dict_in_generate=True,
    )
    if settings["num_beams"] == 1:
        scores = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True).mean(
            dim=1
        )
    else:
        scores = output.sequences_scores
    sequences = []
    for tokens, score in zip(output.sequences.tolist(), scores.tolist()):
        ends = [place for place, token in enumerate(tokens) if token in end_tokens]
        length = ends[0] + 1 if ends else settings["max_new_tokens"]
        sequences.append({"tokens": tokens[:length], "score": float(f"{score:.7g}")})
    return sequences


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures/parity/beam.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    model, exact_model = build_model(), build_model().double()
    prompts = [
        numbers(PROMPT_SEED + index, [length, CONFIG["hidden_size"]]).bfloat16().float()
        for index, length in enumerate(PROMPT_LENS)
    ]
    cases = []
    for changes in SETTINGS:
        settings = DEFAULTS | changes
        for index, prompt in enumerate(prompts):
            sequences = generate(model, prompt, settings)
            exact = generate(exact_model, prompt, settings)
            if [s["tokens"] for s in sequences] != [s["tokens"] for s in exact]:
                raise SystemExit(f"a near tie: f32 and f64 differ for {changes}, prompt {index}")
            cases.append({"prompt": index, "settings": settings, "sequences": sequences})
    header = {
        "made_by": "scripts/beam_fixtures.py",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "config": CONFIG,
        "matrix_scale": MATRIX_SCALE,
        "norm_scale": NORM_SCALE,
        "prompt_lens": PROMPT_LENS,
        "prompt_seed": PROMPT_SEED,
    }
    lines = ",\n".join(json.dumps(case) for case in cases)
    arguments.out.write_text(f"{json.dumps(header)[:-1]}, \"cases\": [\n{lines}\n]}}\n", encoding="utf-8")
    lengths = [len(sequence["tokens"]) for case in cases for sequence in case["sequences"]]
    print(
        f"wrote {arguments.out}: {len(cases)} cases, {len(lengths)} sequences of {min(lengths)} to "
        f"{max(lengths)} tokens"
    )


if __name__ == "__main__":
    main()
