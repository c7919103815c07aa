"""Test sets of other text than package descriptions: messages of programs, manual pages, and prose.

Owns what counts as a row there. The texts come from Debian packages: message catalogs in GNU gettext's
format, manual pages, which `mandoc` renders, and plain text. Packages unpacked earlier make no difference. No
model is ever trained on these texts.
"""

from __future__ import annotations

import gettext
import gzip
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus.builders import MAX_BODY_WORDS, MIN_BODY_WORDS, is_translation, text_id
from corpus.errors import CorpusError

# Programs of many kinds whose messages have been translated for decades; and their manual pages, and others
# with prose in them.
MESSAGE_PACKAGES = (
    "apt aptitude-common bash binutils bison coreutils diffutils dpkg findutils gawk gettext gnupg-l10n grep"
    " libc-l10n make man-db nano passwd sed tar util-linux-locales wget"
).split()
MANUAL_PACKAGES = (
    *MESSAGE_PACKAGES,
    *"curl git-man gzip iproute2 manpages manpages-dev openssh-client procps psmisc rsync".split(),
    *"util-linux xz-utils".split(),
)
RENDERER_PACKAGE = "mandoc"
# The constitution of a large association of people, and its founding manifesto.
PROSE_PACKAGE = "doc-debian"
PROSE_FILES = ("constitution.txt.gz", "debian-manifesto.gz")

MIN_MESSAGE_WORDS, MAX_MESSAGE_WORDS = 4, 60
MIN_PROSE_WORDS = 6
# Text for programs only: directives of printf and of shells, escapes, several lines, columns.
FORMATTED = re.compile(r"%|\\|\n|\t|  |\$[\w{]|\{\d*\}")
LIST_MARKER = re.compile(r"\s*(?:(?:\d+|[a-z])[.)]|[-*+])\s+")
OVERSTRUCK = re.compile(r".\x08")
ONE_LINE_NAME = re.compile(r"^\S[^\n]*? (?:-|‐|–|—) +(\S.*)$", re.DOTALL)


def message_rows(roots: Iterable[Path], language: str) -> list[dict]:
    """Messages of the programs in unpacked packages, with their translations.

    Rows have `id`, `source`, `target` and `package`, which is the catalog.
    """
    rows: dict[str, dict] = {}
    catalogs = [path for root in roots for path in root.glob(f"usr/share/locale/{language}/LC_MESSAGES/*.mo")]
    for catalog in sorted(catalogs, key=lambda path: path.name):
        with catalog.open("rb") as file:
            # There is no public way to list the messages.
            messages = gettext.GNUTranslations(file)._catalog  # noqa: SLF001
        for source, target in messages.items():
            if isinstance(source, str) and is_message(source) and not FORMATTED.search(target):
                source, target = source.strip(), target.strip()
                if is_translation(source, target):
                    row = {"id": text_id(source), "source": source, "target": target, "package": catalog.stem}
                    rows.setdefault(source, row)
    return list(rows.values())


def is_message(text: str) -> bool:
    """Whether it is a text of some words that could stand anywhere."""
    words = len(text.split())
    return MIN_MESSAGE_WORDS <= words <= MAX_MESSAGE_WORDS and not FORMATTED.search(text.strip())


def prose_rows(root: Path) -> list[dict]:
    """The paragraphs and list items of the prose in an unpacked package, in their order: `id`, `text`."""
    rows: dict[str, dict] = {}
    for name in PROSE_FILES:
        path = root / "usr/share/doc/debian" / name
        for text in paragraphs(gzip.decompress(path.read_bytes()).decode("utf-8")):
            if len(text.split()) >= MIN_PROSE_WORDS and text.endswith((".", "!", "?", ";")):
                rows.setdefault(text, {"id": text_id(text), "text": text})
    return list(rows.values())


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs and list items of a plain text, each as one line without its marker."""
    lines: list[str] = []
    for line in (*text.splitlines(), ""):
        marker = LIST_MARKER.match(line)
        if lines and (marker or not line.strip()):
            yield " ".join(" ".join(lines).split())
            lines = []
        if line.strip():
            lines.append(line[marker.end() :] if marker else line)


def manual_rows(roots: Iterable[Path], renderer: Path) -> list[dict]:
    """Descriptions in manual pages of unpacked packages, with the pages' one-line names.

    Rows have `id`, `source`, `target` and `package`, which is the page.
    """
    rows: dict[str, dict] = {}
    pages = [path for root in roots for path in root.glob("usr/share/man/man[1-8]/*")]
    for page in sorted(pages, key=lambda path: (path.parent.name, path.name)):
        sections = dict(manual_sections(rendered(renderer, page)))
        named = ONE_LINE_NAME.match(" ".join(sections.get("NAME", [""])))
        body = opening(sections.get("DESCRIPTION", []))
        if named and MIN_BODY_WORDS <= len(body.split()) and named[1].strip():
            row = {
                "id": text_id(body),
                "source": body,
                "target": named[1].strip(),
                "package": page.name.split(".")[0],
            }
            rows.setdefault(body, row)
    return list(rows.values())


def rendered(renderer: Path, page: Path) -> str:
    """The page as plain text, without hyphenation; empty if it only names another page."""
    command = [renderer, "-T", "utf8", "-O", "width=990", page]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if ended.returncode > 4:
        raise CorpusError(f"mandoc cannot render {page}: {ended.stderr.decode(errors='replace').strip()}")
    return OVERSTRUCK.sub("", ended.stdout.decode("utf-8"))


def manual_sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each section's title and the paragraphs indented like its first; lists and examples are left out."""
    for section in re.split(r"\n(?=\S)", text):
        title, _, body = section.partition("\n")
        lines = [line for line in body.split("\n") if line.strip()]
        indents = [len(line) - len(line.lstrip()) for line in lines]
        yield title.strip(), [line.strip() for line, indent in zip(lines, indents) if indent == indents[0]]


def opening(paragraphs: Iterable[str]) -> str:
    """The paragraphs before the first option, one a line, up to the length of the training corpus's texts."""
    taken: list[str] = []
    for paragraph in paragraphs:
        if (
            paragraph.startswith("-")
            or sum(len(text.split()) for text in (*taken, paragraph)) > MAX_BODY_WORDS
        ):
            break
        taken.append(paragraph)
    return "\n".join(taken)
