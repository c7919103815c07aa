"""Reads AppStream's index (DEP-11): names, summaries and descriptions of programs, in many languages, without
fetching a package.

Pure. One program writes the index's YAML, so only scalars are needed: plain, quoted or folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from corpus.catalogues.alignment import paired_blocks
from corpus.catalogues.markup import markup_blocks

FIELD = re.compile(r"^(\w+):\s*(.*)$")
LOCALE_ENTRY = re.compile(r"^  ([\w@.-]+): ?(.*)$")
DOUBLE_QUOTED = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "",
    "0": "",
    "a": "",
    "b": "",
    "e": "",
    "f": "",
    "v": "",
    "N": " ",
    "_": "\u00a0",
}
TRANSLATED_FIELDS = ("Summary", "Description")


@dataclass(frozen=True)
class Component:
    """A program's entry: field -> locale -> text; `C` is English."""

    package: str
    identifier: str
    texts: dict[str, dict[str, str]]


def components(lines: Iterable[str]) -> Iterator[Component]:
    """The entries of the index, in order."""
    entry: list[str] = []
    for line in lines:
        if line.startswith("---"):
            if entry:
                yield component(entry)
            entry = []
        else:
            entry.append(line.rstrip("\n"))
    if entry:
        yield component(entry)


def component(lines: list[str]) -> Component:
    plain = {"Package": "", "ID": ""}
    texts: dict[str, dict[str, str]] = {}
    name = locale = ""
    raw: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        field = FIELD.match(line)
        entry = LOCALE_ENTRY.match(line)
        if field:
            name, locale = field[1], ""
            if name in plain:
                plain[name] = field[2].strip("'\"")
        elif name in TRANSLATED_FIELDS and entry:
            locale = entry[1]
            raw[name, locale] = [entry[2]]
        elif locale and line.startswith("   "):
            raw[name, locale].append(line)
        elif locale and not line.strip():
            raw[name, locale].append("")
    for (name, locale), scalar_lines in raw.items():
        texts.setdefault(name, {})[locale] = scalar(scalar_lines)
    return Component(plain["Package"], plain["ID"], texts)


def scalar(lines: list[str]) -> str:
    """A YAML scalar of one or more lines: line ends are blanks, and empty lines are line ends."""
    if lines[0].strip() in ("|", "|-", ">", ">-", "|+", ">+"):
        return ("\n" if lines[0].startswith("|") else " ").join(line.strip() for line in lines[1:])
    text = lines[0].strip()
    for line in lines[1:]:
        line = line.strip()
        if text.endswith("\\") and not text.endswith("\\\\") and lines[0].lstrip().startswith('"'):
            text = text[:-1] + line
        else:
            text += ("\n" if not line else "" if text.endswith("\n") else " ") + line
    if text.startswith('"'):
        return DOUBLE_QUOTED.sub(unescaped, text.strip('"') if not text.endswith('\\"') else text[1:])
    if text.startswith("'"):
        return text[1:].removesuffix("'").replace("''", "'")
    return text


def unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if code[0] in "xuU" and len(code) > 1 else ESCAPES.get(code, code)


def component_texts(entry: Component, locale: str) -> list[tuple[str, str]]:
    """The summary and the paragraphs of the description, English and translated."""
    pairs = []
    summary, description = (entry.texts.get(name, {}) for name in TRANSLATED_FIELDS)
    if summary.get("C") and summary.get(locale):
        pairs.append((summary["C"], summary[locale]))
    if description.get("C") and description.get(locale):
        english, translated = (markup_blocks(description[name].encode()) for name in ("C", locale))
        pairs += [(one.text, other.text) for one, other in paired_blocks(english, translated)]
    return pairs
