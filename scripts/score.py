#!/usr/bin/env python3
"""Scores a job's outputs against references: BLEU and chrF, and what went wrong in ways a score hides.

    scripts/score.py --outputs out --references data/en-it/test.jsonl --source-field source --samples 5
    scripts/score.py --outputs out --references data/demo.reference.jsonl --reference-field text

A reference without an output is scored as an empty output, so that a job cannot gain by failing.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

MAX_LOOP_NGRAM = 8
LOOP_REPEATS = 4
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")


class ScoreError(Exception):
    """Says in one line what failed and what to do next."""


@dataclass(frozen=True)
class Scored:
    """One reference with the output that was given for it, empty if there was none."""

    id: str
    output: str
    reference: str
    source: str | None


def main() -> int:
    arguments = parse_arguments()
    try:
        report(arguments)
    except (ScoreError, OSError) as error:
        print(f"score.py: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--outputs", type=Path, required=True, help="job directory with part-*.jsonl, or one file"
    )
    parser.add_argument("--references", type=Path, required=True, help="JSONL file")
    parser.add_argument("--id-field", default="id", help="joins outputs and references [%(default)s]")
    parser.add_argument("--output-field", default="output", help="[%(default)s]")
    parser.add_argument("--reference-field", default="target", help="[%(default)s]")
    parser.add_argument(
        "--source-field", help="source text in the reference file; counts untranslated outputs"
    )
    parser.add_argument(
        "--baseline", choices=("source", "lead"), help="also score the source, or its first sentence"
    )
    parser.add_argument("--rouge", action="store_true", help="ROUGE-1, -2 and -L too, for summarization")
    parser.add_argument("--skip-missing", action="store_true", help="leave out references without an output")
    parser.add_argument("--samples", type=int, default=0, help="print this many random pairs [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of the samples [%(default)s]")
    arguments = parser.parse_args()
    if arguments.baseline and not arguments.source_field:
        parser.error("--baseline needs --source-field")
    return arguments


def report(arguments: argparse.Namespace) -> None:
    outputs = read_fields(output_files(arguments.outputs), arguments.id_field, [arguments.output_field])
    reference_fields = [arguments.reference_field] + (
        [arguments.source_field] if arguments.source_field else []
    )
    references = read_fields([arguments.references], arguments.id_field, reference_fields)
    missing = references.keys() - outputs.keys()
    scored = [
        Scored(id, outputs.get(id, [""])[0], fields[0], fields[1] if arguments.source_field else None)
        for id, fields in references.items()
        if not (arguments.skip_missing and id in missing)
    ]
    if len(missing) == len(references):
        raise ScoreError(
            f"{arguments.outputs} and {arguments.references} share no {arguments.id_field}: same corpus?"
        )

    treated = "left out" if arguments.skip_missing else "scored as empty"
    print(f"references    {len(references)}")
    print(f"no output     {len(missing)} ({treated})")
    print(f"no reference  {len(outputs.keys() - references.keys())} (ignored)")
    print(f"empty         {sum(not row.output.strip() for row in scored if row.id in outputs)}")
    print(f"looping       {sum(is_looping(row.output) for row in scored)}")
    if arguments.source_field:
        print(f"untranslated  {sum(is_untranslated(row) for row in scored)}")
    print_scores("output", [row.output for row in scored], scored, arguments.rouge)
    if arguments.baseline == "source":
        print_scores("source", [row.source or "" for row in scored], scored, arguments.rouge)
    if arguments.baseline == "lead":
        print_scores("lead", [lead_sentence(row.source or "") for row in scored], scored, arguments.rouge)
    for row in random.Random(arguments.seed).sample(scored, min(arguments.samples, len(scored))):
        print(f"\n{row.id}")
        if row.source is not None:
            print(f"  source     {row.source}")
        print(f"  output     {row.output}\n  reference  {row.reference}")


def output_files(outputs: Path) -> list[Path]:
    """The part files of a job's directory, in order, or the one file that was named."""
    if not outputs.is_dir():
        return [outputs]
    parts = sorted(outputs.glob("part-*.jsonl"))
    if not parts:
        raise ScoreError(f"no part-*.jsonl in {outputs}: name the output directory of a finished job")
    return parts


def read_fields(paths: list[Path], id_field: str, fields: list[str]) -> dict[str, list[str]]:
    """Rows of JSONL files by id, each as the texts of `fields`; a broken row is an error that names its
    line."""
    rows: dict[str, list[str]] = {}
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                place = f"{path}:{number}"
                try:
                    row = json.loads(line)
                    id, texts = str(row[id_field]), [str(row[field]) for field in fields]
                except ValueError as error:
                    raise ScoreError(f"{place}: not JSON: {error}") from error
                except (KeyError, TypeError) as error:
                    raise ScoreError(f"{place}: no field {error}: name it with --*-field") from error
                if id in rows:
                    raise ScoreError(f"{place}: {id_field} {id} appears twice")
                rows[id] = texts
    return rows


def print_scores(name: str, outputs: list[str], scored: list[Scored], rouge: bool) -> None:
    """Prints corpus BLEU and chrF with their signatures, and mean ROUGE F1 if asked, all from 0 to 100."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ScoreError("sacrebleu is not installed: python3 -m pip install sacrebleu") from error
    references = [row.reference for row in scored]
    for metric in (BLEU(), CHRF()):
        score = metric.corpus_score(outputs, [references])
        print(f"{name:<12}  {score.name} {score.score:.2f}  {metric.get_signature()}")
    if rouge:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError as error:
            raise ScoreError("rouge-score is not installed: python3 -m pip install rouge-score") from error
        kinds = ["rouge1", "rouge2", "rougeL"]
        scorer = RougeScorer(kinds, use_stemmer=True)
        results = [scorer.score(reference, output) for reference, output in zip(references, outputs)]
        for kind in kinds:
            mean = 100 * sum(result[kind].fmeasure for result in results) / len(results)
            print(f"{name:<12}  {kind} {mean:.2f}  F1, stemmed, mean over rows")


def is_looping(text: str) -> bool:
    """Whether some run of 1 to 8 words is repeated at least 4 times in a row."""
    words = text.split()
    for length in range(1, MAX_LOOP_NGRAM + 1):
        # A block of `length` words occurs k times in a row if each word equals the one `length` before it, (k
        # - 1) * length times in succession.
        matches = 0
        for position in range(length, len(words)):
            matches = matches + 1 if words[position] == words[position - length] else 0
            if matches == (LOOP_REPEATS - 1) * length:
                return True
    return False


def is_untranslated(row: Scored) -> bool:
    """Whether an output that should differ equals its source but for case and white space."""
    output, source, reference = (
        " ".join(text.casefold().split()) for text in (row.output, row.source or "", row.reference)
    )
    return bool(output) and output == source and reference != source


def lead_sentence(text: str) -> str:
    """The first sentence, up to a stop mark before white space, or to the end of the line."""
    return SENTENCE_END.split(text.strip(), maxsplit=1)[0]


if __name__ == "__main__":
    sys.exit(main())
