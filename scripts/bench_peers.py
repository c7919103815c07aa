#!/usr/bin/env python3
"""Runs Baton beside CTranslate2 and Hugging Face transformers: the same weights, the same prompts, in turn,
and prints ratios.

    make bench-peers
    scripts/bench_peers.py --baton target/release/baton --models opus-mt --cases 32x32x32 --rounds 9
    scripts/bench_peers.py --baton target/release/baton
        --llm ~/.cache/baton/smollm2-135m-instruct/llm --json peers.json

Models: `small` is Llama-shaped with random weights (6 layers, d 384, vocabulary 8192); `opus-mt` has the
shape of an opus-mt translator and random weights (6 and 6 layers, d 512, vocabulary 58,101); `llm` is
SmolLM2-135M.
Every system greedily writes exactly the tokens asked for. Systems take turns (A B C, A B C, ...), so that a
busy moment of the machine hits all. Shown are the median over rounds, and the median of the rounds' ratios.
CTranslate2 runs in each way it can split the threads, and its best one counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
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
OPUS_VOCABULARY, OPUS_END = 58_101, 0
PIECES = Path(__file__).resolve().parent.parent / "bundle/tests/fixtures/sentencepiece/unigram.spm"


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(f"{cpu_name()}, {arguments.threads} threads; ctranslate2 {ctranslate2.__version__}, "
          f"transformers {transformers.__version__}, torch {torch.__version__}, commit {commit()}")
    rows = []
    for name in arguments.models:
        directory = MAKERS[name](arguments.work / name) if name in MAKERS else arguments.llm
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
    parser.add_argument("--llm", type=Path, help="Hugging Face directory of the large model")
    names = ("small", "opus-mt", "llm")
    parser.add_argument("--models", nargs="+", choices=names, default=["small", "llm"])
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
    arguments = parser.parse_args()
    if "llm" in arguments.models and arguments.llm is None:
        parser.error("model llm needs --llm")
    return arguments


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


def opus_mt(directory: Path) -> Path:
    """A Marian translator with random weights in a hub's form. The two SentencePiece files are those of a
    test and only there for CTranslate2's converter."""
    if (directory / "model.safetensors").exists():
        return directory
    torch.manual_seed(1)
    pad = OPUS_VOCABULARY - 1
    config = transformers.MarianConfig(
        vocab_size=OPUS_VOCABULARY,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        activation_function="swish",
        scale_embedding=True,
        static_position_embeddings=True,
        normalize_before=False,
        max_position_embeddings=512,
        share_encoder_decoder_embeddings=True,
        eos_token_id=OPUS_END,
        forced_eos_token_id=OPUS_END,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        bad_words_ids=[[pad]],
        init_std=0.05,
    )
    transformers.MarianMTModel(config).save_pretrained(directory)
    tokens = ["</s>", "<unk>"] + [f"t{index}" for index in range(2, pad)] + ["<pad>"]
    (directory / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    for name in ("source.spm", "target.spm"):
        shutil.copy(PIECES, directory / name)
    return directory


MAKERS = {"small": small_model, "opus-mt": opus_mt}


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
        peer = ctranslate2.Translator if name == "opus-mt" else ctranslate2.Generator
        generator = peer(
            str(converted), device="cpu", compute_type="int8", inter_threads=inter, intra_threads=intra)
        file = "shared_vocabulary.json" if name == "opus-mt" else "vocabulary.json"
        words = json.loads((converted / file).read_text())
        systems[f"ctranslate2 int8 {inter}x{intra}"] = (generator, words, inter)
    if not arguments.skip_transformers:
        for kind in (torch.float32, torch.bfloat16):
            family = transformers.MarianMTModel if name == "opus-mt" else transformers.LlamaForCausalLM
            model = family.from_pretrained(directory, dtype=kind).eval()
            systems[f"transformers {'f32' if kind == torch.float32 else 'bf16'}"] = model
    return systems


def measure(name: str, directory: Path, systems: dict, case: tuple[int, int, int], arguments) -> dict:
    batch, prompt_tokens, new_tokens = case
    generator = torch.Generator().manual_seed(batch)
    body = torch.randint(3, 8000, (batch, prompt_tokens - 1), generator=generator)
    last = OPUS_END if name == "opus-mt" else LAST_PROMPT_TOKEN
    prompts = torch.cat([body, torch.full((batch, 1), last)], 1).tolist()
    # Baton feeds the last token in the first step: of a translator, the one that begins outputs.
    fed = [OPUS_VOCABULARY - 1] if name == "opus-mt" else []
    prompts_file = arguments.work / "prompts.json"
    prompts_file.write_text(json.dumps([prompt + fed for prompt in prompts]))
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
    best = max((system for system in medians if system.startswith("ctranslate2")), key=medians.get)
    ratio = lambda s: statistics.median(a / b for a, b in zip(rates[s], rates[best]))  # noqa: E731
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
            s: ratio(s) for s in medians if s.startswith("baton")
        },
        "load_average": os.getloadavg()[0],
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
    sources = [[words[token] for token in prompt] for prompt in prompts]
    if isinstance(generator, ctranslate2.Translator):
        results = generator.translate_batch(
            sources,
            beam_size=1,
            max_decoding_length=new_tokens,
            min_decoding_length=new_tokens,
            max_batch_size=-(-len(prompts) // workers),
        )
        ids = {word: index for index, word in enumerate(words)}
        return [[ids[word] for word in result.hypotheses[0]] for result in results]
    results = generator.generate_batch(
        sources,
        max_length=new_tokens,
        min_length=new_tokens,
        sampling_topk=1,
        include_prompt_in_result=False,
        max_batch_size=-(-len(prompts) // workers),
    )
    return [result.sequences_ids[0] for result in results]


def run_transformers(peer, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    ids = torch.tensor(prompts)
    if peer.config.is_encoder_decoder:
        with torch.no_grad():
            output = peer.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1,
                min_new_tokens=new_tokens, max_new_tokens=new_tokens)
        return output[:, 1:].tolist()
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
        f"tokens; load average {row['load_average']:.1f}"
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
