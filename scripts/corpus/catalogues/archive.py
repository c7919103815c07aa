"""Fetches apt's indexes of paths and AppStream texts, and packages, keeping only the wanted files.

Owns the cache of catalogues. Archives lie on disk in small groups while they are read, and are then deleted.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.apt_lists import apt_get, parse_targets, write_configuration
from corpus.apt_sources import Distribution, machine_sources, read_distribution
from corpus.catalogues.paths import BILINGUAL_FORMATS, TextFile, locale_pattern, text_file
from corpus.descriptions import read_stanzas
from corpus.errors import CorpusError

# Archives on disk at the same time, in megabytes.
GROUP_MEGABYTES = 120
MAX_FILE_MEGABYTES = 40
INDEXES = """
Acquire::IndexTargets::deb::Contents-deb { MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)";
  ShortDescription "Contents"; Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Contents";
  KeepCompressed "true"; };
Acquire::IndexTargets::deb::Contents-flat { MetaKey "Contents-$(ARCHITECTURE)"; Identifier "Contents-deb";
  Fallback-Of "Contents-deb"; ShortDescription "Contents"; Description "$(RELEASE) $(ARCHITECTURE) Contents";
  KeepCompressed "true"; Optional "true"; };
Acquire::IndexTargets::deb::AppStream { MetaKey "$(COMPONENT)/dep11/Components-$(NATIVE_ARCHITECTURE).yml";
  ShortDescription "AppStream"; Description "$(RELEASE)/$(COMPONENT) AppStream"; KeepCompressed "true"; };
"""


@dataclass(frozen=True)
class Package:
    """A binary package as the index has it; sizes in bytes."""

    name: str
    source: str
    section: str
    size: int
    unpacked_size: int


@dataclass(frozen=True)
class Archive:
    """The fetched indexes."""

    cache: Path
    packages: dict[str, Package]
    contents: list[Path]
    appstream: list[Path]
    release: dict[str, str]


def open_archive(cache: Path, refresh: bool = False) -> Archive:
    """The indexes, fetched if they are not cached. Raises `CorpusError` if apt cannot fetch them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise CorpusError(
            "apt-get or dpkg-deb not found: the texts lie in packages of Debian or Ubuntu; run this there"
        )
    cache = cache.resolve()
    distribution = read_distribution(Path("/etc/os-release"))
    sources = machine_sources(Path("/etc/apt"), distribution)
    marker = cache / "fetched.json"
    whole = marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == sources
    configuration = write_configuration(cache, sources, ["en"], INDEXES)
    if refresh or not whole:
        marker.unlink(missing_ok=True)
        print(f"fetching the indexes of paths (about 65 MB) into {cache}", file=sys.stderr)
        ended = apt_get(configuration, "-q", "update")
        if ended.returncode != 0:
            complaint = re.search(r"^(?:E:|W:|Err:)\s*(.*)", ended.stdout, re.MULTILINE)
            raise CorpusError(
                f"apt-get could not fetch the indexes: {complaint[1] if complaint else ended.stdout.strip()}"
            )
        for stale in cache.glob("paths-*.json"):
            stale.unlink()
        marker.write_text(json.dumps(sources), encoding="utf-8")
    return read_archive(cache, configuration, distribution)


def read_archive(cache: Path, configuration: Path, distribution: Distribution) -> Archive:
    targets = [
        target
        for target in parse_targets(apt_get(configuration, "indextargets").stdout)
        if target.get("Origin", "").lower() in distribution.ids
    ]
    found: dict[str, list[Path]] = {}
    for target in targets:
        created, filename = target["Created-By"], Path(target["Filename"])
        existing = [path for path in filename.parent.glob(filename.name + "*") if path.is_file()]
        if existing:
            found.setdefault(created, []).append(existing[0])
    contents = sorted(
        {path for name, paths in found.items() if name.startswith("Contents") for path in paths}
    )
    if not contents or "Packages" not in found:
        raise CorpusError("the apt sources of this machine carry no index of paths (Contents): try --refresh")
    packages: dict[str, Package] = {}
    for path in found["Packages"]:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            for stanza in read_stanzas(lines):
                name = stanza["Package"]
                source = stanza.get("Source", name).split(" ", 1)[0]
                sizes = int(stanza.get("Size", 0)), int(stanza.get("Installed-Size", 0)) * 1024
                packages.setdefault(name, Package(name, source, stanza.get("Section", ""), *sizes))
    release = {key.lower(): targets[0].get(key, "") for key in ("Origin", "Codename", "Version")}
    return Archive(cache, packages, contents, sorted(found.get("AppStream", [])), release)


