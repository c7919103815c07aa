"""Tests of scripts/prose.py."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import prose

LONG = "one two three four five " * 5 + "six"


class Sentences(unittest.TestCase):
    def found(self, path, text):
        return [
            problem.split(": ", 1)[0] + ": " + problem.split(": ")[1]
            for problem in prose.problems(path, text)
        ]

    def test_a_sentence_of_too_many_words_is_named_with_its_paragraphs_line(self):
        self.assertEqual(
            self.found("a.md", f"# Title\n\nShort.\n\n{LONG}."), ["a.md:5: 26 words, at most 25"]
        )
        self.assertEqual(
            self.found("a.rs", f"fn f() {{}}\n    /// {LONG}\n"), ["a.rs:2: 26 words, at most 25"]
        )
        self.assertEqual(
            self.found("a.py", f'def f():\n    """Short.\n\n    {LONG}\n    """\n'),
            ["a.py:4: 26 words, at most 25"],
        )

    def test_words_are_counted_across_the_lines_of_a_comment(self):
        half = "one two three four five six seven"
        lines = "".join(f"// {half}\n" for _ in range(4))
        self.assertEqual(self.found("a.proto", lines), ["a.proto:1: 28 words, at most 25"])
        self.assertEqual(self.found("a.proto", lines.replace("seven\n", "seven.\n")), [])

    def test_colons_and_semicolons_end_a_clause_and_code_is_one_word(self):
        self.assertEqual(self.found("a.md", LONG.replace("five one", "five; one", 1)), [])
        self.assertEqual(self.found("a.md", LONG.replace("one two three", "`one two three`")), [])

    def test_a_sentence_without_a_named_subject_is_found_and_a_question_is_not(self):
        self.assertEqual(
            self.found("a.rs", "// It runs. What it runs is up to you."), ["a.rs:1: name the subject"]
        )
        self.assertEqual(
            self.found("a.md", "**Who reads** is said by the mode."), ["a.md:1: name the subject"]
        )
        self.assertEqual(self.found("a.md", "What is a bundle? It is a directory."), [])

    def test_tables_code_and_layout_are_not_prose(self):
        self.assertEqual(self.found("a.md", f"| {LONG} |\n"), [])
        self.assertEqual(self.found("a.md", f"```\n{LONG}\n```\n"), [])
        self.assertEqual(self.found("a.rs", f"//! ```text\n//! {LONG}\n//! ```\nlet x = 1;"), [])
        self.assertEqual(self.found("a.py", f"#     {LONG}\n"), [])


if __name__ == "__main__":
    unittest.main()
