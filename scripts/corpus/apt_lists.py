"""Fetches package description indexes, and packages, with apt, into a cache of our own.

Owns the private apt configuration: the machine's sources, with our own lists, cache and languages. It neither
reads nor changes the system's apt state, and needs no rights. The configuration is given with `-c`, which apt
reads after the system's files. Proxies and certificates set there still hold, and `#clear` undoes settings
that cannot be overridden. Never parses a description.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from corpus.apt_sources import Distribution, machine_sources, read_distribution
from corpus.errors import CorpusError


@dataclass(frozen=True)
class DescriptionLists:
    """The fetched indexes, and the release that they came from."""

    packages: list[Path]
    english: list[Path]
    translated: list[Path]
    origin: str
    codename: str
    version: str
    release_date: str


def default_cache_directory() -> Path:
    """`$XDG_CACHE_HOME/baton/debian-descriptions`, by default under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baton" / "debian-descriptions"


def description_lists(language: str | None, cache: Path, refresh: bool = False) -> DescriptionLists:
    """The indexes with English descriptions and, if `language` is given, their translations.

    Missing indexes are fetched into the cache.

    Raises `CorpusError` if apt is missing, no source fits, or the sources carry no such language.
    """
    if shutil.which("apt-get") is None:
        raise CorpusError(
            "apt-get not found: the corpora come from Debian's or Ubuntu's package index; run this there"
        )
    cache = cache.resolve()
    distribution = read_distribution(Path("/etc/os-release"))
    sources = machine_sources(Path("/etc/apt"), distribution)
    wanted = {"en", language} if language else {"en"}
    marker = cache / "fetched.json"
    fetched = read_marker(marker)
    # The request keeps languages fetched earlier, or apt would delete their lists.
    languages = sorted(wanted.union(fetched["languages"]))
    configuration = write_configuration(cache, sources, languages)

    complaint = ""
    if refresh or fetched["sources"] != sources or not wanted.issubset(fetched["languages"]):
        # The marker exists only while the lists are complete: an interrupted fetch is repeated.
        marker.unlink(missing_ok=True)
        complaint = update(configuration, languages)
        if not complaint:
            marker.write_text(json.dumps({"sources": sources, "languages": languages}), encoding="utf-8")
    found = downloaded_lists(configuration, distribution, language)
    if found is None and complaint:
        raise CorpusError(f"apt-get could not fetch the package descriptions: {complaint}")
    if found is None:
        raise CorpusError(
            f"the apt sources of this machine carry no Translation-{language or 'en'}: try another --language"
        )
    if complaint:
        print(f"apt-get: {complaint}; going on with the lists that are there", file=sys.stderr)
    return found


def unpacked_packages(names: Iterable[str], cache: Path) -> dict[str, Path]:
    """The directory that each named package was unpacked into; fetched if it is missing. Needs the lists.

    Raises `CorpusError` if one cannot be fetched or unpacked.
    """
    cache = cache.resolve()
    roots = {name: cache / "unpacked" / name for name in names}
    for name, root in roots.items():
        if root.exists():
            continue
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            fetched = apt_get(cache / "apt.conf", "-q", "download", name, directory=Path(directory))
            packages = list(Path(directory).glob("*.deb"))
            if fetched.returncode != 0 or len(packages) != 1:
                raise CorpusError(f"apt-get could not fetch the package {name}: {fetched.stdout.strip()}")
            files = Path(directory) / "files"
            unpacked = subprocess.run(
                ["dpkg-deb", "-x", packages[0], files], capture_output=True, text=True, check=False
            )
            if unpacked.returncode != 0:
                raise CorpusError(f"dpkg-deb could not unpack {packages[0].name}: {unpacked.stderr.strip()}")
            root.parent.mkdir(exist_ok=True)
            files.rename(root)
    return roots


