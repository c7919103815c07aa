"""Reads and writes corpora: JSONL files, each replaced whole, and the statistics beside them."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

LENGTH_BUCKETS_WORDS = (3, 6, 12, 24, 48, 96)


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_rows(path: Path, rows: list[dict]) -> None:
    """Writes one JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict]:
    """The objects of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def split_statistics(rows: list[dict]) -> dict:
    """Counts of rows, words and lengths; a length bucket is named by its upper bound in source words."""
    lengths = [len(row["source"].split()) for row in rows]
    histogram: Counter[str] = Counter()
    for length in lengths:
        bound = next((bound for bound in LENGTH_BUCKETS_WORDS if length <= bound), None)
        histogram[f"to_{bound}" if bound else "longer"] += 1
    buckets = [f"to_{bound}" for bound in LENGTH_BUCKETS_WORDS] + ["longer"]
    return {
        "rows": len(rows),
        "source_words": sum(lengths),
        "target_words": sum(len(row["target"].split()) for row in rows),
        "kinds": dict(sorted(Counter(row["kind"] for row in rows if "kind" in row).items())),
        "rows_by_source_words": {bucket: histogram[bucket] for bucket in buckets},
    }