def index_lines(path: Path) -> Iterator[str]:
    """The lines of an index, however apt compressed it."""
    helper = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
    with subprocess.Popen(
        helper, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode != 0:
        raise CorpusError(f"apt-helper could not read {path}: fetch it again with --refresh")


def language_files(
    archive: Archive, language: str
) -> tuple[list[tuple[str, TextFile]], dict[str, str], dict[str, int]]:
    """The language's files with their packages, the package of each English twin, and how many files each
    package has.

    A file without a twin is left out unless it names its English text itself. Cached, as reading the index
    takes a minute.
    """
    cached = archive.cache / f"paths-{language}.json"
    if cached.is_file():
        files, owners, counts = json.loads(cached.read_text(encoding="utf-8"))
        return (
            [(package, TextFile(*fields[:3], tuple(fields[3]))) for package, fields in files],
            owners,
            counts,
        )
    pattern = locale_pattern(language)
    base = language.partition("_")[0].lower()
    files: list[tuple[str, TextFile]] = []
    counts: dict[str, int] = {}
    for path, packages in archive_paths(archive):
        for package in packages:
            counts[package] = counts.get(package, 0) + 1
        if base in path.lower():
            file = text_file(path, pattern)
            if file:
                files.extend((package, file) for package in packages[:1])
    wanted = {path for _, file in files for path in file.english}
    owners = {path: packages[0] for path, packages in archive_paths(archive) if path in wanted}
    kept = []
    for package, file in files:
        english = tuple(path for path in file.english if path in owners)[:1]
        if english or file.format in BILINGUAL_FORMATS:
            kept.append((package, TextFile(file.path, file.format, file.variant, english)))
    named = {package for package, _ in kept}
    counts = {package: count for package, count in counts.items() if package in named}
    rows = [(package, (file.path, file.format, file.variant, file.english)) for package, file in kept]
    cached.write_text(json.dumps([rows, owners, counts]), encoding="utf-8")
    return kept, owners, counts


def archive_paths(archive: Archive) -> Iterator[tuple[str, list[str]]]:
    """Every path of the archive with the names of its packages."""
    for index in archive.contents:
        for line in index_lines(index):
            path, _, owners = line.rstrip("\n").rpartition(" ")
            if path:
                yield path.strip(), [owner.rpartition("/")[2] for owner in owners.split(",")]


def package_files(
    archive: Archive, wanted: dict[str, set[str]], report: Callable[[str], None]
) -> dict[str, Path]:
    """For each package, the directory with its wanted files. Missing files are fetched, in small groups.

    A package that cannot be fetched is reported and left out; `CorpusError` if none can.
    """
    roots = {name: archive.cache / "files" / name for name in wanted}
    missing = [name for name, root in roots.items() if not holds(root, wanted[name])]
    for group in groups(missing, archive.packages):
        with tempfile.TemporaryDirectory(dir=archive.cache) as directory:
            report(f"fetching {len(group)} packages: {' '.join(group)}")
            fetched = apt_get(archive.cache / "apt.conf", "-q", "download", *group, directory=Path(directory))
            archives = {path.name.partition("_")[0]: path for path in Path(directory).glob("*.deb")}
            for name in group:
                if name in archives:
                    keep_files(archives[name], wanted[name], roots[name])
                    archives[name].unlink()
                else:
                    report(f"{name} could not be fetched: {fetched.stdout.strip()[-200:]}")
    present = {name: root for name, root in roots.items() if root.is_dir()}
    if wanted and not present:
        raise CorpusError("apt-get could fetch none of the packages: see the lines above")
    return present


def holds(root: Path, wanted: set[str]) -> bool:
    """Whether the cache has read the package for all these files before."""
    listed = root / "wanted.json"
    return listed.is_file() and wanted.issubset(json.loads(listed.read_text(encoding="utf-8")))


def groups(names: Iterable[str], packages: dict[str, Package]) -> Iterator[list[str]]:
    """Groups of packages that fit the disk together."""
    group: list[str] = []
    size = 0
    for name in names:
        if group and (size + packages[name].size > GROUP_MEGABYTES * 1e6 or len(group) == 25):
            yield group
            group, size = [], 0
        group.append(name)
        size += packages[name].size
    if group:
        yield group


def keep_files(archive: Path, wanted: set[str], root: Path) -> None:
    """Streams a package and writes the wanted files, by their base names' order in it, under `root`."""
    with tempfile.TemporaryDirectory(dir=root.parent.parent) as directory:
        files = Path(directory) / "files"
        files.mkdir()
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as members:
                for member in members:
                    path = member.name.removeprefix("./")
                    if path in wanted and member.isfile() and member.size <= MAX_FILE_MEGABYTES * 1e6:
                        content = members.extractfile(member)
                        target = files / path
                        target.parent.mkdir(parents=True, exist_ok=True)
                        if content is not None and files in target.resolve().parents:
                            target.write_bytes(content.read())
        if process.returncode != 0:
            raise CorpusError(f"dpkg-deb could not read {archive.name}: fetch it again")
        (files / "wanted.json").write_text(json.dumps(sorted(wanted)), encoding="utf-8")
        root.parent.mkdir(parents=True, exist_ok=True)
        if root.exists():
            shutil.rmtree(root)
        files.rename(root)
