"""Finds files whose translations have words run together, and drops these texts. Pure.

Some catalogues lost the blanks between words, or the end of a name before its description. A word that splits
into two frequent ones is no proof, because languages form such words. A file is therefore suspected only if
it has far more of them than the others of its language.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection

WORD = re.compile(r"[^\W\d_]+")
# A word in this many texts is a word; one in this many or fewer may be two that were run together.
FREQUENT, RARE = 30, 2
MIN_LETTERS = 6
# Of this many most frequent words of a language, a capital inside a sentence marks the beginning of a new
# text.
FUNCTION_WORDS = 60
ENGLISH_BEGINNINGS = frozenset(("the", "a", "an", "this"))
# Thresholds of a suspected file: the number of such texts, their share, and the ratio to the share of all
# others.
MIN_TEXTS, MIN_SHARE, TIMES_OTHERS = 5, 0.005, 5.0


def without_run_together(rows: Collection[dict]) -> list[dict]:
    """The rows without those of suspected files whose target has words run together, or a text behind
    another.
    """
    dropped: set[int] = set()
    by_variant: dict[str, list[int]] = defaultdict(list)
    rows = list(rows)
    for place, row in enumerate(rows):
        by_variant[row["variant"]].append(place)
    for places in by_variant.values():
        counts = Counter(
            word for place in places for word in set(WORD.findall(rows[place]["target"].lower()))
        )
        frequent = {word for word, count in counts.items() if count >= FREQUENT and len(word) > 1}
        functional = {word for word, _ in counts.most_common(FUNCTION_WORDS)}
        flagged = {place for place in places if is_run_together(rows[place], counts, frequent, functional)}
        files: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place in places:
            files[rows[place]["origin"], rows[place]["document"]].append(place)
        for of_file in files.values():
            found = sum(place in flagged for place in of_file)
            others = (len(flagged) - found) / max(len(places) - len(of_file), 1)
            if found >= MIN_TEXTS and found / len(of_file) > max(MIN_SHARE, TIMES_OTHERS * others):
                # In such a file a one-letter word may have been glued too.
                known = frequent | {word for word in functional if len(word) == 1}
                dropped.update(
                    place for place in of_file if is_run_together(rows[place], counts, known, functional)
                )
    return [row for place, row in enumerate(rows) if place not in dropped]


def is_run_together(row: dict, counts: Counter[str], frequent: set[str], functional: set[str]) -> bool:
    """Whether a rare word splits into two frequent ones, or a text begins with a capital where none ended."""
    words = WORD.findall(row["target"].lower())
    source = row["source"].lower()
    for word in words:
        if len(word) >= MIN_LETTERS and counts[word] <= RARE and word not in source:
            if any(word[:cut] in frequent and word[cut:] in frequent for cut in range(1, len(word))):
                return True
    return begins_inside(row["target"], functional) and not begins_inside(row["source"], ENGLISH_BEGINNINGS)


def begins_inside(text: str, functional: Collection[str]) -> bool:
    """Whether a function word has a capital after a word or a number."""
    found = re.findall(r"\w ([^\W\d_a-zà-ÿ][^\W\d_]*)(?= [a-zà-ÿ])", text)
    return any(word.lower() in functional for word in found)
