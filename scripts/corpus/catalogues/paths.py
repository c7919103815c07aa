"""Tells from a path alone whether a file holds text in a language, in which format, and where its English
twin may lie.

Pure. A locale is written in many ways (`pt_BR`, `pt-br`, `pt-BR`); a variant here is always `pt_BR`, and the
language's own country is left out (`pt_PT` is `pt`), as most catalogues do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Names of English in place of a locale. Catalogues of messages contain English themselves. British English is
# a translation there, and therefore not on the list.
ENGLISH_NAMES = ("en", "en_US", "en-US", "en-us", "C")
SUFFIX_FORMATS = {
    "mo": "gettext",
    "gmo": "gettext",
    "po": "po",
    "qm": "qm",
    "pak": "pak",
    "json": "json",
    "ini": "properties",
    "properties": "properties",
    "html": "markup",
    "htm": "markup",
    "xhtml": "markup",
    "docbook": "markup",
    "page": "markup",
    "xml": "markup",
    "utf8": "markup",
    "txt": "markup",
}
# Formats whose files name the English text beside its translation.
BILINGUAL_FORMATS = {"gettext", "po", "qm"}
# XML and plain text are read if they are documentation, not data.
DOCUMENTATION_DIRECTORIES = re.compile(r"/(?:help|doc|docs|HTML|html)/", re.IGNORECASE)
MANUAL = re.compile(r"^usr/share/man/(?P<locale>[^/]+)/(?P<section>man\w+)/(?P<page>[^/]+\.[1-8]\w*)\.gz$")


@dataclass(frozen=True)
class TextFile:
    """A file with translated text; `english` are the paths where its English twin may lie, in order of
    preference.
    """

    path: str
    format: str
    variant: str
    english: tuple[str, ...]


def locale_pattern(language: str) -> re.Pattern[str]:
    """Matches the locale in a path: a directory of its name, or a part of the file name before its suffix.

    `pt` matches `pt` with any country, `pt_BR` only itself; case and the sign between do not matter.
    """
    base, _, region = language.partition("_")
    country = rf"[_-]{region}" if region else r"(?:[_-](?:[A-Za-z]{2}|[A-Z][a-z]{3}))?(?:@[a-z]+)?"
    if region:
        country = f"(?i:{country})"
    behind = r"/|\.[A-Za-z]\w*(?:\.gz)?$"
    return re.compile(rf"(?P<before>[/._-]|^)(?P<locale>(?i:{re.escape(base)}){country})(?P<after>{behind})")


def variant_of(locale: str) -> str:
    """The one spelling of a locale: `pt-br` is `pt_BR`, `pt_PT` is `pt`, `zh-hans` is `zh_Hans`, `sr@latin`
    is itself.
    """
    base, _, modifier = locale.partition("@")
    language, _, region = base.replace("-", "_").partition("_")
    region = region.upper() if len(region) == 2 else region.capitalize()
    if region == language.upper():
        region = ""
    return language.lower() + (f"_{region}" if region else "") + (f"@{modifier}" if modifier else "")


def text_file(path: str, pattern: re.Pattern[str]) -> TextFile | None:
    """The path's kind, if it is a readable file with text in the pattern's language."""
    manual = MANUAL.match(path)
    if manual:
        whole = pattern.search(f"/{manual['locale'].split('.')[0]}/")
        if not whole or whole["locale"] != manual["locale"].split(".")[0]:
            return None
        english = f"usr/share/man/{manual['section']}/{manual['page']}.gz"
        return TextFile(path, "roff", variant_of(whole["locale"]), (english,))
    format = SUFFIX_FORMATS.get(path.rpartition(".")[2])
    match = pattern.search(path)
    if format is None or match is None:
        return None
    if path.endswith((".xml", ".txt")) and not DOCUMENTATION_DIRECTORIES.search(path):
        return None
    return TextFile(path, format, variant_of(match["locale"]), tuple(twins(path, pattern)))


def twins(path: str, pattern: re.Pattern[str]) -> list[str]:
    """Possible places of English: its name in the locale's place, or nothing there."""
    named = [
        pattern.sub(lambda match: match["before"] + name + match["after"], path) for name in ENGLISH_NAMES
    ]

    def without(match: re.Match[str]) -> str:
        if match["after"] == "/":
            return match["before"]
        return match["after"] if match["before"] in "._-" else match["before"] + match["after"]

    bare = pattern.sub(without, path)
    return named + ([bare] if not bare.rpartition("/")[2].startswith(".") else [])
