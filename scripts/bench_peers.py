#!/usr/bin/env python3
"""Runs Baton beside CTranslate2 and Hugging Face transformers: the same weights, the same prompts, in turn,
and prints ratios.

    make bench-peers
    scripts/bench_peers.py --baton target/release/baton
        --llm ~/.cache/baton/smollm2-135m-instruct/llm --json peers.json

Models: `small` is Llama-shaped with random weights (6 layers, d 384, vocabulary 8192); `llm` is SmolLM2-135M.
Every system greedily writes exactly the tokens asked for. Systems take turns (A B C, A B C, ...), so that a
busy moment of the machine hits all; the median over rounds is shown. CTranslate2 runs in each way it can
split the threads, and its best one counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ctranslate2  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

LAST_PROMPT_TOKEN = 1


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(f"{cpu_name()}, {arguments.threads} threads; ctranslate2 {ctranslate2.__version__}, "
          f"transformers {transformers.__version__}, torch {torch.__version__}, commit {commit()}")
    rows = []
    for name in arguments.models:
        directory = small_model(arguments.work / "small") if name == "small" else arguments.llm
        systems = load_systems(name, directory, arguments)
        for batch, prompt_tokens, new_tokens in arguments.cases:
            rows.append(measure(name, directory, systems, (batch, prompt_tokens, new_tokens), arguments))
            show(rows[-1])
    if arguments.json:
        report = {
            "cpu": cpu_name(),
            "threads": arguments.threads,
            "commit": commit(),
            "platform": platform.platform(),
            "versions": {
                "ctranslate2": ctranslate2.__version__,
                "transformers": transformers.__version__,
                "torch": torch.__version__,
            },
            "unix_time": int(time.time()),
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    case = lambda text: tuple(int(part) for part in text.split("x"))  # noqa: E731
    parser.add_argument("--baton", type=Path, default=Path("target/release/baton"), help="[%(default)s]")
    parser.add_argument("--llm", type=Path, required=True, help="Hugging Face directory of the large model")
    parser.add_argument("--models", nargs="+", choices=("small", "llm"), default=["small", "llm"])
    parser.add_argument("--cases", nargs="+", type=case, default=[(1, 64, 64), (32, 64, 64), (128, 64, 64)],
                        help="BATCHxPROMPT_TOKENSxNEW_TOKENS, for example 32x64x64")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for every system [%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--weights", nargs="+", default=["int8", "bf16"], help="of Baton [%(default)s]")
    parser.add_argument("--skip-transformers", action="store_true", help="it is slow at large batches")
    parser.add_argument(
        "--work", type=Path, default=Path("data/bench"), help="for converted models [%(default)s]"
    )
    parser.add_argument("--json", type=Path, help="writes all numbers")
    return parser.parse_args()


def small_model(directory: Path) -> Path:
    """A Llama with random weights in the Hugging Face layout, with a tokenizer that only CTranslate2's
    converter looks at."""
    if (directory / "model.safetensors").exists():
        return directory
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        rms_norm_eps=1e-5,
        initializer_range=0.05,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>"])}
    vocabulary |= {f"t{index}": index for index in range(3, 8192)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(directory)
    return directory


def load_systems(name: str, directory: Path, arguments: argparse.Namespace) -> dict:
    systems = {f"baton {weights}": None for weights in arguments.weights}
    converted = arguments.work / f"{name}-ct2-int8"
    if not (converted / "model.bin").exists():
        source = directory
        if not (directory / "tokenizer_config.json").exists():  # the converter wants one
            source = arguments.work / f"{name}-with-tokenizer"
            source.mkdir(exist_ok=True)
            for file in ("config.json", "model.safetensors"):
                if not (source / file).exists():
                    (source / file).symlink_to((directory / file).resolve())
            transformers.PreTrainedTokenizerFast(
                tokenizer_file=str(directory / "tokenizer.json"),
                bos_token="<|im_start|>",
                eos_token="<|im_end|>",
                unk_token="<|endoftext|>",
            ).save_pretrained(source)
        ctranslate2.converters.TransformersConverter(str(source)).convert(
            str(converted), quantization="int8", force=True
        )
    for inter in {1, arguments.threads}:
        intra = arguments.threads // inter
        generator = ctranslate2.Generator(
            str(converted), device="cpu", compute_type="int8", inter_threads=inter, intra_threads=intra)
        words = json.loads((converted / "vocabulary.json").read_text())
        systems[f"ctranslate2 int8 {inter}x{intra}"] = (generator, words, inter)
    if not arguments.skip_transformers:
        for kind in (torch.float32, torch.bfloat16):
            model = transformers.LlamaForCausalLM.from_pretrained(directory, dtype=kind).eval()
            systems[f"transformers {'f32' if kind == torch.float32 else 'bf16'}"] = model
    return systems


def measure(name: str, directory: Path, systems: dict, case: tuple[int, int, int], arguments) -> dict:
    batch, prompt_tokens, new_tokens = case
    generator = torch.Generator().manual_seed(batch)
    body = torch.randint(3, 8000, (batch, prompt_tokens - 1), generator=generator)
    prompts = torch.cat([body, torch.full((batch, 1), LAST_PROMPT_TOKEN)], 1).tolist()
    prompts_file = arguments.work / "prompts.json"
    prompts_file.write_text(json.dumps(prompts))
    rates: dict[str, list[float]] = {system: [] for system in systems}
    tokens: dict[str, list] = {}
    for round_index in range(arguments.rounds + 1):  # the first warms up
        for system, peer in systems.items():
            if system.startswith("baton"):
                rate, tokens[system] = run_baton(system, directory, prompts_file, new_tokens, arguments)
            else:
                run = run_ctranslate2 if system.startswith("ctranslate2") else run_transformers
                started = time.perf_counter()
                tokens[system] = run(peer, prompts, new_tokens)
                rate = batch * new_tokens / (time.perf_counter() - started)
            if round_index > 0:
                rates[system].append(rate)
    medians = {system: statistics.median(values) for system, values in rates.items()}
    best_ctranslate2 = max(rate for system, rate in medians.items() if system.startswith("ctranslate2"))
    equal = {}
    if "transformers f32" in tokens:
        _, exact = run_baton("baton f32", directory, prompts_file, new_tokens, arguments)
        equal["baton f32 and transformers f32"] = share_of_equal_rows(exact, tokens["transformers f32"])
    return {
        "model": name,
        "batch": batch,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "tokens_per_second": medians,
        "all_rounds": rates,
        "ratio_to_ctranslate2_int8": {
            s: medians[s] / best_ctranslate2 for s in medians if s.startswith("baton")
        },
        "rows_with_equal_tokens": equal,
    }


def run_baton(system: str, directory: Path, prompts: Path, new_tokens: int, arguments) -> tuple[float, list]:
    report, tokens = arguments.work / "baton.json", arguments.work / "tokens.json"
    command = [
        arguments.baton,
        "bench",
        "decode",
        "--model",
        directory,
        "--prompts",
        prompts,
        "--new-tokens",
        str(new_tokens),
        "--weights",
        system.split()[1],
        "--engines",
        str(arguments.threads),
        "--rounds",
        "1",
        "--json",
        report,
        "--write-tokens",
        tokens,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(report.read_text())["results"][0]["tokens_per_second"], json.loads(tokens.read_text())


def run_ctranslate2(peer, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    generator, words, workers = peer
    results = generator.generate_batch(
        [[words[token] for token in prompt] for prompt in prompts],
        max_length=new_tokens,
        min_length=new_tokens,
        sampling_topk=1,
        include_prompt_in_result=False,
        max_batch_size=-(-len(prompts) // workers),
    )
    return [result.sequences_ids[0] for result in results]


def run_transformers(peer, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    ids = torch.tensor(prompts)
    with torch.no_grad():
        output = peer.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=new_tokens,
            max_new_tokens=new_tokens, pad_token_id=0)
    return output[:, ids.shape[1]:].tolist()


def share_of_equal_rows(a: list, b: list) -> float:
    return sum(x == y for x, y in zip(a, b)) / len(a)


def show(row: dict) -> None:
    print(
        f"\n{row['model']}, batch {row['batch']}, {row['prompt_tokens']} prompt and {row['new_tokens']} new "
        "tokens"
    )
    for system, rate in row["tokens_per_second"].items():
        ratio = row["ratio_to_ctranslate2_int8"].get(system)
        print(f"  {system:24} {rate:8.0f} tokens/s" + (f"   {ratio:.2f}x CTranslate2 int8" if ratio else ""))
    for pair, share in row["rows_with_equal_tokens"].items():
        print(f"  equal tokens, {pair}: {share:.1%} of rows", flush=True)


def cpu_name() -> str:
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
