"""Reads the pairs of one file, or of a file and its English twin, and says where each stands in its document.
Pure.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass

from corpus.catalogues.alignment import paired_blocks, paired_sentences
from corpus.catalogues.cleaning import cleaned_pair
from corpus.catalogues.keyed import json_texts, pak_texts, property_texts
from corpus.catalogues.markup import markup_blocks
from corpus.catalogues.messages import (
    MalformedFile,
    Message,
    english_share,
    mo_messages,
    po_messages,
    qm_messages,
)
from corpus.catalogues.roff import roff_blocks

MIN_ENGLISH_SHARE = 0.5
MESSAGE_READERS = {"gettext": mo_messages, "po": po_messages, "qm": qm_messages}
KEYED_READERS = {"json": json_texts, "properties": property_texts, "pak": pak_texts}
BLOCK_READERS = {"markup": markup_blocks, "roff": roff_blocks}
# Formats whose order is a reader's order.
ORDERED_FORMATS = {"po", "json", "properties", *BLOCK_READERS}
CONTEXT_PREFIX = re.compile(r"^_:[^\n]*\n")


@dataclass(frozen=True)
class Segment:
    """A sentence, or another unit of translation. `paragraph` counts the texts of the document, `number` the
    sentences of one, from 0.
    """

    paragraph: int
    number: int
    source: str
    target: str
    placeholders: tuple[str, ...]


def file_segments(format: str, translated: bytes, english: bytes | None) -> list[Segment]:
    """The segments of a translated file, with the content of its English twin if it has one.

    Raises `MalformedFile` if one of them is not in its format.
    """
    if translated[:2] == b"\x1f\x8b":
        translated = gzip.decompress(translated)
    if english is not None and english[:2] == b"\x1f\x8b":
        english = gzip.decompress(english)
    return [
        segment
        for place, texts in enumerate(file_texts(format, translated, english))
        for segment in text_segments(place, *texts)
    ]


def file_texts(format: str, translated: bytes, english: bytes | None) -> list[tuple[str, str]]:
    """The pairs of paragraphs or messages of a file, in its order."""
    if format in MESSAGE_READERS:
        messages = MESSAGE_READERS[format](translated)
        if english is not None:
            # In these files the messages are keys, or English that was corrected later.
            own = {
                (message.context, message.source): message.target
                for message in MESSAGE_READERS[format](english)
            }
            messages = [
                Message(
                    message.number,
                    message.context,
                    own.get((message.context, message.source), message.source),
                    message.target,
                )
                for message in messages
            ]
        if english_share(messages) < MIN_ENGLISH_SHARE:
            return []
        return [
            (CONTEXT_PREFIX.sub("", message.source), CONTEXT_PREFIX.sub("", message.target))
            for message in messages
        ]
    if english is None:
        return []
    if format in KEYED_READERS:
        own = dict(KEYED_READERS[format](english))
        return [(own[key], text) for key, text in KEYED_READERS[format](translated) if key in own]
    if format not in BLOCK_READERS:
        raise MalformedFile(f"no reader for {format}")
    blocks = BLOCK_READERS[format]
    return [(one.text, other.text) for one, other in paired_blocks(blocks(english), blocks(translated))]


def text_segments(place: int, source: str, target: str) -> Iterator[Segment]:
    """The sentences of one text that can be learned from; a text of several paragraphs is cut if both sides
    are.
    """
    number = 0
    for one, other in paired_paragraphs(source, target):
        for sentence, translation in paired_sentences(" ".join(one.split()), " ".join(other.split())):
            cleaned = cleaned_pair(sentence, translation)
            if cleaned:
                yield Segment(place, number, cleaned[0], cleaned[1], tuple(cleaned[2]))
            number += 1


def paired_paragraphs(source: str, target: str) -> list[tuple[str, str]]:
    """Cut at empty lines if both sides have as many; else at line ends, if every line but the last ends a
    sentence; else not at all.
    """
    for pattern, must_end in ((r"\n\s*\n", False), (r"\n", True)):
        sources, targets = (re.split(pattern, text.strip()) for text in (source, target))
        if len(sources) == len(targets) > 1:
            if not must_end or all(part.rstrip().endswith((".", "!", "?", ":")) for part in sources[:-1]):
                return list(zip(sources, targets))
    return [(source, target)]
