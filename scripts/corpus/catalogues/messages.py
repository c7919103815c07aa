"""Reads catalogues that name each English message beside its translation: gettext's `.mo` and `.po`, Qt's
`.qm`.

Pure: bytes in, messages out. Entries that a translator has not confirmed (fuzzy) or that are no longer used
are left out. The English singular is paired with the form for one, the English plural with the form for a
hundred.
"""

from __future__ import annotations

import gettext
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MO_MAGIC = 0x950412DE
QM_MAGIC = bytes.fromhex("3cb86418caef9c95cd211cbf60a1bddd")
QM_MESSAGES = 0x69
QM_END, QM_SOURCE16, QM_TRANSLATION, QM_CONTEXT16, QM_HASH, QM_SOURCE, QM_CONTEXT, QM_COMMENT = range(1, 9)
# A number that is "many" in all languages that distinguish numbers.
MANY = 100
PO_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
PO_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)")
PO_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "", "b": "", "f": "", "v": ""}


class MalformedFile(Exception):
    """A file is not in the format that its name says."""


@dataclass(frozen=True)
class Message:
    """`number` counts from 0 in the order of the file, which in `.mo` and `.qm` is no reader's."""

    number: int
    context: str
    source: str
    target: str


def plural_form(header: str) -> Callable[[int], int]:
    """The form that the catalogue's language takes for a number, from `Plural-Forms` in its header."""
    found = re.search(r"plural\s*=\s*([^;\n]+)", header)
    try:
        return gettext.c2py(found[1].strip()) if found else lambda number: int(number != 1)
    except (ValueError, RecursionError):
        return lambda number: int(number != 1)


def header_charset(header: str) -> str:
    found = re.search(r"charset=([\w.:-]+)", header)
    charset = found[1] if found else "utf-8"
    try:
        "".encode(charset)
    except LookupError:
        return "utf-8"
    return charset


def entry_messages(
    number: int, context: str, sources: list[str], targets: list[str], form: Callable[[int], int]
) -> Iterator[Message]:
    """One message, or two for a plural."""
    if len(sources) == 1:
        if targets[0]:
            yield Message(number, context, sources[0], targets[0])
        return
    for source, count in zip(sources, (1, MANY)):
        place = form(count)
        if place < len(targets) and targets[place]:
            yield Message(number, context, source, targets[place])


def mo_messages(content: bytes) -> list[Message]:
    """The messages of a compiled catalogue of GNU gettext. Raises `MalformedFile`."""
    for order in ("<", ">"):
        if len(content) >= 28 and struct.unpack_from(order + "I", content)[0] == MO_MAGIC:
            break
    else:
        raise MalformedFile("no catalogue of gettext: its first bytes differ")
    _, count, sources_at, targets_at = struct.unpack_from(order + "4I", content, 4)
    try:
        raw = []
        for entry in range(count):
            texts = []
            for table in (sources_at, targets_at):
                length, place = struct.unpack_from(order + "2I", content, table + 8 * entry)
                texts.append(content[place : place + length])
            raw.append(texts)
    except struct.error as error:
        raise MalformedFile(f"the catalogue ends before its tables do: {error}") from error
    header = next((target.decode("latin-1") for source, target in raw if not source), "")
    charset, form = header_charset(header), plural_form(header)
    messages = []
    for number, (source, target) in enumerate(raw):
        if source:
            text = source.decode(charset, errors="replace")
            context, separator, text = text.rpartition("\x04") if "\x04" in text else ("", "", text)
            targets = target.decode(charset, errors="replace").split("\0")
            messages.extend(entry_messages(number, context, text.split("\0"), targets, form))
    return messages


def po_messages(content: bytes) -> list[Message]:
    """The confirmed messages of a `.po` file, in its order."""
    head = content[:4000].decode("latin-1")
    text = content.decode(header_charset(head), errors="replace")
    form = plural_form("")
    messages: list[Message] = []
    for number, entry in enumerate(re.split(r"\n[ \t]*\r?\n", text)):
        fields: dict[str, str] = {}
        name = None
        is_fuzzy = False
        for line in entry.splitlines():
            line = line.strip()
            if line.startswith("#"):
                is_fuzzy |= line.startswith("#,") and "fuzzy" in line
                continue
            keyword = re.match(r"(msgctxt|msgid_plural|msgid|msgstr(?:\[\d+\])?)\s*(?=\")", line)
            if keyword:
                name = keyword[1]
                fields[name] = ""
            for part in PO_STRING.findall(line) if name else []:
                fields[name] += PO_ESCAPE.sub(unescaped, part)
        targets = [fields[key] for key in sorted(fields, key=form_number) if key.startswith("msgstr")]
        if not targets or "msgid" not in fields:
            continue
        if not fields["msgid"] and not fields.get("msgctxt"):
            form = plural_form(targets[0])
        elif not is_fuzzy and fields["msgid"]:
            sources = [fields["msgid"]] + ([fields["msgid_plural"]] if "msgid_plural" in fields else [])
            messages.extend(entry_messages(number, fields.get("msgctxt", ""), sources, targets, form))
    return messages


def form_number(key: str) -> int:
    return int(re.sub(r"\D", "", key) or 0)


def unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) == 3:
        return chr(int(code[1:], 16))
    if code[0] in "01234567":
        return chr(int(code, 8))
    return PO_ESCAPED.get(code, code)


def qm_messages(content: bytes) -> list[Message]:
    """The messages of a compiled catalogue of Qt that has kept its English texts. Raises `MalformedFile`.

    Qt writes an English plural as "file(s)", which is no English, so plurals are left out.
    """
    if not content.startswith(QM_MAGIC):
        raise MalformedFile("no catalogue of Qt: its first bytes differ")
    place, records = len(QM_MAGIC), b""
    while place + 5 <= len(content):
        section, length = struct.unpack_from(">BI", content, place)
        if section == QM_MESSAGES:
            records = content[place + 5 : place + 5 + length]
        place += 5 + length
    messages: list[Message] = []
    place, number = 0, 0
    source = context = ""
    targets: list[str] = []
    while place < len(records):
        tag = records[place]
        place += 1
        if tag == QM_END:
            if source and len(targets) == 1:
                messages.append(Message(number, context, source, targets[0]))
            number, source, context, targets = number + 1, "", "", []
            continue
        if tag == QM_HASH:
            place += 4
            continue
        if tag > QM_COMMENT or place + 4 > len(records):
            raise MalformedFile(f"the catalogue has an unknown record {tag} at byte {place}")
        (length,) = struct.unpack_from(">I", records, place)
        length = 0 if length == 0xFFFFFFFF else length
        text = records[place + 4 : place + 4 + length]
        place += 4 + length
        if tag == QM_TRANSLATION:
            targets.append(text.decode("utf-16-be", errors="replace"))
        elif tag in (QM_SOURCE, QM_SOURCE16):
            source = text.decode("utf-8" if tag == QM_SOURCE else "utf-16-be", errors="replace")
        elif tag in (QM_CONTEXT, QM_CONTEXT16):
            context = text.decode("utf-8" if tag == QM_CONTEXT else "utf-16-be", errors="replace")
    return messages


def english_share(messages: list[Message]) -> float:
    """The share of messages of five words or more with an English function word: others name keys, or are not
    English.
    """
    long = [set(message.source.lower().split()) for message in messages if len(message.source.split()) >= 5]
    return sum(bool(words & ENGLISH_WORDS) for words in long) / len(long) if long else 1.0


ENGLISH_WORDS = frozenset(
    "the a an to of is are and in for not this with be you on or your it as by from that".split()
)
