"""Reads HTML, DocBook, Mallard and plain text as the blocks that a reader sees, in order. Pure.

One lenient parser reads them all: DocBook and Mallard as shipped need entities and inclusions from elsewhere,
so strict parsers fail. Listings, and elements that only name people or versions, are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser

# Marks the place of a text from another file, as in an empty cross reference; such a block is never paired.
LOST = "\ufffc"
BLOCK_TAGS = frozenset(
    "p li dt dd h1 h2 h3 h4 h5 h6 td th title subtitle caption figcaption div section blockquote body"
    " table tr ul ol dl para simpara formalpara term listitem varlistentry member entry desc item note tip"
    " warning caution important page book chapter sect1 sect2 sect3 sect4 sect5 article preface appendix"
    " question answer glossterm glossdef step procedure phrase refsect1 refsect2 refpurpose refname header"
    " footer main cite description".split()
)
SKIPPED_TAGS = frozenset(
    "script style pre programlisting screen synopsis cmdsynopsis funcsynopsis literallayout nav head"
    " noscript select button svg textarea author authorgroup copyright revhistory releaseinfo date pubdate"
    " keywordset othercredit indexterm remark comment credit license revision media mediaobject"
    " inlinemediaobject graphic screenshot math object video audio years"
    " edition productnumber xi:include".split()
)
VOID_TAGS = frozenset("br hr img input meta col area base wbr source track param sbr co anchor".split())
BREAKING_TAGS = frozenset("br hr sbr".split())
REFERENCE_TAGS = frozenset("xref link ulink a".split())
DECLARATIONS = re.compile(r"<!DOCTYPE[^\[>]*\[.*?\]\s*>", re.DOTALL)
DECLARED_ENTITY = re.compile(r"""<!ENTITY\s+([\w.-]+)\s+["']([^"']*)["']\s*>""")
ENTITY = re.compile(r"&([A-Za-z][\w.-]*);")
# Names of DocBook entities whose text is not their name with a capital, and those whose text is translated,
# which stay.
ENTITY_TEXTS = {
    "kde": "KDE",
    "gui": "GUI",
    "faq": "FAQ",
    "qt": "Qt",
    "X-Server": "X server",
    "ctrl": "Ctrl",
    "gnome": "GNOME",
}
TRANSLATED_ENTITIES = frozenset(
    "LMB RMB MMB LMBn RMBn MMBn etc eg ie Space Esc Enter Backspace Del Ins Home End PgUp PgDn Left Right"
    " Up Down".split()
)


@dataclass(frozen=True)
class Block:
    """`tag` is the element that holds the text, `key` its id or nothing."""

    tag: str
    key: str
    text: str


def markup_blocks(content: bytes) -> list[Block]:
    """The blocks of a marked-up text; without any mark-up, its paragraphs."""
    text = decoded(content)
    if not re.search(r"<[a-zA-Z!?]", text):
        return [Block("text", "", collapsed(part)) for part in re.split(r"\n\s*\n", text) if part.strip()]
    reader = BlockReader()
    reader.feed(re.sub(r"<!\[CDATA\[|\]\]>", "", without_declarations(text)))
    reader.close()
    reader.flush()
    return reader.blocks


def without_declarations(text: str) -> str:
    """The text without its document type, with the entities declared there expanded; an entity with mark-up
    is lost."""
    declared = {name: LOST if "<" in value else value for name, value in DECLARED_ENTITY.findall(text)}
    text = DECLARATIONS.sub("", text, count=1)
    # An entity may name others, a few levels deep.
    for _ in range(3 if declared else 0):
        text = ENTITY.sub(lambda match: declared.get(match[1], match[0]), text)
    return text


def decoded(content: bytes) -> str:
    """By its mark or declaration; UTF-8 if it has none, Latin 1 if that fails."""
    declared = re.search(rb"""(?:encoding|charset)\s*=\s*["']?([\w.:-]+)""", content[:2000])
    for charset in ("utf-8-sig", declared[1].decode() if declared else "latin-1", "latin-1"):
        try:
            return content.decode(charset)
        except (UnicodeDecodeError, LookupError):
            continue
    return content.decode("latin-1")


def collapsed(text: str) -> str:
    return " ".join(text.split())


class BlockReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.open: list[tuple[str, str]] = []
        self.skipping = 0
        self.text: list[str] = []
        self.reference_at: int | None = None

    def flush(self) -> None:
        text = collapsed("".join(self.text))
        self.text = []
        if text:
            tag, key = next(((tag, key) for tag, key in reversed(self.open) if tag in BLOCK_TAGS), ("", ""))
            self.blocks.append(Block(tag, key, text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID_TAGS:
            if tag in BREAKING_TAGS and not self.skipping:
                self.text.append(" ")
            return
        if tag in BLOCK_TAGS and not self.skipping:
            self.flush()
            if tag in ("p", "li", "dt", "dd", "td", "th") and self.open and self.open[-1][0] == tag:
                self.open.pop()
        names = dict(attrs)
        self.open.append((tag, names.get("id") or names.get("xml:id") or ""))
        if tag in SKIPPED_TAGS:
            self.skipping += 1
        if tag in REFERENCE_TAGS:
            self.reference_at = len(self.text) if names.keys() & {"xref", "linkend", "href", "url"} else None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("xref", "link") and not self.skipping:
            self.text.append(LOST)

    def handle_endtag(self, tag: str) -> None:
        if not any(name == tag for name, _ in self.open):
            return
        if tag in REFERENCE_TAGS and self.reference_at is not None and not self.skipping:
            if tag != "a" and not "".join(self.text[self.reference_at :]).strip():
                self.text.append(LOST)
            self.reference_at = None
        if tag in BLOCK_TAGS and not self.skipping:
            self.flush()
        while self.open:
            name, _ = self.open.pop()
            if name in SKIPPED_TAGS:
                self.skipping -= 1
            if name == tag:
                break

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.text.append(ENTITY.sub(lambda match: entity_text(match[1]), data))


def entity_text(name: str) -> str:
    """The text of a DocBook entity; an entity whose text differs by language stays as a placeholder."""
    if name in TRANSLATED_ENTITIES:
        return f"&{name};"
    if name in ENTITY_TEXTS:
        return ENTITY_TEXTS[name]
    return name[0].upper() + name[1:] if name.islower() else name
