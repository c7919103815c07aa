#!/usr/bin/env python3
"""Measures Baton with `baton bench` and draws docs/experiments/plots/*.svg, with the numbers beside them in
docs/experiments/plots/performance.json.

    make plots ARGS="--bundle models/en-it --input data/en-it/test.jsonl --text-field source"

Throughput against batch and against output length, a step's time by part, and whole jobs against the number
of engines a role. Every point is a median of rounds in one run on one machine; the machine and the commit
stand in the file with the numbers. Needs matplotlib.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

BATCHES = [1, 2, 4, 8, 16, 32, 64, 128]
NEW_TOKENS = [4, 8, 16, 32, 64, 128, 256]
PARTS = ["linear", "attention", "head", "norm", "rotate", "activation", "embed"]


def bench(args, *flags):
    """One `baton bench` call's JSON."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [args.baton, "bench", *flags, "--rounds", args.rounds, "--json", file.name]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return json.load(open(file.name))


def decode(args, batch, new_tokens, weights):
    flags = [
        "--config",
        args.config,
        "--batch",
        ",".join(map(str, batch)),
        "--new-tokens",
        new_tokens,
        "--weights",
        weights,
    ]
    return bench(args, "decode", *flags)


def measure(args):
    numbers = {
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
    }
    by_batch = {weights: decode(args, BATCHES, 64, weights) for weights in ("int8", "bf16")}
    numbers["machine"] = by_batch["int8"]["machine"]
    numbers["by_batch"] = {
        weights: [
            {
                "batch": result["batch"],
                "tokens_per_second": result["tokens_per_second"],
                "share_of_matmul_rate": result["share_of_matmul_rate"],
                "step_milliseconds": {part["part"]: part["milliseconds"] for part in result["step_parts"]}
                | {"selection": result["step_rest_milliseconds"]},
            }
            for result in report["results"]
        ]
        for weights, report in by_batch.items()
    }
    numbers["by_new_tokens"] = [
        {
            "new_tokens": count,
            "tokens_per_second": decode(args, [32], count, "int8")["results"][0]["tokens_per_second"],
        }
        for count in NEW_TOKENS
    ]
    if args.input:
        job = [
            "job",
            "--bundle",
            args.bundle,
            "--input",
            args.input,
            "--text-field",
            args.text_field,
            "--no-bare-loop",
        ]
        job += ["--records", args.records]
        numbers["jobs_by_engines"] = [
            {"engines": engines, **bench(args, *job, "--engines", engines)["results"][0]}
            for engines in range(1, os.cpu_count() + 1)
        ]
    return numbers


def axes(title, x, y):
    figure, plot = plt.subplots(figsize=(6.4, 3.8))
    plot.set(title=title, xlabel=x, ylabel=y)
    plot.grid(alpha=0.3)
    return figure, plot


def save(figure, directory, name):
    figure.tight_layout()
    figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def draw(numbers, directory):
    figure, plot = axes("Decoding, 64 prompt and 64 new tokens", "rows at once", "output tokens/s")
    for weights, points in numbers["by_batch"].items():
        plot.plot(
            [p["batch"] for p in points], [p["tokens_per_second"] for p in points], marker="o", label=weights
        )
    plot.set_xscale("log", base=2)
    plot.set_xticks(BATCHES, BATCHES)
    plot.set_ylim(bottom=0)
    plot.legend()
    save(figure, directory, "throughput-by-batch")

    figure, plot = axes(
        "Decoding, 32 rows, 64 prompt tokens, int8", "new tokens a row", "output tokens/s, prefill included"
    )
    points = numbers["by_new_tokens"]
    plot.plot([p["new_tokens"] for p in points], [p["tokens_per_second"] for p in points], marker="o")
    plot.set_xscale("log", base=2)
    plot.set_xticks(NEW_TOKENS, NEW_TOKENS)
    plot.set_ylim(bottom=0)
    save(figure, directory, "throughput-by-new-tokens")

    figure, plot = axes("A decode step's time by part, int8", "rows at once", "share of the step")
    points = numbers["by_batch"]["int8"]
    bottom = [0.0] * len(points)
    names = [part for part in PARTS + ["selection"] if any(p["step_milliseconds"].get(part) for p in points)]
    for part in names:
        shares = [
            p["step_milliseconds"].get(part, 0.0) / sum(p["step_milliseconds"].values()) for p in points
        ]
        plot.bar([str(p["batch"]) for p in points], shares, bottom=bottom, label=part)
        bottom = [a + b for a, b in zip(bottom, shares)]
    plot.legend(ncols=4, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18))
    save(figure, directory, "step-time-by-part")

    if jobs := numbers.get("jobs_by_engines"):
        figure, plot = axes("Whole jobs", "engines of encoder and of decoder", "records/s")
        plot.bar(
            [str(job["engines"]) for job in jobs], [job["records_per_second"] for job in jobs], width=0.5
        )
        save(figure, directory, "job-by-engines")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baton", type=Path, default=Path("target/release/baton"))
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("models/en-it/slm/config.json"),
        help="shape of the model that decodes",
    )
    parser.add_argument("--bundle", type=Path, default=Path("models/en-it"))
    parser.add_argument("--input", type=Path, help="corpus of the jobs; none: no jobs")
    parser.add_argument("--text-field", default="text")
    parser.add_argument("--records", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("docs/experiments/plots"))
    parser.add_argument("--only-draw", action="store_true", help="draw the numbers that are there")
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    path = args.directory / "performance.json"
    if not args.only_draw:
        path.write_text(json.dumps(measure(args), indent=1) + "\n")
    draw(json.loads(path.read_text()), args.directory)


if __name__ == "__main__":
    main()
