"""Pairs the blocks of two texts, and the sentences of two paragraphs. Pure.

Blocks pair by their ids if both texts have them, or in order if both have the same sequence of tags. Else
they pair along the cheapest monotone path through both (after Gale and Church 1993): by lengths, tags, and
words that both texts spell alike.
"""

from __future__ import annotations

import math
import re

from corpus.catalogues.markup import Block

# A pair costs less than this or its blocks stay alone. Lengths that differ by a factor of two cost 1.4.
GAP = 1.2
MAX_BLOCKS = 4000
# The largest distance of a pair from the diagonal, in blocks, beside the texts' difference.
BAND = 60
MIN_SHARE_OF_IDS = 0.5
ALIKE = re.compile(r"\d[\d.]*|[A-Za-z]*[_/@\\-][A-Za-z_/@\\-]+|[A-Z]{2,}")
SENTENCE_END = re.compile(r"(?:[.!?…]+[\"”’»')\]]*\s+|[。！？]+[」』]?\s*)")
ABBREVIATIONS = (
    r"[A-Za-z]|e\.g|i\.e|etc|vs|cf|[Nn]o|[Mm]rs?|[Dd]rs?|[Ss]ra?|[Ss]t|[Ee]x|[Pp]\.\s?ex|[Ff]igs?|[Ee]q|al"
    r"|approx|resp|[Vv]er|[Cc]ap|[Pp]ágs?|[Nn]r|[Bb]zw|z\.B|u\.a|[Pp]\.|[Aa]rt|[Vv]ol|ed|Inc|Ltd|Co|Corp|Jr"
)
ABBREVIATION = re.compile(rf"(?:^|[\s(\[])(?:{ABBREVIATIONS})\.$")


def paired_blocks(english: list[Block], translated: list[Block]) -> list[tuple[Block, Block]]:
    """The pairs, in the order of the English text."""
    if not english or not translated:
        return []
    keys = {block.key: place for place, block in reversed(list(enumerate(translated))) if block.key}
    shared = [block for block in english if block.key in keys]
    if len(shared) >= MIN_SHARE_OF_IDS * min(len(english), len(translated)):
        by_key: dict[str, list[Block]] = {}
        for block in translated:
            by_key.setdefault(block.key, []).append(block)
        counts: dict[str, int] = {}
        for block in english:
            counts[block.key] = counts.get(block.key, 0) + 1
        # A key that holds several blocks pairs only if it holds as many on both sides.
        fitting = [block for block in shared if counts[block.key] == len(by_key[block.key])]
        return [(block, by_key[block.key].pop(0)) for block in fitting]
    if [block.tag for block in english] == [block.tag for block in translated]:
        return list(zip(english, translated))
    if len(english) > MAX_BLOCKS or len(translated) > MAX_BLOCKS:
        return []
    return cheapest_pairs(english, translated)


def cheapest_pairs(english: list[Block], translated: list[Block]) -> list[tuple[Block, Block]]:
    """The monotone one-to-one pairs of least cost; a block without a partner costs `GAP`."""
    rows, columns = len(english), len(translated)
    marks = [[frozenset(ALIKE.findall(block.text)) for block in blocks] for blocks in (english, translated)]
    band = BAND + abs(rows - columns)
    cost = [[math.inf] * (columns + 1) for _ in range(rows + 1)]
    step = [bytearray(columns + 1) for _ in range(rows + 1)]
    for i in range(rows + 1):
        for j in range(max(0, i - band), min(columns, i + band) + 1):
            best, how = (0.0, 0) if i == j == 0 else (math.inf, 0)
            if i and cost[i - 1][j] + GAP < best:
                best, how = cost[i - 1][j] + GAP, 1
            if j and cost[i][j - 1] + GAP < best:
                best, how = cost[i][j - 1] + GAP, 2
            if i and j:
                own = pair_cost(english[i - 1], translated[j - 1], marks[0][i - 1], marks[1][j - 1])
                if cost[i - 1][j - 1] + own < best:
                    best, how = cost[i - 1][j - 1] + own, 3
            cost[i][j], step[i][j] = best, how
    pairs = []
    i, j = rows, columns
    while i or j:
        how = step[i][j]
        if how == 3:
            if pair_cost(english[i - 1], translated[j - 1], marks[0][i - 1], marks[1][j - 1]) < GAP:
                pairs.append((english[i - 1], translated[j - 1]))
            i, j = i - 1, j - 1
        elif how == 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def pair_cost(english: Block, translated: Block, marks: frozenset[str], other_marks: frozenset[str]) -> float:
    """Twice the logarithm of the lengths' ratio, and the share of numbers and names that only one side has.
    """
    if english.tag != translated.tag:
        return math.inf
    ratio = (len(translated.text) + 4) / (len(english.text) + 4)
    either = marks | other_marks
    alone = len(either - (marks & other_marks)) / len(either) if either else 0.3
    return 2 * abs(math.log(ratio / 1.08)) + 1.5 * alone


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph: an end mark, white space, and then a possible beginning of a sentence."""
    found, start = [], 0
    for match in SENTENCE_END.finditer(text):
        head, rest = text[start : match.end()].rstrip(), text[match.end() :].lstrip("\"“”'‘«([¿¡*-–—")
        if (
            not rest
            or not (rest[0].isupper() or rest[0].isdigit() or not rest[0].isascii())
            or rest[0].islower()
        ):
            continue
        if head.endswith(".") and ABBREVIATION.search(head):
            continue
        found.append(head)
        start = match.end()
    if text[start:].strip():
        found.append(text[start:].strip())
    return found


def paired_sentences(source: str, target: str) -> list[tuple[str, str]]:
    """The sentences of both if they are equally many, have the same proportions, and spell the same numbers;
    else the whole as one.
    """
    sources, targets = sentences(source), sentences(target)
    if len(sources) != len(targets) or len(sources) < 2:
        return [(source, target)]
    whole = len(target) / len(source)
    for one, other in zip(sources, targets):
        ratio = (len(other) + 6) / (len(one) + 6) / whole
        numbers, others = (set(re.findall(r"\d+", text)) for text in (one, other))
        if not 0.55 < ratio < 1.8 or (numbers and others and not numbers & others):
            return [(source, target)]
    return list(zip(sources, targets))
