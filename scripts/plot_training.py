#!/usr/bin/env python3
"""Draws the validation losses of training runs from their logs, with the numbers beside the plot as JSON.

    scripts/plot_training.py "hybrid=data/runs/en-it" "llm=data/runs/en-it-llm"
        --plot docs/experiments/plots/en-it-training.svg

The loss is in nats a byte of the text that should be written, so runs in different tokens can be compared;
the horizontal axis is tokens of prompts and responses. Needs matplotlib.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def curve(run):
    """A run's validations, in order: `step`, `tokens` (at most, of prompts and responses),
    `loss_per_byte`."""
    tokens_per_step = json.loads((run / "train.json").read_text())["hyperparameters"]["batch_tokens"]
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [
        {
            "step": event["step"],
            "tokens": event["step"] * tokens_per_step,
            "loss_per_byte": event["loss_per_byte"],
        }
        for event in events
        if event["event"] == "validation"
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", metavar="NAME=RUN", help="name in the legend, and directory of the run"
    )
    parser.add_argument("--plot", type=Path, required=True, help="SVG; the numbers go beside it, as .json")
    args = parser.parse_args()
    curves = {name: curve(Path(run)) for name, _, run in (run.partition("=") for run in args.runs)}
    figure, plot = plt.subplots(figsize=(6.4, 3.8))
    for name, points in curves.items():
        plot.plot(
            [p["tokens"] / 1e6 for p in points],
            [p["loss_per_byte"] for p in points],
            marker="o",
            markersize=3,
            label=name,
        )
    plot.set(xlabel="million tokens of training", ylabel="validation loss, nats a byte")
    plot.set_ylim(bottom=0)
    plot.grid(alpha=0.3)
    plot.legend(ncols=2, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18))
    figure.tight_layout()
    figure.savefig(args.plot, metadata={"Date": None})
    args.plot.with_suffix(".json").write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    main()
