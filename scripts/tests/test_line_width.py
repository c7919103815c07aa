"""Tests of scripts/line_width.py."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import line_width


class WideLines(unittest.TestCase):
    def found(self, path, line):
        return list(line_width.wide_lines(path, f"short\n{line}\n"))

    def test_a_line_of_prose_or_code_that_is_too_wide_is_named(self):
        wide = "word " * 22 + "x"
        self.assertEqual(self.found("docs/a.md", wide), ["docs/a.md:2: 111 columns, at most 110"])
        self.assertEqual(self.found("a.rs", wide[:-1]), [])

    def test_tables_rows_of_json_and_words_that_cannot_be_broken_are_exempt(self):
        self.assertEqual(self.found("docs/a.md", "| " + "cell " * 30), [])
        self.assertEqual(self.found("docs/a.md", '{"text": "' + "word " * 30 + '"}'), [])
        self.assertNotEqual(self.found("a.rs", "| " + "cell " * 30), [])
        self.assertEqual(self.found("a.rs", "// see https://example.org/" + "a" * 100), [])


if __name__ == "__main__":
    unittest.main()
