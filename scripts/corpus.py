#!/usr/bin/env python3
"""Makes Baton's corpora from the package descriptions and the translated files of Debian or Ubuntu, and test
sets of other text. See docs/reference/corpora.md.

scripts/corpus.py translation --language it     data/en-it/{train,renamed,renamed-rest,dev,test}.jsonl
scripts/corpus.py summarization                 data/description-synopsis/{train,siblings,dev,test}.jsonl
scripts/corpus.py messages --language it        data/en-it/messages.jsonl, of programs
scripts/corpus.py manuals                       data/description-synopsis/manuals.jsonl, of manual pages
scripts/corpus.py catalogues --language pt      data/en-pt/catalogues/{pt,pt_BR}/{train,dev,test,...}.jsonl
scripts/corpus.py demo                          data/demo.jsonl, prose to translate
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from corpus.apt_lists import DescriptionLists, default_cache_directory, description_lists, unpacked_packages
from corpus.builders import summarization_rows, translation_rows
from corpus.catalogues.command import add_command as add_catalogues_command
from corpus.errors import CorpusError
from corpus.jsonl import read_rows, split_statistics, write_rows, write_text
from corpus.outside import (
    MANUAL_PACKAGES,
    MESSAGE_PACKAGES,
    PROSE_PACKAGE,
    RENDERER_PACKAGE,
    manual_rows,
    message_rows,
    prose_rows,
)
from corpus.renaming import renamed_rows
from corpus.splits import drop_leaks, more_for_train, split_rows


def main() -> int:
    arguments = parse_arguments()
    try:
        arguments.command(arguments)
    except (CorpusError, OSError) as error:
        print(f"corpus.py: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--cache", type=Path, default=default_cache_directory(), help="fetched lists [%(default)s]"
    )
    shared.add_argument("--refresh", action="store_true", help="fetch again even if cached")
    language = argparse.ArgumentParser(add_help=False)
    language.add_argument(
        "--language", default="it", help="target language, as in it, da, pt_BR [%(default)s]"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    translation = commands.add_parser(
        "translation", parents=[shared, language], help="English to another language"
    )
    translation.add_argument("--out", type=Path, help="directory [data/en-LANGUAGE]")
    translation.set_defaults(command=make_translation)

    summarization = commands.add_parser("summarization", parents=[shared], help="description to synopsis")
    summarization.add_argument(
        "--out", type=Path, default=Path("data/description-synopsis"), help="[%(default)s]"
    )
    summarization.set_defaults(command=make_summarization)

    outside = argparse.ArgumentParser(add_help=False)
    outside.add_argument(
        "--count", type=int, default=1000, help="rows, a random sample that stays the same [%(default)s]"
    )
    messages = commands.add_parser(
        "messages",
        parents=[shared, language, outside],
        help="test set: messages of programs and their translations",
    )
    messages.add_argument(
        "--corpus", type=Path, help="directory of the corpus that was trained on [data/en-LANGUAGE]"
    )
    messages.set_defaults(command=make_messages)
    manuals = commands.add_parser(
        "manuals", parents=[shared, outside], help="test set: manual pages and their one-line names"
    )
    manuals.add_argument(
        "--corpus", type=Path, default=Path("data/description-synopsis"), help="[%(default)s]"
    )
    manuals.set_defaults(command=make_manuals)

    add_catalogues_command(commands, language)
    demo = commands.add_parser("demo", parents=[shared], help="English prose to translate")
    demo.add_argument("--out", type=Path, default=Path("data/demo.jsonl"), help="[%(default)s]")
    demo.set_defaults(command=make_demo)
    return parser.parse_args()


def make_translation(arguments: argparse.Namespace) -> None:
    lists = description_lists(arguments.language, arguments.cache, arguments.refresh)
    out = arguments.out or Path(f"data/en-{arguments.language}")
    splits, dropped = split_rows(translation_rows(lists, arguments.language))
    renamed, renamed_rest = renamed_rows(splits["train"])
    splits["renamed"] = more_for_train(renamed, splits)
    splits["renamed-rest"] = more_for_train(renamed_rest, splits)
    write_corpus(out, splits, dropped, lists)


def make_summarization(arguments: argparse.Namespace) -> None:
    lists = description_lists(None, arguments.cache, arguments.refresh)
    rows, siblings = summarization_rows(lists)
    splits, dropped = split_rows(rows)
    splits["siblings"] = more_for_train(siblings, splits)
    write_corpus(arguments.out, splits, dropped, lists)


def make_messages(arguments: argparse.Namespace) -> None:
    corpus = arguments.corpus or Path(f"data/en-{arguments.language}")
    description_lists(None, arguments.cache, arguments.refresh)
    roots = unpacked_packages(MESSAGE_PACKAGES, arguments.cache).values()
    write_outside(corpus / "messages.jsonl", message_rows(roots, arguments.language), corpus, arguments.count)


def make_manuals(arguments: argparse.Namespace) -> None:
    description_lists(None, arguments.cache, arguments.refresh)
    roots = unpacked_packages((*MANUAL_PACKAGES, RENDERER_PACKAGE), arguments.cache)
    rows = manual_rows(roots.values(), roots[RENDERER_PACKAGE] / "usr/bin/mandoc")
    write_outside(arguments.corpus / "manuals.jsonl", rows, arguments.corpus, arguments.count)


def write_outside(path: Path, rows: list[dict], corpus: Path, count: int) -> None:
    """Writes a sample of the rows that share no run of six words with the corpus's train split."""
    train = corpus / "train.jsonl"
    if not train.is_file():
        raise CorpusError(
            f"{train} is not there, and what was trained on has to be kept out: make that corpus first"
        )
    kept = drop_leaks(read_rows(train), rows)
    write_rows(path, sorted(kept, key=lambda row: row["id"])[:count])
    print(
        f"{path}: {min(count, len(kept))} of {len(kept)} rows; "
        f"{len(rows) - len(kept)} more share words with {train}"
    )


def make_demo(arguments: argparse.Namespace) -> None:
    description_lists(None, arguments.cache, arguments.refresh)
    rows = prose_rows(unpacked_packages([PROSE_PACKAGE], arguments.cache)[PROSE_PACKAGE])
    write_rows(arguments.out, rows)
    print(f"{arguments.out}: {len(rows)} paragraphs, {sum(len(row['text'].split()) for row in rows)} words")


def write_corpus(
    out: Path, splits: dict[str, list[dict]], dropped: dict[str, int], lists: DescriptionLists
) -> None:
    """Writes each split, with `stats.json` beside them, and prints the counts."""
    statistics = {
        "release": {
            "origin": lists.origin,
            "codename": lists.codename,
            "version": lists.version,
            "date": lists.release_date,
        },
        "splits": {split: split_statistics(rows) for split, rows in splits.items()},
        "dropped_as_leaks": dropped,
        "sha256": {},
    }
    for split, rows_of_split in splits.items():
        path = out / f"{split}.jsonl"
        write_rows(path, rows_of_split)
        statistics["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    text = json.dumps(statistics, indent=2) + "\n"
    write_text(out / "stats.json", text)
    print(text, end="")
    print(f"wrote {out}/{{{','.join(splits)}}}.jsonl and stats.json", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
