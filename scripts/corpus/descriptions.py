"""Reads package descriptions, and aligns a translation with its English original.

A description is a synopsis line and a body (Debian Policy 5.6.13). In the index each body line has a leading
space, and a line ` .` separates paragraphs. A line with more leading spaces is displayed verbatim (mostly
list items), and paragraphs are wrapped by hand. Pure: text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LIST_MARKER = re.compile(r"^(?:[-*+•·‣–]|\(?\d{1,2}[.)])\s+")
INDENTED_LIST_MARKER = re.compile(r"^(?:[-*+•·‣–o]|\(?\d{1,2}[.)])\s+")


@dataclass(frozen=True)
class Segment:
    """A stretch of a body that translates as one: wrapped text, a list item without its marker, or verbatim
    lines."""

    kind: str
    text: str


def read_stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The stanzas of an index file; a value keeps its continuation lines, each with its leading space."""
    stanza: dict[str, str] = {}
    name = None
    for line in (line.rstrip("\n") for line in lines):
        if not line:
            if stanza:
                yield stanza
            stanza, name = {}, None
        elif line[0] in " \t":
            if name is not None:
                stanza[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            stanza[name] = value.strip()
    if stanza:
        yield stanza


def sources_by_md5(packages: Iterable[dict[str, str]]) -> dict[str, dict[str, str]]:
    """From the stanzas of `Packages`: description md5 -> binary package -> its source package."""
    joined: dict[str, dict[str, str]] = {}
    for stanza in packages:
        md5, binary = stanza.get("Description-md5"), stanza.get("Package")
        if md5 and binary:
            source = stanza.get("Source", binary).split(" ", 1)[0]
            joined.setdefault(md5, {})[binary] = source
    return joined


def descriptions_by_md5(translations: Iterable[dict[str, str]], language: str) -> dict[str, str]:
    """From the stanzas of `Translation-LANGUAGE`: md5 of the English original -> description in that
    language."""
    field = f"Description-{language}"
    return {
        stanza["Description-md5"]: stanza[field]
        for stanza in translations
        if "Description-md5" in stanza and stanza.get(field)
    }


def synopsis(description: str) -> str:
    """The one-line summary."""
    return collapse(description.partition("\n")[0])


def body_blocks(description: str) -> list[list[Segment]]:
    """The body's paragraphs, each as its segments in order."""
    blocks: list[list[Segment]] = []
    lines: list[str] = []
    for line in [*description.split("\n")[1:], " ."]:
        if line.strip() == ".":
            if lines:
                blocks.append(block_segments(lines))
            lines = []
        elif line.strip():
            lines.append(line[1:])
    return blocks


def block_segments(lines: list[str]) -> list[Segment]:
    """Cuts one paragraph's lines (without the format's leading space) into segments."""
    kinds_and_lines: list[tuple[str, list[str]]] = []
    item_indent = 0
    for line in lines:
        indent = len(line) - len(line.lstrip())
        content = line.strip()
        # "o" marks items too, but at the margin it is a word: Italian for "or".
        marker = (INDENTED_LIST_MARKER if indent > 0 else LIST_MARKER).match(content)
        current = kinds_and_lines[-1][0] if kinds_and_lines else None
        if marker:
            kinds_and_lines.append(("item", [content[marker.end() :]]))
            item_indent = indent
        elif current == "item" and indent >= item_indent:
            kinds_and_lines[-1][1].append(content)
        else:
            kind = "verbatim" if indent > 0 else "text"
            if current == kind:
                kinds_and_lines[-1][1].append(content)
            else:
                kinds_and_lines.append((kind, [content]))
    return [Segment(kind, collapse(" ".join(content))) for kind, content in kinds_and_lines]


def body_text(description: str) -> str:
    """The body as plain text: a line for each paragraph and list item, verbatim lines left out."""
    lines = []
    for block in body_blocks(description):
        for segment in block:
            if segment.kind != "verbatim":
                lines.append(f"- {segment.text}" if segment.kind == "item" else segment.text)
    return "\n".join(lines)


def aligned_paragraphs(english: str, translated: str) -> list[tuple[str, str]]:
    """Pairs the bodies' segments one to one.

    Bodies with different numbers of paragraphs give no pairs, nor do paragraphs whose parts differ in kind.
    """
    english_blocks, translated_blocks = body_blocks(english), body_blocks(translated)
    if len(english_blocks) != len(translated_blocks):
        return []
    pairs: list[tuple[str, str]] = []
    for english_block, translated_block in zip(english_blocks, translated_blocks):
        sources = [segment for segment in english_block if segment.kind != "verbatim"]
        targets = [segment for segment in translated_block if segment.kind != "verbatim"]
        if [segment.kind for segment in sources] == [segment.kind for segment in targets]:
            pairs.extend(aligned_texts(source.text, target.text) for source, target in zip(sources, targets))
    return pairs


def aligned_texts(source: str, target: str) -> tuple[str, str]:
    """Makes two aligned texts end alike: a semicolon after items is the list's style, not the text's."""
    source, target = source.rstrip(" ;,"), target.rstrip(" ;,")
    if source.endswith(".") != target.endswith("."):
        source, target = source.rstrip(" ."), target.rstrip(" .")
    return source, target


def collapse(text: str) -> str:
    """Single spaces for any run of white space."""
    return " ".join(text.split())
