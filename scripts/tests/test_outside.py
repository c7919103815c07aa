"""Test sets of other text than package descriptions: what counts as a message, and what is taken of a manual
page."""

import gzip
import struct
import tempfile
import unittest
from pathlib import Path

from corpus.outside import (
    ONE_LINE_NAME,
    PROSE_FILES,
    is_message,
    manual_sections,
    message_rows,
    opening,
    paragraphs,
    prose_rows,
)

PAGE = """LS(1)   User Commands   LS(1)

NAME
     ls - list directory contents

DESCRIPTION
     List information about the FILEs.
     Sort entries alphabetically.

     -a, --all
            do not ignore entries starting with .

     After the options.

GNU coreutils   September 2022   LS(1)
"""


def catalog(messages: dict[str, str]) -> bytes:
    """A message catalog in GNU gettext's binary format."""
    pairs = sorted((source.encode(), target.encode()) for source, target in messages.items())
    place = 28 + 16 * len(pairs)
    tables, texts = [b"", b""], b""
    for side in (0, 1):
        for pair in pairs:
            tables[side] += struct.pack("<II", len(pair[side]), place + len(texts))
            texts += pair[side] + b"\0"
    header = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return header + tables[0] + tables[1] + texts


class Messages(unittest.TestCase):
    def test_a_message_has_words_and_nothing_that_only_a_program_reads(self):
        self.assertTrue(is_message("cannot open the named file"))
        self.assertTrue(is_message("warning: using insecure memory!\n"))
        self.assertFalse(is_message("cannot open file %s for reading"))
        self.assertFalse(is_message("no such file"))
        self.assertFalse(is_message("  -a, --all   do not hide entries"))
        self.assertFalse(is_message("first line of a text\nsecond line of a text"))

    def test_rows_are_the_translated_messages_of_one_language(self):
        with tempfile.TemporaryDirectory() as directory:
            for language, text in (
                ("it", "impossibile aprire il file"),
                ("fr", "impossible d'ouvrir le fichier"),
            ):
                path = Path(directory) / f"usr/share/locale/{language}/LC_MESSAGES/tool.mo"
                path.parent.mkdir(parents=True)
                messages = {
                    "": "Content-Type: text/plain; charset=UTF-8\n",
                    "cannot open the file": text,
                    "-- -- -- --": "",
                }
                path.write_bytes(catalog(messages))
            rows = message_rows([Path(directory)], "it")
        expected = {
            "source": "cannot open the file",
            "target": "impossibile aprire il file",
            "package": "tool",
        }
        self.assertEqual([{key: row[key] for key in expected} for row in rows], [expected])


class Manuals(unittest.TestCase):
    def test_a_page_gives_its_one_line_name_and_its_opening_without_the_options(self):
        sections = dict(manual_sections(PAGE))
        self.assertEqual(ONE_LINE_NAME.match(" ".join(sections["NAME"]))[1], "list directory contents")
        self.assertEqual(
            opening(sections["DESCRIPTION"]),
            "List information about the FILEs.\nSort entries alphabetically.",
        )

    def test_an_opening_ends_before_it_is_longer_than_what_was_trained_on(self):
        paragraphs = ["word " * 200, "word " * 50, "word"]
        self.assertEqual(opening(paragraphs), "\n".join(paragraphs[:2]))


class Prose(unittest.TestCase):
    TEXT = """
1. Introduction

   The Project is an association of
   individuals.

    1. A person may leave the Project at
       a time of their choice, by stating so.
    a. Everyone votes.
"""

    def test_paragraphs_and_list_items_are_lines_without_their_markers(self):
        expected = [
            "Introduction",
            "The Project is an association of individuals.",
            "A person may leave the Project at a time of their choice, by stating so.",
            "Everyone votes.",
        ]
        self.assertEqual(list(paragraphs(self.TEXT)), expected)

    def test_rows_are_whole_sentences_of_some_words_each_once(self):
        with tempfile.TemporaryDirectory() as directory:
            documents = Path(directory) / "usr/share/doc/debian"
            documents.mkdir(parents=True)
            for name in PROSE_FILES:
                (documents / name).write_bytes(gzip.compress(self.TEXT.encode()))
            rows = prose_rows(Path(directory))
        self.assertEqual([row["text"] for row in rows], list(paragraphs(self.TEXT))[1:3])


if __name__ == "__main__":
    unittest.main()
