"""Replaces the names in translation pairs, so that a model learns to copy words that it has never seen.

A name is a word that source and target spell alike. It has a capital, a digit or a sign inside, or it is a
rare word in small letters, like many package names. Another pair's name of the same shape replaces it on
both sides (data augmentation for rare words: Fadaee et al., arXiv 1705.00440). Pure and deterministic.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict

# A name and the signs inside it. An apostrophe joins words in Italian or French, so it ends a name.
WORD = re.compile(r"\w(?:[\w\-./+:@#]*\w)?(?:\+\+|#)?")
# A word in small letters is a name only if at most this many sources of the corpus have it.
RARE = 3
MIN_LETTERS_OF_RARE = 4
# One pair in this many is renamed at first, so that frequent names stay frequent.
ONE_IN = 3


def renamed_rows(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Renamed copies of every third row and of all other rows, in order; rows without names give none.

    A copy's `id` is the row's with `-renamed` appended.
    """
    num_sources = Counter(word for row in rows for word in set(WORD.findall(row["source"])))
    names = [names_of(row, num_sources) for row in rows]
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted({name for of_row in names for name in of_row}):
        alike[shape_of(name)].append(name)
    thirds: tuple[list[dict], list[dict]] = ([], [])
    for place, (row, of_row) in enumerate(zip(rows, names, strict=True)):
        if of_row:
            thirds[place % ONE_IN > 0].append(renamed(row, of_row, alike))
    return thirds


def names_of(row: dict, num_sources: Counter[str]) -> list[str]:
    """The names that both sides have equally often, in order.

    Names after an elision, as in "l'API", are left out: the article would not suit another name.
    """
    in_source, in_target = Counter(WORD.findall(row["source"])), Counter(WORD.findall(row["target"]))
    elided = {
        match.group()
        for match in WORD.finditer(row["target"])
        if row["target"][: match.start()].endswith(("'", "’"))
    }
    return sorted(
        word
        for word, count in in_source.items()
        if count == in_target[word] and word not in elided and is_name(word, num_sources[word])
    )


def is_name(word: str, num_sources: int) -> bool:
    if not any(letter.isalpha() for letter in word):
        return False
    if shape_of(word) != "small":
        return True
    return num_sources <= RARE and len(word) >= MIN_LETTERS_OF_RARE


def shape_of(word: str) -> str:
    """The way a word is written; words of one shape can replace each other."""
    if any(not letter.isalnum() for letter in word):
        return "signed"
    if any(letter.isnumeric() for letter in word):
        return "numbered"
    if word == word.lower():
        return "small"
    if word == word.upper():
        return "capitals"
    return "capitalized" if word[1:] == word[1:].lower() else "mixed"


def renamed(row: dict, names: list[str], alike: dict[str, list[str]]) -> dict:
    """The row with each of its names replaced, on both sides by the same one."""
    draw = random.Random(row["id"])
    others = {name: draw.choice(alike[shape_of(name)]) for name in names}
    sides = {
        side: WORD.sub(lambda match: others.get(match.group(), match.group()), row[side])
        for side in ("source", "target")
    }
    return row | sides | {"id": f"{row['id']}-renamed"}