def read_marker(marker: Path) -> dict:
    """The `sources` and `languages` that were fetched completely; none if that is unknown."""
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {"sources": {}, "languages": []}


def write_configuration(
    cache: Path, sources: dict[str, str], languages: list[str], indexes: str = ""
) -> Path:
    """Writes our sources and apt configuration, with more index targets if given, into the cache; returns its
    path."""
    source_parts = cache / "sources"
    for directory in (source_parts, cache / "state" / "lists" / "partial", cache / "archives" / "partial"):
        directory.mkdir(parents=True, exist_ok=True)
    for stale in source_parts.iterdir():
        stale.unlink()
    for name, text in sources.items():
        (source_parts / name).write_text(text, encoding="utf-8")
    configuration = cache / "apt.conf"
    quoted_languages = " ".join(f'"{language}";' for language in languages)
    configuration.write_text(
        f"""#clear Acquire::Languages;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
APT::Update::Error-Mode "any";
Acquire::Languages {{ {quoted_languages} }};
Acquire::GzipIndexes "false";
APT::Sandbox::User "root";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{source_parts}";
Dir::State "{cache / "state"}";
Dir::State::status "/dev/null";
Dir::Cache "{cache}";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
{indexes}""",
        encoding="utf-8",
    )
    return configuration


def apt_get(
    configuration: Path, *arguments: str, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-c", str(configuration), *arguments],
        cwd=directory,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def update(configuration: Path, languages: list[str]) -> str:
    """Fetches the indexes. Returns apt's first complaint, or nothing if all went well."""
    names = ", ".join(languages)
    print(
        f"fetching package descriptions ({names}; 20 to 30 MB) into {configuration.parent}", file=sys.stderr
    )
    ended = apt_get(configuration, "-q", "update")
    fetched = re.search(r"^Fetched (.*)", ended.stdout, re.MULTILINE)
    if fetched:
        print(f"fetched {fetched[1]}", file=sys.stderr)
    if ended.returncode == 0:
        return ""
    for kind in ("E:", "W:", "Err:"):
        complaint = re.search(rf"^{kind}\s*(.*)", ended.stdout, re.MULTILINE)
        if complaint:
            return complaint[1]
    return f"exit code {ended.returncode}"


def downloaded_lists(
    configuration: Path, distribution: Distribution, language: str | None
) -> DescriptionLists | None:
    """The distribution's own indexes on disk; None if a needed kind is missing."""
    targets = [
        target
        for target in parse_targets(apt_get(configuration, "indextargets").stdout)
        if target.get("Origin", "").lower() in distribution.ids and Path(target["Filename"]).is_file()
    ]
    packages = [target for target in targets if target["Created-By"] == "Packages"]
    english = [target for target in targets if target.get("Language") == "en"]
    translated = [target for target in targets if language and target.get("Language") == language]
    if not packages or not english or (language and not translated):
        return None
    release = packages[0]
    release_prefix = release["Filename"][: -len(release["MetaKey"].replace("/", "_"))]
    return DescriptionLists(
        packages=[Path(target["Filename"]) for target in packages],
        english=[Path(target["Filename"]) for target in english],
        translated=[Path(target["Filename"]) for target in translated],
        origin=release["Origin"],
        codename=release.get("Codename", ""),
        version=release.get("Version", ""),
        release_date=release_date(release_prefix),
    )


def parse_targets(text: str) -> list[dict[str, str]]:
    """The stanzas that `apt-get indextargets` prints, as dictionaries."""
    return [
        dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
        for stanza in text.split("\n\n")
        if "\nFilename: " in stanza and "\nCreated-By: " in stanza
    ]


def release_date(release_prefix: str) -> str:
    """The date the archive was published, as its release file states it."""
    for name in ("InRelease", "Release"):
        release_file = Path(release_prefix + name)
        if release_file.is_file():
            date = re.search(
                r"^Date: (.*)", release_file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
            )
            if date:
                return date[1]
    return "unknown"
