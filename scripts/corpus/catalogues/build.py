"""Runs one build of the catalogues' corpus: chooses packages, reads their files, and gathers the rows of all.
The thin shell.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from corpus.catalogues.appstream import component_texts, components
from corpus.catalogues.archive import Archive, index_lines, language_files, package_files
from corpus.catalogues.choice import Offer, chosen, offers
from corpus.catalogues.corpus import kind_of, segment_rows
from corpus.catalogues.messages import MalformedFile
from corpus.catalogues.pairs import ORDERED_FORMATS, file_segments, text_segments
from corpus.catalogues.paths import locale_pattern, variant_of
from corpus.outside import MESSAGE_PACKAGES


def report(text: str) -> None:
    print(text, file=sys.stderr)


def chosen_offers(archive: Archive, language: str, megabytes: float) -> list[Offer]:
    """The files that the megabytes buy, never from packages whose messages are a test set."""
    files, owners, counts = language_files(archive, language)
    tests = {archive.packages[name].source for name in MESSAGE_PACKAGES if name in archive.packages}
    return chosen(offers(files, owners, counts, archive.packages, tests), archive.packages, megabytes)


def catalogue_rows(archive: Archive, language: str, taken: list[Offer]) -> Iterator[dict]:
    """The rows of the chosen packages' files and of AppStream's index, in the order of their documents."""
    yield from appstream_rows(archive, language)
    wanted: dict[str, set[str]] = defaultdict(set)
    for offer in taken:
        twin = next(iter(offer.packages - {offer.files[0][0]}), offer.files[0][0])
        for name, file in offer.files:
            wanted[name].add(file.path)
            if file.english:
                wanted[twin].add(file.english[0])
    roots = package_files(archive, wanted, report)
    malformed: Counter[str] = Counter()
    for offer in sorted(taken, key=lambda offer: sorted(offer.packages)):
        name = offer.files[0][0]
        twin = next(iter(offer.packages - {name}), name)
        package = archive.packages[name]
        for _, file in sorted(offer.files, key=lambda entry: entry[1].path):
            translated = content(roots, name, file.path)
            english = content(roots, twin, file.english[0]) if file.english else None
            if translated is None:
                continue
            place = {
                "variant": file.variant,
                "kind": kind_of(file.format, package.section),
                "package": package.source,
                "origin": name,
                "document": file.path,
                "is_ordered": file.format in ORDERED_FORMATS,
            }
            try:
                yield from segment_rows(file_segments(file.format, translated, english), place)
            except (MalformedFile, OSError, EOFError) as error:
                malformed[str(error).split(":")[0]] += 1
    for error, count in malformed.most_common():
        report(f"{count} files were left out: {error}")


def content(roots: dict[str, Path], package: str, path: str) -> bytes | None:
    """The file's bytes; nothing if the package has only a link there."""
    file = roots[package] / path if package in roots else None
    return file.read_bytes() if file and file.is_file() else None


def appstream_rows(archive: Archive, language: str) -> Iterator[dict]:
    pattern = locale_pattern(language)
    for index in archive.appstream:
        for entry in components(index_lines(index)):
            if entry.package not in archive.packages:
                continue
            locales = {locale for texts in entry.texts.values() for locale in texts}
            for locale in sorted(locale for locale in locales if is_locale(locale, pattern)):
                place = {
                    "variant": variant_of(locale),
                    "kind": "appstream",
                    "package": archive.packages[entry.package].source,
                    "origin": entry.package,
                    "document": entry.identifier,
                    "is_ordered": True,
                }
                for paragraph, texts in enumerate(component_texts(entry, locale)):
                    yield from segment_rows(text_segments(paragraph, *texts), place)


def is_locale(locale: str, pattern) -> bool:
    found = pattern.search(f"/{locale}/")
    return found is not None and found["locale"] == locale
