"""Decides which rows are held out, and keeps them unseen.

Descriptions of one source package's siblings resemble each other, so a split is drawn by source package.
Boilerplate and quotations still leak from package to package; such rows are dropped from the held-out side.
Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

SPLITS = ("train", "dev", "test")
NGRAM_LENGTH = 6
WORD = re.compile(r"\w+")


def split_of_package(source_package: str) -> str:
    """sha256 of the name, modulo 100: 0 to 3 is test, 4 and 5 dev, the rest train."""
    bucket = int(hashlib.sha256(source_package.encode()).hexdigest(), 16) % 100
    return "test" if bucket < 4 else "dev" if bucket < 6 else "train"


def home_package(source_packages: Iterable[str]) -> str:
    """The source package that a shared text counts for: one in train if any is, then dev, then the first by
    name.

    A text lands in one split only; a held-out text never describes a package in train.
    """
    return min(source_packages, key=lambda package: (SPLITS.index(split_of_package(package)), package))


def ngrams(text: str) -> Iterator[tuple[str, ...]]:
    """The word 6-grams of a text in lower case; a shorter text is one n-gram as a whole."""
    words = WORD.findall(text.lower())
    if words:
        for start in range(max(1, len(words) - NGRAM_LENGTH + 1)):
            yield tuple(words[start : start + NGRAM_LENGTH])


def drop_leaks(train: list[dict], held_out: list[dict]) -> list[dict]:
    """The held-out rows that share no word 6-gram with a train row, neither in `source` nor in `target`."""
    kept = held_out
    for side in ("source", "target"):
        # Only the held-out n-grams are kept in memory: train is many times larger.
        suspects = {ngram for row in kept for ngram in ngrams(row[side])}
        seen = {ngram for row in train for ngram in ngrams(row[side]) if ngram in suspects}
        kept = [row for row in kept if not any(ngram in seen for ngram in ngrams(row[side]))]
    return kept


def split_rows(rows: list[dict]) -> tuple[dict[str, list[dict]], dict[str, int]]:
    """Rows by split of their `package`, in order of `id`, and how many leaking rows were dropped from dev and
    test."""
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for row in sorted(rows, key=lambda row: row["id"]):
        splits[split_of_package(row["package"])].append(row)
    dropped = {}
    for split in ("dev", "test"):
        kept = drop_leaks(splits["train"], splits[split])
        dropped[split] = len(splits[split]) - len(kept)
        splits[split] = kept
    return splits, dropped


def more_for_train(rows: list[dict], splits: dict[str, list[dict]]) -> list[dict]:
    """The rows of packages in train that share no word 6-gram with dev or test, in order of `id`; held-out
    rows stay unchanged."""
    of_train = sorted(
        (row for row in rows if split_of_package(row["package"]) == "train"), key=lambda row: row["id"]
    )
    return drop_leaks(splits["dev"] + splits["test"], of_train)
