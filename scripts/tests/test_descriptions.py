"""Reading descriptions, joining them on their md5, aligning paragraphs, and choosing pairs."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.builders import is_translation, pair_rows, sibling_rows, synopsis_rows
from corpus.descriptions import (
    aligned_paragraphs,
    body_text,
    descriptions_by_md5,
    read_stanzas,
    sources_by_md5,
)

ENGLISH = """card game
 A game of cards, with rules
 that nobody remembers.
 .
 Features:
  - plays by itself,
    if it must;
  o keeps score;
 .
   +---+
   | A |
   +---+
"""
ITALIAN = """gioco di carte
 Un gioco di carte, con regole fisse
 o che nessuno ricorda.
 .
 Caratteristiche:
  * gioca da solo, se deve,
  * segna i punti.
 .
   +---+
   | A |
   +---+
"""


class Descriptions(unittest.TestCase):
    def test_stanzas_keep_the_continuation_lines_of_their_fields(self):
        index = "Package: a\nDescription-it: uno\n due\n .\n tre\n\n\nPackage: b\n"
        stanzas = list(read_stanzas(index.splitlines(keepends=True)))
        self.assertEqual(
            stanzas, [{"Package": "a", "Description-it": "uno\n due\n .\n tre"}, {"Package": "b"}]
        )

    def test_paragraphs_and_list_items_align_one_to_one(self):
        self.assertEqual(
            aligned_paragraphs(ENGLISH, ITALIAN),
            [
                (
                    "A game of cards, with rules that nobody remembers.",
                    "Un gioco di carte, con regole fisse o che nessuno ricorda.",
                ),
                ("Features:", "Caratteristiche:"),
                ("plays by itself, if it must", "gioca da solo, se deve"),
                ("keeps score", "segna i punti"),
            ],
        )

    def test_a_translation_with_another_number_of_paragraphs_gives_no_pair(self):
        self.assertEqual(aligned_paragraphs("x\n one\n .\n two", "x\n uno e due"), [])

    def test_a_paragraph_with_another_number_of_items_is_skipped_and_the_rest_kept(self):
        english = "x\n Some text.\n .\n  * one\n  * two"
        self.assertEqual(
            aligned_paragraphs(english, "x\n Del testo.\n .\n  * uno"), [("Some text.", "Del testo.")]
        )

    def test_body_text_has_a_line_for_each_paragraph_and_item_and_no_verbatim_lines(self):
        self.assertEqual(
            body_text(ENGLISH).splitlines(),
            [
                "A game of cards, with rules that nobody remembers.",
                "Features:",
                "- plays by itself, if it must;",
                "- keeps score;",
            ],
        )


class Pairs(unittest.TestCase):
    def setUp(self):
        self.packages = sources_by_md5(
            [
                {"Package": "cards", "Description-md5": "m1"},
                {"Package": "cards-data", "Source": "cards (1.0)", "Description-md5": "m2"},
                {"Package": "untranslated", "Description-md5": "m3"},
            ]
        )

    def test_descriptions_join_on_their_md5_and_carry_the_source_package(self):
        english = descriptions_by_md5([{"Description-md5": "m2", "Description-en": "card pictures"}], "en")
        italian = descriptions_by_md5(
            [{"Description-md5": "m2", "Description-it": "figure delle carte"}], "it"
        )
        (row,) = pair_rows(self.packages, english, italian)
        self.assertEqual(
            (row["source"], row["target"], row["package"], row["kind"]),
            ("card pictures", "figure delle carte", "cards", "short"),
        )

    def test_a_description_without_a_translation_gives_no_row(self):
        self.assertEqual(pair_rows(self.packages, {"m3": "a thing"}, {"m1": "una cosa"}), [])

    def test_a_text_shared_by_packages_is_one_row_with_its_most_frequent_translation(self):
        packages = {md5: {md5: md5} for md5 in ("a", "b", "c")}
        translated = {"a": "file di sviluppo", "b": "i file per sviluppare", "c": "file di sviluppo"}
        rows = pair_rows(packages, dict.fromkeys("abc", "development files"), translated)
        self.assertEqual([row["target"] for row in rows], ["file di sviluppo"])

    def test_an_untranslated_or_absurdly_long_target_is_no_translation(self):
        self.assertTrue(is_translation("card game", "gioco di carte"))
        self.assertFalse(is_translation("Card game", "card game."))
        self.assertFalse(is_translation("2.0", "due"))
        self.assertFalse(is_translation("card game", "gioco di carte " * 5))

    def test_a_source_package_is_summarized_once_by_the_binary_of_its_name(self):
        body = "\n word" * 30
        packages = {"m1": {"libx": "x"}, "m2": {"x": "x"}}
        (row,) = synopsis_rows(packages, {"m1": "library" + body, "m2": "program" + body})
        self.assertEqual((row["target"], row["package"]), ("program", "x"))

    def test_a_body_of_too_few_words_is_not_summarized(self):
        self.assertEqual(synopsis_rows({"m": {"x": "x"}}, {"m": "program\n too short"}), [])

    def test_siblings_are_the_bodies_that_speak_for_no_source_package_each_once(self):
        bodies = {"m1": "program\n main" + "\n word" * 30, "m2": "library\n shared" + "\n word" * 30}
        packages = {"m1": {"x": "x"}, "m2": {"libx1": "x", "libx2": "x"}, "m3": {"libx-dev": "x"}}
        english = {**bodies, "m3": bodies["m1"].replace("program", "development files")}
        (row,) = sibling_rows(packages, english, synopsis_rows(packages, english))
        self.assertEqual((row["target"], row["package"]), ("library", "x"))


if __name__ == "__main__":
    unittest.main()
