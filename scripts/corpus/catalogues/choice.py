"""Chooses the packages that give the most text for their megabytes. Pure.

A package's yield is known if it was measured on Debian 12. Else it is guessed from the formats of its files,
and limited by their share of the package. A pack of translations therefore comes before a game with one
catalogue beside its pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from corpus.catalogues.archive import Package
from corpus.catalogues.paths import TextFile
from corpus.catalogues.yields import measured_sentences

# Sentences of 6 to 40 words that a file of a format gives, on average; and bytes of an unpacked file for one.
SENTENCES_OF_A_FILE = {
    "gettext": 20, "po": 5, "qm": 5, "pak": 1500, "json": 8, "properties": 2, "markup": 10, "roff": 9,
}  # fmt: skip
BYTES_OF_A_SENTENCE = 400
# A file also costs a connection and a pass over an archive, whatever its size.
COST_OF_A_PACKAGE_BYTES = 150_000


@dataclass
class Offer:
    """The cost of one source package's translated files, in bytes to fetch, and their yield, in guessed
    sentences."""

    packages: set[str] = field(default_factory=set)
    files: list[tuple[str, TextFile]] = field(default_factory=list)
    sentences: float = 0.0


def offers(
    files: Collection[tuple[str, TextFile]],
    owners: Mapping[str, str],
    counts: Mapping[str, int],
    packages: Mapping[str, Package],
    excluded_sources: Collection[str],
) -> list[Offer]:
    """One offer for each package with translated text; the package of the English twins belongs to it."""
    by_package: dict[tuple[str, str], Offer] = {}
    for name, file in files:
        twin = owners.get(file.english[0], name) if file.english else name
        if any(part not in packages or packages[part].source in excluded_sources for part in (name, twin)):
            continue
        offer = by_package.setdefault((name, twin), Offer())
        offer.packages |= {name, twin}
        offer.files.append((name, file))
    num_files = Counter(name for name, _ in files)
    for (name, _), offer in by_package.items():
        package = packages[name]
        share = package.unpacked_size * len(offer.files) / max(counts.get(name, 1), 1)
        guess = sum(SENTENCES_OF_A_FILE[file.format] for _, file in offer.files)
        measured = measured_sentences(name, {file.variant for _, file in offer.files})
        if measured is None:
            offer.sentences = min(guess, share / BYTES_OF_A_SENTENCE)
        else:
            # The English pages of a pack of manual pages lie in many packages, each an offer.
            offer.sentences = measured * len(offer.files) / num_files[name]
    return list(by_package.values())


def chosen(all_offers: list[Offer], packages: Mapping[str, Package], megabytes: float) -> list[Offer]:
    """Greedily the best of the remaining offers, by guessed sentences per byte; packages that are fetched
    already cost nothing more.
    """
    budget = megabytes * 1e6
    fetched: set[str] = set()
    taken: list[Offer] = []
    left = list(all_offers)

    def cost(offer: Offer) -> float:
        return sum(packages[name].size for name in offer.packages - fetched)

    def rank(offer: Offer) -> tuple[float, list[str]]:
        return offer.sentences / (cost(offer) + COST_OF_A_PACKAGE_BYTES), sorted(offer.packages)

    ranks = {id(offer): rank(offer) for offer in left}
    while left:
        best = max(left, key=lambda offer: ranks[id(offer)])
        left.remove(best)
        if cost(best) > budget:
            continue
        budget -= cost(best)
        new, fetched = best.packages - fetched, fetched | best.packages
        taken.append(best)
        # Offers that share a package with this one have become cheaper.
        for offer in left:
            if offer.packages & new:
                ranks[id(offer)] = rank(offer)
    return taken
