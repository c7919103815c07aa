"""Removes from a pair what belongs to a user interface or a file format, and decides which pairs are kept.
Pure.

Placeholders stay in the texts: a translator has to keep them, so a pair whose sides differ in them is
dropped.
"""

from __future__ import annotations

import html
import re
from collections import Counter

from corpus.builders import is_translation
from corpus.catalogues.markup import LOST

PLACEHOLDER = re.compile(
    r"%\([\w.]+\)[-#+0]*\d*(?:\.\d+)?[a-zA-Z]"
    r"|%(?:\d+\$)?[-#+0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh?|ll?|L|z|j|t|q)?[diouxXeEfgGcsSpaAmn](?![A-Za-z])"
    r"|%L?\d{1,2}|%%|%\w+%|\{\{?[\w.:!|-]*\}?\}|\$\{[^}\s]+\}|\$\([^)\s]+\)|\$\[[^\]\s]+\]|\$\w+"
    r"|@\w+@|@[A-Z]{2,}\b"
    r"|</?[a-zA-Z][^<>]*>|\[/?(?:b|i|u|url|color|size|center|code|header|ref)(?:=[^\]]*)?\]"
    r"|&[A-Za-z][\w.-]*;|\\[ntr\"]"
)
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d+|#x[0-9a-fA-F]+);")
MNEMONIC_BEHIND = re.compile(r"\s*\(\s*[_&~][A-Za-z0-9]\s*\)")
# Signs of a broken text: texts read in the wrong charset, lost characters, control characters.
BROKEN = re.compile(
    "\ufffd|" + LOST + r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]|Ã[\x80-\xbf£©¡³§ªµº¢]|â€|\b\w+\?\w+\?\w+\b"
)
GLUED = re.compile(r"[a-zà-öø-ÿ]{3,}[.!?;:,][A-ZÀ-Þ][a-zà-öø-ÿ]+|[a-zà-öø-ÿ]{3,}[;:!?,][a-zà-öø-ÿ]{3,}")
CAMEL = re.compile(r"\b\w*[a-zà-öø-ÿ]{2}[A-ZÀ-Þ]\w*\b")
# Choices of a program, or templates that a wiki expands.
PROGRAM = re.compile(r",\s*(?:plural|select|choice)\s*,|\{\{\w+[:|]|\[\[|^\s*[\w.-]+\|\w|(?:\w+\.){3}\w+\(")
AROUND_A_WORD = ".,:;…!?()[]\"'“”‘’«»"
WORD = re.compile(r"[^\W\d_]+")
MAX_WORDS = 120
MAX_LETTERS_OF_A_WORD = 32
MIN_SHARE_OF_LETTERS = 0.55
MAX_SHARE_ALIKE = 0.6
# Texts that a thousand packages share, and texts that no translator has to translate.
UNWANTED = re.compile(
    r"General Public License|WITHOUT ANY WARRANTY|Permission is granted|translator-credits"
    r"|your (?:e-?mails?|names?)$|^Title is:",
    re.IGNORECASE,
)


def cleaned_pair(source: str, target: str) -> tuple[str, str, list[str]] | None:
    """The pair without mnemonics and entities, its white space collapsed, with its placeholders; nothing if
    it teaches nothing.
    """
    if UNWANTED.search(source) or PROGRAM.search(source) or PROGRAM.search(target):
        return None
    source, target = (ENTITY.sub(lambda match: html.unescape(match[0]), text) for text in (source, target))
    source, target = without_mnemonics(source, target)
    source, target = (
        " ".join(text.replace("\u00ad", "").replace("\u200b", "").split()) for text in (source, target)
    )
    source, target = alike_at_the_ends(source, target)
    placeholders = PLACEHOLDER.findall(source)
    if Counter(map(comparable, placeholders)) != Counter(map(comparable, PLACEHOLDER.findall(target))):
        return None
    return (source, target, placeholders) if is_good(source, target) else None


def comparable(placeholder: str) -> str:
    """A tag by its name alone, because its attributes may be translated; anything else unchanged."""
    tag = re.match(r"</?[a-zA-Z]+", placeholder)
    return tag[0].lower() if tag else placeholder


def without_mnemonics(source: str, target: str) -> tuple[str, str]:
    """Removes the mnemonic sign, before the letter that selects a menu's entry: one in the source, at most
    one in the target.

    A sign in a word that both sides spell alike is part of a name.
    """
    for sign in "&_~":
        places = [match.start() for match in re.finditer(re.escape(sign) + r"(?=\w)", source)]
        if len(places) != 1:
            continue
        word = re.search(r"\S*$", source[: places[0]])[0] + re.match(r"\S*", source[places[0] :])[0]
        word = word.strip(AROUND_A_WORD)
        is_name = word in (other.strip(AROUND_A_WORD) for other in target.split())
        if is_name or word.count(sign) != 1 or not WORD.fullmatch(word.replace(sign, "")):
            continue
        source = source[: places[0]] + source[places[0] + 1 :]
        behind = MNEMONIC_BEHIND.search(target)
        if behind:
            target = target.replace(behind[0], "", 1)
        else:
            target = re.sub(re.escape(sign) + r"(?=\w)", "", target, count=1)
    return source, target


def alike_at_the_ends(source: str, target: str) -> tuple[str, str]:
    """Both sides end in a full stop or neither: the choice is the catalogue's habit, not the
    translation's."""
    if (
        source.endswith(".") != target.endswith(".")
        and not source.endswith("...")
        and not target.endswith("...")
    ):
        if source.endswith(".") and (target[-1:].isalnum() or target.endswith((")", '"', "”"))):
            return source, target + "."
        if target.endswith(".") and (source[-1:].isalnum() or source.endswith((")", '"', "”"))):
            return source, target[:-1]
    return source, target


def is_good(source: str, target: str) -> bool:
    """Whether the pair is a translation of a text of at least two words, whole on both sides."""
    words = source.split()
    if not 2 <= len(words) <= MAX_WORDS or not is_translation(source, target):
        return False
    if BROKEN.search(source) or BROKEN.search(target):
        return False
    plain, other = (PLACEHOLDER.sub("", text) for text in (source, target))
    letters, others = WORD.findall(plain.casefold()), WORD.findall(other.casefold())
    if len(letters) < 2 or sum(map(len, letters)) < MIN_SHARE_OF_LETTERS * len("".join(plain.split())):
        return False
    if max(map(len, others), default=0) > MAX_LETTERS_OF_A_WORD:
        return False
    # A text that was left in English, whole or in part, shares its words. Short texts also share names.
    alike = sum((Counter(letters) & Counter(others)).values())
    if len(letters) >= 4 and alike > MAX_SHARE_ALIKE * len(letters):
        return False
    # Words that lost the blank between them; a name is spelled alike on both sides.
    if GLUED.search(other) and not GLUED.search(plain):
        return False
    return all(word in source for word in CAMEL.findall(other))
