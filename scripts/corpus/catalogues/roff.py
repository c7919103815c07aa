"""Reads manual pages, in the macros of man(7), as blocks: one for a heading, a paragraph, a term of a list.
Pure.

Pages in the macros of mdoc(7), tables and examples are left out. Translations made with po4a keep the macros,
so that blocks pair by their tags.
"""

from __future__ import annotations

import re

from corpus.catalogues.markup import Block, collapsed, decoded

# The two letters of an escape, followed by its text.
ESCAPES = {name[:2]: name[2:] for name in r"""
    aq' cq’ oq‘ lq“ rq” dq" em— en– bu• co© (c© rs\ ha^ ti~ ga` at@ sh# mu× ->→ <-← hy- Fo« Fc» 'aá
    'eé 'ií 'oó 'uú ~aã ~oõ ~nñ ^aâ ^eê ^oô `aà `eè `oò `uù `iì ,cç :aä :eë :iï :oö :uü ssß /oø aa´
    tm™ rg® <=≤ >=≥ mi- ul_ sq□ aeæ oaå Po£ Eu€ de° *aα *bβ bv| lB[ rB]
    """.split()}
NAME = r"(?:\[[^\]]*\]|\(..|.)"
ESCAPE = re.compile(
    rf"\\(?:f{NAME}|[mMF]{NAME}|[nk]{NAME}|[hvwbNoXZ]'[^']*'|s(?:[+-]?\d{{1,2}}|\[[^\]]*\]|[+-]?\(\d\d)"
    r"|\*(?:\[(?P<string>[^\]]*)\]|\((?P<string2>..)|(?P<string1>.))"
    r"|\[(?P<long>[^\]]*)\]|\((?P<two>..)|C'(?P<named>[^']*)'|(?P<one>.))"
)
STRINGS = {
    "Aq": "'",
    "lq": "“",
    "rq": "”",
    "R": "®",
    "Tm": "™",
    "`": "`",
    "'": "'",
    "C+": "C++",
    'L"': '"',
    'R"': '"',
    "--": "—",
    "PI": "π",
}
FONT_MACROS = {"B", "I", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "SB"}
ALTERNATING = {"BR", "RB", "BI", "IB", "IR", "RI"}
PARAGRAPHS = {"PP": "PP", "P": "PP", "LP": "PP", "RS": "RS", "RE": "RE", "br": "br", "sp": "sp", "HP": "PP"}
LISTINGS = {"nf": "fi", "EX": "EE", "TS": "TE", "EQ": "EN", "Vb": "Ve", "ig": "."}
COMMENT = re.compile(r'(?<!\\)\\["#].*')
ARGUMENT = re.compile(r'"((?:[^"]|"")*)"|((?:\\ |[^\s"])+)')


def roff_blocks(content: bytes) -> list[Block]:
    """The blocks of a page; none if it is not written in man(7)."""
    text = re.sub(r"\\\r?\n", "", decoded(content))
    if re.search(r"^\.(?:Dd|Sh)\b", text, re.MULTILINE) or not re.search(r"^\.\s*TH\b", text, re.MULTILINE):
        return []
    reader = PageReader()
    for line in text.splitlines():
        reader.line(COMMENT.sub("", line))
    reader.flush()
    return reader.blocks


class PageReader:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.section = ""
        self.tag = "PP"
        self.words: list[str] = []
        self.until: str | None = None
        self.awaits: str | None = None

    def flush(self, tag: str = "PP") -> None:
        text = collapsed(plain("\n".join(self.words)))
        if text:
            self.blocks.append(Block(self.tag, "", text))
        self.words, self.tag = [], tag

    def line(self, line: str) -> None:
        request = re.match(r"^[.']\s*([A-Za-z]+|\.)?(.*)$", line)
        name = (request[1] or "") if request else None
        if self.until is not None:
            if name == self.until:
                self.until = None
            return
        if name is None:
            if not line.strip():
                self.flush()
            elif line.startswith((" ", "\t")) and not self.awaits:
                self.flush("listing" if self.tag == "listing" else "PP")
                self.words.append(line)
            else:
                self.words.append(line)
                self.after_text()
            return
        rest = request[2].strip()
        if name in LISTINGS:
            self.flush()
            self.until = LISTINGS[name]
        elif name in ("SH", "SS"):
            self.flush(name)
            self.words.append(" ".join(arguments(rest)))
            self.awaits = None if rest else name
            if rest:
                self.flush()
        elif name in ("TP", "TQ"):
            self.flush("TP")
            self.awaits = "TP"
        elif name == "IP":
            self.flush("IP")
            self.words.append((arguments(rest) or [""])[0])
            self.flush("item")
        elif name in PARAGRAPHS:
            if name not in ("br", "sp") or self.tag != "PP" or self.words:
                self.flush()
        elif name in FONT_MACROS:
            given = arguments(rest)
            if given:
                self.words.append(("" if name in ALTERNATING else " ").join(given))
                self.after_text()
        elif name in ("UR", "MT"):
            self.words.append(rest)
        elif name in ("UE", "ME") and rest:
            self.words.append(rest)

    def after_text(self) -> None:
        """A term of a list, or a heading, is one line long."""
        if self.awaits == "TP":
            self.flush("item")
        elif self.awaits:
            self.flush()
        self.awaits = None


def arguments(text: str) -> list[str]:
    """The arguments of a macro, quoted or not; a blank after a backslash ends no argument."""
    return [
        quoted.replace('""', '"') if quoted or not bare else bare for quoted, bare in ARGUMENT.findall(text)
    ]


def plain(text: str) -> str:
    """The text without the escapes of roff."""
    return ESCAPE.sub(escaped, text)


def escaped(match: re.Match[str]) -> str:
    for name in ("string", "string2", "string1"):
        if match[name] is not None:
            return STRINGS.get(match[name], "")
    name = match["long"] or match["two"] or match["named"]
    if name is not None:
        if re.fullmatch(r"u[0-9A-F]{4,5}", name):
            return chr(int(name[1:], 16))
        return ESCAPES.get(name, "")
    one = match["one"]
    if one is None or one in "&|^/,:%c)z!pdur{}":
        return ""
    if one in " ~0":
        return " "
    return {"e": "\\", "E": "\\", "-": "-", "'": "´", "`": "`", ".": ".", "t": " ", "\\": "\\", "(": "("}.get(
        one, one
    )
