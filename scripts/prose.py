#!/usr/bin/env python3
"""Names sentences in comments and documents that are hard to read.

    scripts/prose.py [PATH...]       without paths: all tracked files; exits with 1 if there is one

A clause has at most 25 words; full stop, colon and semicolon end one, and a piece of code is one word. No
sentence begins with "Who" or "What" unless it is a question: name the thing instead. Exempt are tables, code
blocks, fixtures, the changelog and the records of experiments.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_WORDS = 25
EXEMPT = (
    "tests/fixtures/",
    "third_party/",
    "docs/experiments/",
    "CHANGELOG.md",
    "scripts/corpus/catalogues/yields.py",
)
MARKS = {
    ".rs": r"//[/!]?",
    ".proto": r"//",
    ".py": r"#",
    ".sh": r"#",
    ".toml": r"#",
    ".yaml": r"#",
}
LIST_ITEM = re.compile(r"([-*]|\d+\.) +")
# A word such as "e.g." does not end a clause.
END = re.compile(r"(?<![ .(]\w)(?<!e\.g)(?<!al)[.!?:;](?=[)\"*]*(?:\s|$))")
UNNAMED = re.compile(r"[*\"(]*(Who|What|Whose|Whom|Whoever|Whatever)\b")


class Paragraphs:
    """Collects lines of prose into paragraphs, each with the number of its first line."""

    def __init__(self):
        self.found, self.lines, self.first = [], [], 0

    def add(self, number, text):
        if LIST_ITEM.match(text):
            self.end()
            text = LIST_ITEM.sub("", text, count=1)
        if not self.lines:
            self.first = number
        self.lines.append(text)

    def end(self):
        if self.lines:
            self.found.append((self.first, " ".join(self.lines)))
        self.lines = []


def of_document(text):
    """The paragraphs of a Markdown page, without headings, tables and code blocks."""
    paragraphs, in_code = Paragraphs(), False
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        in_code ^= line.startswith("```")
        if in_code or not line or line.startswith(("```", "|", "#", "<")):
            paragraphs.end()
        else:
            paragraphs.add(number, line)
    paragraphs.end()
    return paragraphs.found


def of_source(text, mark):
    """The paragraphs of a source file's comments; `mark` is the pattern that begins one."""
    comment = re.compile(rf"\s*{mark}(?:\s(.*))?$")
    paragraphs, in_code = Paragraphs(), False
    for number, line in enumerate(text.splitlines(), 1):
        found = comment.match(line)
        body = (found[1] or "").strip() if found else ""
        in_code = bool(found) and in_code ^ body.startswith("```")
        # An indented comment is a table or a command.
        is_laid_out = bool(found) and (found[1] or "").startswith("   ")
        if in_code or not body or is_laid_out or body.startswith(("```", "|", "#", "---", "!")):
            paragraphs.end()
        else:
            paragraphs.add(number, body)
    paragraphs.end()
    return paragraphs.found


def of_docstrings(text):
    """The paragraphs of the docstrings of a Python file."""
    paragraphs = Paragraphs()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        docstring = ast.get_docstring(node) if isinstance(node, documented) else None
        first = node.body[0].lineno if docstring else 0
        for number, line in enumerate((docstring or "").splitlines(), first):
            # An indented line, or one with columns, is a table or a command.
            if line.strip() and not re.match(r"  |.*\S   ", line):
                paragraphs.add(number, line.strip())
            else:
                paragraphs.end()
        paragraphs.end()
    return paragraphs.found


def paragraphs_of(path, text):
    """All prose of a file, as (line, paragraph)."""
    suffix = Path(path).suffix
    if suffix == ".md":
        return of_document(text)
    found = of_source(text, MARKS[suffix]) if suffix in MARKS else []
    return sorted(found + (of_docstrings(text) if suffix == ".py" else []))


def problems(path, text):
    """`PATH:LINE: PROBLEM: BEGINNING` for each sentence to rewrite."""
    for line, paragraph in paragraphs_of(path, text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
        plain = re.sub(r"`[^`]*`|<[^>]*>", "code", plain)
        begins = True
        start = 0
        for end in [*END.finditer(plain), None]:
            clause = plain[start : end.start() if end else len(plain)].strip(' )"*')
            mark, start = (end[0] if end else "."), (end.end() if end else len(plain))
            beginning = " ".join(clause.split()[:8])
            num_words = len([word for word in clause.split() if re.search(r"\w", word)])
            if begins and mark != "?" and UNNAMED.match(clause):
                yield f"{path}:{line}: name the subject: {beginning} ..."
            if num_words > MAX_WORDS:
                yield f"{path}:{line}: {num_words} words, at most {MAX_WORDS}: {beginning} ..."
            begins = mark in ".!?"


def main():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True)
    paths = sys.argv[1:] or listing.stdout.decode().rstrip("\0").split("\0")
    found = []
    for path in paths:
        file = REPOSITORY / path
        has_prose = file.suffix == ".md" or file.suffix in MARKS
        is_exempt = any(exempt in path for exempt in EXEMPT)
        if has_prose and not is_exempt and file.is_file() and not file.is_symlink():
            found += problems(path, file.read_text(encoding="utf-8"))
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
