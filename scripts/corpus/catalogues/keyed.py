"""Reads files that give one language's texts by key, in order: JSON, INI and properties, Chromium's `.pak`.
Pure.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator

from corpus.catalogues.messages import MalformedFile

PROPERTY = re.compile(r"^\s*([^\s=:#;\[][^=:]*?)\s*=\s*(.*?)\s*$")
PAK_UTF8, PAK_UTF16 = 1, 2


def json_texts(content: bytes) -> list[tuple[str, str]]:
    """The strings of a JSON file with their paths as keys, without a web extension's notes to translators."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise MalformedFile(f"no JSON: {error}") from error
    return list(leaves(value, ""))


def leaves(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not str(key).startswith("@") and not (key == "description" and "message" in value):
                yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{place}")


def property_texts(content: bytes) -> list[tuple[str, str]]:
    """Lines of `key = text`; quotes around a text and the escapes of Java's properties are taken off."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    texts = []
    for line in text.splitlines():
        match = PROPERTY.match(line)
        if match:
            value = match[2]
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = value[1:-1]
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), value)
            texts.append((match[1], value.replace("\\n", "\n").replace('\\"', '"')))
    return texts


def pak_texts(content: bytes) -> list[tuple[str, str]]:
    """The texts of a resource file of Chromium, by number. Raises `MalformedFile`."""
    try:
        (version,) = struct.unpack_from("<I", content)
        if version == 4:
            count, encoding = struct.unpack_from("<IB", content, 4)
            table = 9
        elif version == 5:
            encoding, count = struct.unpack_from("<B3xH", content, 4)
            table = 12
        else:
            raise MalformedFile(f"a .pak of version {version}, where 4 and 5 are known")
        entries = [struct.unpack_from("<HI", content, table + 6 * entry) for entry in range(count + 1)]
    except struct.error as error:
        raise MalformedFile(f"the .pak ends before its table does: {error}") from error
    if encoding not in (PAK_UTF8, PAK_UTF16):
        return []
    charset = "utf-8" if encoding == PAK_UTF8 else "utf-16-le"
    pairs = zip(entries, entries[1:])
    return [
        (str(key), content[start:end].decode(charset, errors="replace")) for (key, start), (_, end) in pairs
    ]
