"""Makes a corpus of the segments of many files: one row for a text, whole packages held out, documents of
several sentences. Pure.

Rows have `id`, `source`, `target`, `variant` (the locale), `kind` and `placeholders`. `package` is the source
package, `origin` the package with the file, `document` its path. `paragraph` and `number` are places in the
document, from 0.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator

from corpus.builders import text_id
from corpus.catalogues.pairs import Segment
from corpus.splits import NGRAM_LENGTH, WORD, ngrams

KINDS = ("appstream", "documentation", "game", "interface", "manual")
# The held-out shares of each kind; a package with more than the last share of its kind is for training.
TEST_SHARE, DEV_SHARE, MAX_PACKAGE_SHARE = 0.04, 0.02, 0.03
MIN_SENTENCES, MAX_SENTENCES, MAX_WORDS = 2, 8, 160
# The minimum length of a document's segments, in words: shorter ones are tables and menus.
MIN_MEAN_WORDS = 5


def kind_of(format: str, section: str) -> str:
    """The kind of a file's text, from its format and its package's section."""
    if format == "roff":
        return "manual"
    if format == "markup":
        return "documentation"
    return "game" if section.rpartition("/")[2] == "games" else "interface"


def segment_rows(segments: Iterable[Segment], place: dict) -> Iterator[dict]:
    """One row for each segment of a document; `place` gives `variant`, `kind`, `package`, `origin`,
    `document`, `is_ordered`.
    """
    for segment in segments:
        yield {
            "id": text_id(f"{place['variant']}\n{segment.source}"),
            "source": segment.source,
            "target": segment.target,
            **place,
            "paragraph": segment.paragraph,
            "number": segment.number,
            "placeholders": list(segment.placeholders),
        }


def unique_rows(rows: Iterable[dict]) -> list[dict]:
    """One row for each source text of a variant, at the first place of its most frequent translation."""
    targets: dict[str, Counter[str]] = defaultdict(Counter)
    first: dict[tuple[str, str], dict] = {}
    for row in rows:
        targets[row["id"]][row["target"]] += 1
        first.setdefault((row["id"], row["target"]), row)
    return [first[id, max(counts, key=lambda text: (counts[text], text))] for id, counts in targets.items()]


def held_out_packages(rows: Collection[dict]) -> dict[str, str]:
    """The packages in dev and test: in the order of their names' hashes, until each kind has its share. The
    choice is deterministic.
    """
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        sizes[row["package"]][row["kind"]] += 1
    totals: Counter[str] = Counter()
    for counts in sizes.values():
        totals.update(counts)
    splits: dict[str, str] = {}
    held: dict[str, Counter[str]] = {"test": Counter(), "dev": Counter()}
    for package in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        counts = sizes[package]
        kind = max(counts, key=lambda name: (counts[name] / totals[name], name))
        if any(count > MAX_PACKAGE_SHARE * totals[name] for name, count in counts.items()):
            continue
        for split, share in (("test", TEST_SHARE), ("dev", DEV_SHARE)):
            if held[split][kind] < share * totals[kind]:
                splits[package] = split
                held[split].update(counts)
                break
    return splits


def split_corpus(rows: list[dict], tests: Iterable[dict]) -> tuple[dict[str, list[dict]], dict[str, int]]:
    """Train, dev and test, and how many rows each step dropped.

    A short text that train has too is dropped from dev and test. A row of train is dropped if it shares a run
    of six words with dev, test or one of `tests`. Rows of dev and test are dropped if they share one with
    each other.
    """
    packages = held_out_packages(rows)
    splits: dict[str, list[dict]] = {"train": [], "dev": [], "test": []}
    for row in rows:
        splits[packages.get(row["package"], "train")].append(row)
    dropped: dict[str, int] = {}
    common = {tuple(words) for row in splits["train"] if len(words := words_of(row["source"])) < NGRAM_LENGTH}
    for split in ("dev", "test"):
        kept = [row for row in splits[split] if tuple(words_of(row["source"])) not in common]
        dropped[f"{split}_short_texts_of_train"] = len(splits[split]) - len(kept)
        splits[split] = kept
    for name, split, others in (
        ("dev_shares_with_test", "dev", splits["test"]),
        ("train_shares_with_held_out", "train", splits["dev"] + splits["test"]),
        ("train_shares_with_other_tests", "train", tests),
    ):
        kept = without_shared(splits[split], others)
        dropped[name] = len(splits[split]) - len(kept)
        splits[split] = kept
    return splits, dropped


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


def without_shared(rows: list[dict], others: Iterable[dict]) -> list[dict]:
    """The rows that share no run of six words with `others`, a shorter text as a whole, on either side."""
    seen: dict[str, set] = {"source": set(), "target": set()}
    for other in others:
        for side, held in seen.items():
            held.update(ngrams(other[side]))
    return [
        row
        for row in rows
        if not any(ngram in held for side, held in seen.items() for ngram in ngrams(row[side]))
    ]


def document_rows(rows: Iterable[dict]) -> Iterator[dict]:
    """Records of several sentences that follow each other in one document: `sentences` are the pairs that
    form them.

    A blank joins the sentences of a paragraph, a line end joins paragraphs. A record ends where a segment was
    dropped. A catalogue has no order, so only the sentences of one message follow each other there.
    """
    run: list[dict] = []
    for row in rows:
        if run and not (follows(run[-1], row) and fits(run, row)):
            yield from record(run)
            run = []
        run.append(row)
    yield from record(run)


def follows(before: dict, row: dict) -> bool:
    if any(before[name] != row[name] for name in ("origin", "document", "variant")):
        return False
    if row["paragraph"] == before["paragraph"]:
        return row["number"] == before["number"] + 1
    return row["is_ordered"] and row["paragraph"] == before["paragraph"] + 1 and row["number"] == 0


def fits(run: list[dict], row: dict) -> bool:
    words = sum(len(other["source"].split()) for other in run) + len(row["source"].split())
    return len(run) < MAX_SENTENCES and words <= MAX_WORDS


def record(run: list[dict]) -> Iterator[dict]:
    if len(run) < MIN_SENTENCES or sum(len(row["source"].split()) for row in run) < MIN_MEAN_WORDS * len(run):
        return
    texts = {}
    for side in ("source", "target"):
        text = run[0][side]
        for before, row in zip(run, run[1:]):
            text += (" " if before["paragraph"] == row["paragraph"] else "\n") + row[side]
        texts[side] = text
    first = run[0]
    yield {
        "id": text_id(f"{first['variant']}\n{texts['source']}"),
        **texts,
        **{name: first[name] for name in ("variant", "kind", "package", "origin", "document", "paragraph")},
        "sentences": [[row["source"], row["target"]] for row in run],
    }
