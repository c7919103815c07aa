"""The command `catalogues`: its options, and its output. See docs/reference/corpora.md."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

from corpus.apt_lists import default_cache_directory, description_lists
from corpus.builders import translation_rows
from corpus.catalogues.archive import Archive, open_archive
from corpus.catalogues.build import catalogue_rows, chosen_offers
from corpus.catalogues.corpus import document_rows, split_corpus, unique_rows, without_shared
from corpus.catalogues.glue import without_run_together
from corpus.errors import CorpusError
from corpus.jsonl import read_rows, split_statistics, write_rows, write_text
from corpus.splits import SPLITS, split_rows

# Sections of the archive whose texts are read by anyone: stories, rules, lessons, the sky.
GENERAL_SECTIONS = ("games", "education", "science")
MIN_GENERAL_WORDS, MAX_GENERAL_WORDS = 6, 60


def add_command(commands: argparse._SubParsersAction, language: argparse.ArgumentParser) -> None:
    catalogues = commands.add_parser(
        "catalogues",
        parents=[language],
        help="message catalogues, help, handbooks, manual pages of many packages",
    )
    catalogues.add_argument(
        "--megabytes", type=float, default=100, help="packages to fetch at most, in all [%(default)g]"
    )
    catalogues.add_argument("--out", type=Path, help="directory [data/en-LANGUAGE/catalogues]")
    cache = default_cache_directory().with_name("debian-catalogues")
    catalogues.add_argument(
        "--cache", type=Path, default=cache, help="fetched indexes and files [%(default)s]"
    )
    catalogues.add_argument("--refresh", action="store_true", help="fetch the indexes again even if cached")
    catalogues.add_argument(
        "--against",
        type=Path,
        nargs="*",
        default=[],
        metavar="JSONL",
        help="more test sets to keep out of train",
    )
    catalogues.set_defaults(command=make_catalogues)


def make_catalogues(arguments: argparse.Namespace) -> None:
    out = arguments.out or Path(f"data/en-{arguments.language}/catalogues")
    archive = open_archive(arguments.cache, arguments.refresh)
    taken = chosen_offers(archive, arguments.language, arguments.megabytes)
    fetched = {name for offer in taken for name in offer.packages}
    rows = without_run_together(list(catalogue_rows(archive, arguments.language, taken)))
    if not rows:
        raise CorpusError(
            f"no package has text in {arguments.language}: try another --language or more --megabytes"
        )
    variants = sorted({row["variant"] for row in rows})
    tests = [row for path in arguments.against for row in read_rows(path)]
    tests += [row for variant in variants for row in held_out_descriptions(variant)]
    splits, dropped = split_corpus(unique_rows(rows), tests)
    documents = split_documents(rows, splits, tests)
    statistics = {
        "release": archive.release,
        "megabytes": round(sum(archive.packages[name].size for name in fetched) / 1e6, 1),
        "packages": sorted(fetched),
        "held_out": {split: sorted({row["package"] for row in splits[split]}) for split in ("dev", "test")},
        "dropped": dropped,
        "variants": {},
        "sha256": {},
    }
    for variant in variants:
        files = {split: of_variant(splits[split], variant) for split in SPLITS}
        files |= {f"{split}-documents": of_variant(documents[split], variant) for split in SPLITS}
        files["general"] = general_rows(archive, files["train"])
        statistics["variants"][variant] = {name: row_statistics(of_file) for name, of_file in files.items()}
        for name, of_file in files.items():
            path = out / variant / f"{name}.jsonl"
            write_rows(path, of_file)
            statistics["sha256"][f"{variant}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_text(out / "stats.json", json.dumps(statistics, indent=2) + "\n")
    for variant, counts in statistics["variants"].items():
        print(f"{variant}: " + ", ".join(f"{count['rows']} {name}" for name, count in counts.items()))
    print(f"wrote {out}/{{{','.join(variants)}}}/ and stats.json", file=sys.stderr)


def held_out_descriptions(variant: str) -> list[dict]:
    """The dev and test rows of the package descriptions in that language; none if it has no descriptions."""
    try:
        lists = description_lists(variant, default_cache_directory())
    except CorpusError as error:
        print(f"no package descriptions to keep out for {variant}: {error}", file=sys.stderr)
        return []
    splits, _ = split_rows(translation_rows(lists, variant))
    return splits["dev"] + splits["test"]


def split_documents(
    rows: list[dict], splits: dict[str, list[dict]], tests: list[dict]
) -> dict[str, list[dict]]:
    """The documents of each split's packages, once each; those of train share no run of six words with the
    held-out ones.
    """
    held = {row["package"]: split for split in ("dev", "test") for row in splits[split]}
    documents: dict[str, dict[str, dict]] = {split: {} for split in SPLITS}
    for document in document_rows(rows):
        documents[held.get(document["package"], "train")].setdefault(document["id"], document)
    found = {split: list(of_split.values()) for split, of_split in documents.items()}
    found["dev"] = without_shared(found["dev"], found["test"])
    found["train"] = without_shared(
        found["train"], [*found["dev"], *found["test"], *splits["dev"], *splits["test"], *tests]
    )
    return found


def of_variant(rows: list[dict], variant: str) -> list[dict]:
    return [row for row in rows if row["variant"] == variant]


def general_rows(archive: Archive, train: list[dict]) -> list[dict]:
    """The sentences of train without placeholders, from packages whose section is of general interest."""
    return [
        row
        for row in train
        if not row["placeholders"]
        and archive.packages[row["origin"]].section.rpartition("/")[2] in GENERAL_SECTIONS
        and MIN_GENERAL_WORDS <= len(row["source"].split()) <= MAX_GENERAL_WORDS
    ]


def row_statistics(rows: list[dict]) -> dict:
    """The counts of a file, with how many rows have placeholders and how many sentences documents have."""
    statistics = split_statistics(rows)
    statistics["rows_with_placeholders"] = sum(bool(row.get("placeholders")) for row in rows)
    statistics["packages"] = len({row["package"] for row in rows})
    sentences = Counter(len(row["sentences"]) for row in rows if "sentences" in row)
    if sentences:
        statistics["rows_by_sentences"] = {str(count): sentences[count] for count in sorted(sentences)}
    return statistics
