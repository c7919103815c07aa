"""Reading outputs, and spotting the failures that an average hides."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from score import Scored, ScoreError, is_looping, is_untranslated, lead_sentence, output_files, read_fields


class Outputs(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def test_part_files_are_read_in_order_and_error_rows_are_not(self):
        self.write("part-000001.jsonl", '{"id": 2, "output": "due"}\n')
        self.write("part-000000.jsonl", '{"id": "1", "output": "uno"}\n')
        (self.directory / "errors").mkdir()
        self.write("errors/part-000000.jsonl", '{"id": "3", "code": "too_long"}\n')
        self.assertEqual(
            read_fields(output_files(self.directory), "id", ["output"]), {"1": ["uno"], "2": ["due"]}
        )

    def test_a_broken_row_is_named_by_file_and_line(self):
        path = self.write("part-000000.jsonl", '{"id": "1", "output": "uno"}\n{"id": "2"}\n')
        with self.assertRaisesRegex(ScoreError, "part-000000.jsonl:2: no field 'output'"):
            read_fields([path], "id", ["output"])

    def test_an_id_that_appears_twice_is_refused(self):
        path = self.write("part-000000.jsonl", '{"id": "1", "output": "uno"}\n' * 2)
        with self.assertRaisesRegex(ScoreError, "appears twice"):
            read_fields([path], "id", ["output"])

    def test_a_directory_without_parts_is_an_error(self):
        with self.assertRaisesRegex(ScoreError, "part-"):
            output_files(self.directory)


class Failures(unittest.TestCase):
    def test_four_repeats_in_a_row_are_a_loop_and_three_are_not(self):
        self.assertTrue(is_looping("la la la la"))
        self.assertFalse(is_looping("la la la"))
        self.assertTrue(is_looping("ecco " + "il file di " * 4))
        self.assertFalse(is_looping("ecco " + "il file di " * 3))
        self.assertFalse(is_looping("un testo che non si ripete"))

    def test_an_output_that_equals_its_source_is_untranslated_unless_the_reference_does_too(self):
        self.assertTrue(is_untranslated(Scored("1", "Card  game", "gioco di carte", "card game")))
        self.assertFalse(is_untranslated(Scored("1", "GNU Emacs", "GNU Emacs", "GNU Emacs")))
        self.assertFalse(is_untranslated(Scored("1", "", "gioco", "game")))

    def test_the_lead_sentence_ends_at_a_stop_or_at_the_line(self):
        self.assertEqual(lead_sentence("Version 2.0 is out. Get it."), "Version 2.0 is out.")
        self.assertEqual(lead_sentence("no stop\nnext line"), "no stop")


if __name__ == "__main__":
    unittest.main()
