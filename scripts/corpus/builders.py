"""Turns description lists into rows: translation pairs, and description-synopsis pairs.

Owns the rules of a good pair. Rows have a stable `id`: a hash of their source text, so it survives a new
release.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from corpus.apt_lists import DescriptionLists
from corpus.descriptions import (
    aligned_paragraphs,
    body_text,
    descriptions_by_md5,
    read_stanzas,
    sources_by_md5,
    synopsis,
)
from corpus.splits import WORD, home_package

MAX_LENGTH_RATIO = 3.0
LENGTH_SLACK_BYTES = 12
MIN_BODY_WORDS, MAX_BODY_WORDS = 25, 250


def stanzas(paths: list[Path]):
    for path in paths:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            yield from read_stanzas(lines)


def is_translation(source: str, target: str) -> bool:
    """Whether a pair has letters on both sides, differs in its words, and has lengths that fit each other."""
    if not any(map(str.isalpha, source)) or not any(map(str.isalpha, target)):
        return False
    if WORD.findall(source.casefold()) == WORD.findall(target.casefold()):
        return False
    # Bytes compare better across scripts than characters: Chinese has a third of the characters, each of
    # three bytes.
    shorter, longer = sorted((len(source.encode()), len(target.encode())))
    return longer <= MAX_LENGTH_RATIO * shorter + LENGTH_SLACK_BYTES


def translation_rows(lists: DescriptionLists, language: str) -> list[dict]:
    """One row for each distinct English text: `id`, `source`, `target`, `package`, `kind`.

    A text that has several translations keeps the most frequent one.
    """
    packages = sources_by_md5(stanzas(lists.packages))
    english = descriptions_by_md5(stanzas(lists.english), "en")
    translated = descriptions_by_md5(stanzas(lists.translated), language)
    return pair_rows(packages, english, translated)


def pair_rows(
    packages: dict[str, dict[str, str]], english: dict[str, str], translated: dict[str, str]
) -> list[dict]:
    """Joins descriptions on the md5 of the English original; see `translation_rows`."""
    targets: dict[str, Counter] = {}
    kinds: dict[str, str] = {}
    homes: dict[str, set[str]] = {}
    for md5 in sorted(english.keys() & translated.keys() & packages.keys()):
        pairs = [("short", synopsis(english[md5]), synopsis(translated[md5]))]
        pairs += [("paragraph", *pair) for pair in aligned_paragraphs(english[md5], translated[md5])]
        for kind, source, target in pairs:
            if is_translation(source, target):
                targets.setdefault(source, Counter())[target] += 1
                kinds.setdefault(source, kind)
                homes.setdefault(source, set()).update(packages[md5].values())
    rows = []
    for source, counts in targets.items():
        target = min(counts, key=lambda text: (-counts[text], text))
        package = home_package(homes[source])
        row = {
            "id": text_id(source),
            "source": source,
            "target": target,
            "package": package,
            "kind": kinds[source],
        }
        rows.append(row)
    return rows


def summarization_rows(lists: DescriptionLists) -> tuple[list[dict], list[dict]]:
    """Description bodies -> synopses: one row for each source package, and rows of their other binary
    packages."""
    packages = sources_by_md5(stanzas(lists.packages))
    english = descriptions_by_md5(stanzas(lists.english), "en")
    rows = synopsis_rows(packages, english)
    return rows, sibling_rows(packages, english, rows)


def synopsis_rows(packages: dict[str, dict[str, str]], english: dict[str, str]) -> list[dict]:
    """The binary with its source package's name represents it, else the one with the shortest name."""
    candidates: dict[str, tuple[tuple, str]] = {}
    for md5 in english.keys() & packages.keys():
        for binary, source in packages[md5].items():
            rank = (binary != source, len(binary), binary, md5)
            if source not in candidates or rank < candidates[source][0]:
                candidates[source] = (rank, md5)
    return body_rows([(md5, {package}) for package, (_, md5) in sorted(candidates.items())], english)


def sibling_rows(
    packages: dict[str, dict[str, str]], english: dict[str, str], rows: list[dict]
) -> list[dict]:
    """One row for each distinct body of any binary package that `rows`, those of `synopsis_rows`, lack."""
    spoken_for = {row["id"] for row in rows}
    shared = sorted((md5, set(packages[md5].values())) for md5 in english.keys() & packages.keys())
    return [row for row in body_rows(shared, english) if row["id"] not in spoken_for]


def body_rows(descriptions: list[tuple[str, set[str]]], english: dict[str, str]) -> list[dict]:
    """Rows of descriptions, by md5 and source packages; of equal bodies, the first one's synopsis is kept."""
    rows: dict[str, dict] = {}
    homes: dict[str, set[str]] = {}
    for md5, sources in descriptions:
        body = body_text(english[md5])
        if MIN_BODY_WORDS <= len(body.split()) <= MAX_BODY_WORDS and synopsis(english[md5]):
            homes.setdefault(body, set()).update(sources)
            rows.setdefault(body, {"id": text_id(body), "source": body, "target": synopsis(english[md5])})
    return [{**row, "package": home_package(homes[body])} for body, row in rows.items()]


def text_id(text: str) -> str:
    """16 hexadecimal digits of the text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
