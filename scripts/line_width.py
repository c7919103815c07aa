#!/usr/bin/env python3
"""Names the tracked lines that are wider than 110 columns, in code, comments and prose.

    scripts/line_width.py            exits with 1 if there is one

Tables, fixtures, generated files and rows of JSON in documents are exempt. So are lines with a word that fits
on no line, such as a URL.
"""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_COLUMNS = 110
# A line with a longer word is as short as it can be.
MAX_WORD = 60
SUFFIXES = {".rs", ".py", ".proto", ".md", ".toml", ".yaml", ".yml", ".sh", ".html", ".txt", ".env", ""}
SUFFIXES |= {".Containerfile", ".dockerignore"}
# Texts that are data, or that a tool writes.
EXEMPT = ("tests/fixtures/", "third_party/", "LICENSE", "scripts/requirements-")


def wide_lines(path, text):
    """`PATH:LINE: N columns` for each line of `text` that should be shorter."""
    for number, line in enumerate(text.splitlines(), 1):
        is_data = path.endswith(".md") and line.lstrip().startswith(("|", '{"'))
        has_long_word = any(len(word) > MAX_WORD for word in line.split())
        if len(line) > MAX_COLUMNS and not is_data and not has_long_word:
            yield f"{path}:{number}: {len(line)} columns, at most {MAX_COLUMNS}"


def main():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True)
    wide = []
    for path in listing.stdout.decode().split("\0"):
        file = REPOSITORY / path
        is_text = file.suffix in SUFFIXES and not path.startswith(EXEMPT)
        if path and is_text and file.is_file() and not file.is_symlink():
            wide += wide_lines(path, file.read_text(encoding="utf-8"))
    for line in wide:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1 if wide else 0)


if __name__ == "__main__":
    main()
