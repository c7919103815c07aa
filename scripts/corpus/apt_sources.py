"""Chooses, from the apt sources of a machine, those of its distribution's main suite.

A vendor's repository carries no translations and may be down; update pockets repeat the main suite.
Reads both of apt's formats: one-line (`.list`) and deb822 (`.sources`), see sources.list(5). Never runs apt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from corpus.errors import CorpusError

FREE_COMPONENTS = {"main", "universe"}
SUITE_ALIASES = {"stable", "oldstable", "testing", "unstable", "sid"}
ONE_LINE_SOURCE = re.compile(
    r"^deb\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+)"
)
DEB822_FIELD = re.compile(r"^([^\s:]+):(.*(?:\n[ \t].*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Distribution:
    """The machine's distribution: names it answers to (`debian`), and its suite's code names (`bookworm`)."""

    ids: frozenset[str]
    suites: frozenset[str]


def read_distribution(os_release: Path) -> Distribution:
    """Reads ids and code names from an os-release file."""
    try:
        lines = os_release.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CorpusError(f"cannot tell which distribution this is: {error}") from error
    fields = {}
    for line in lines:
        key, _, value = line.partition("=")
        fields[key] = value.strip().strip("\"'")
    ids = {fields.get("ID", ""), *fields.get("ID_LIKE", "").split()} - {""}
    codenames = {fields.get(f"{prefix}_CODENAME", "") for prefix in ("VERSION", "UBUNTU", "DEBIAN")} - {""}
    return Distribution(frozenset(ids), frozenset(codenames))


def machine_sources(apt_directory: Path, distribution: Distribution) -> dict[str, str]:
    """The machine's sources of the distribution's main suite: file name -> contents."""
    sources = {}
    for path in [apt_directory / "sources.list", *sorted((apt_directory / "sources.list.d").glob("*"))]:
        if path.suffix in {".list", ".sources"} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            narrow = deb822_sources if path.suffix == ".sources" else one_line_sources
            kept = narrow(text, distribution)
            if kept:
                sources[path.name] = kept
    if not sources:
        suites = " or ".join(sorted(distribution.suites)) or "of a Debian or Ubuntu release"
        raise CorpusError(
            f"no apt source in {apt_directory} names suite {suites}, component main: add one, try again"
        )
    return sources


def one_line_sources(text: str, distribution: Distribution) -> str:
    """The binary sources of the main suite in a `.list` file, reduced to free components."""
    kept = ""
    for line in text.splitlines():
        entry = ONE_LINE_SOURCE.match(line.strip())
        if (
            entry
            and entry["suite"] in distribution.suites | SUITE_ALIASES
            and not entry["uri"].startswith("cdrom:")
        ):
            components = [
                component for component in entry["components"].split() if component in FREE_COMPONENTS
            ]
            if components:
                kept += (
                    f"deb {entry['options'] or ''}{entry['uri']} {entry['suite']} {' '.join(components)}\n"
                )
    return kept


def deb822_sources(text: str, distribution: Distribution) -> str:
    """The enabled stanzas of a `.sources` file, reduced likewise; other fields and inline keys stay."""
    allowed = {
        "types": {"deb"},
        "suites": distribution.suites | SUITE_ALIASES,
        "components": FREE_COMPONENTS,
    }
    kept = ""
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented):
        fields = {name.lower(): value for name, value in DEB822_FIELD.findall(stanza)}
        for name, words in allowed.items():
            fields[name] = " " + " ".join(word for word in fields.get(name, "").split() if word in words)
        is_enabled = fields.get("enabled", "yes").strip().lower() not in {"no", "false", "0"}
        if is_enabled and all(fields[name].strip() for name in allowed):
            kept += "".join(f"{name}:{value}\n" for name, value in fields.items()) + "\n"
    return kept
