"""Pairs with other names: which words are names, and that both sides change alike."""

import sys
import unittest
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.renaming import ONE_IN, names_of, renamed_rows, shape_of


def row(source, target, id="7"):
    return {"id": id, "source": source, "target": target, "package": "p"}


def names(source, target, num_sources=()):
    return names_of(row(source, target), Counter(dict(num_sources)))


class Names(unittest.TestCase):
    def test_a_name_stands_alike_on_both_sides(self):
        self.assertEqual(
            names("Simple client for XMPP", "semplice client per XMPP", {"client": 99}), ["XMPP"]
        )

    def test_a_name_that_one_side_has_more_often_is_left_alone(self):
        self.assertEqual(names("Qt and the Qt tools", "gli strumenti di Qt"), [])

    def test_an_elided_name_is_left_alone_since_its_article_would_not_suit_another(self):
        self.assertEqual(names("an API for GTK", "un'API per GTK"), ["GTK"])

    def test_signs_inside_belong_to_the_name_and_those_around_it_do_not(self):
        self.assertEqual(
            names('the "xfce4-panel", C++ (v1.2).', 'lo "xfce4-panel", C++ (v1.2).'),
            ["C++", "v1.2", "xfce4-panel"],
        )

    def test_rare_words_in_small_letters_are_names_and_frequent_or_short_ones_are_not(self):
        pair = ("files of minicom in tar", "file di minicom in tar")
        self.assertEqual(names(*pair, {"minicom": 3, "in": 999, "tar": 2}), ["minicom"])
        self.assertEqual(names(*pair, {"minicom": 4, "in": 999, "tar": 2}), [])

    def test_numbers_are_no_names(self):
        self.assertEqual(names("version 3.2 of 7", "versione 3.2 di 7"), [])

    def test_words_written_alike_have_the_same_shape(self):
        shapes = {
            "xfce4-panel": "signed",
            "IPv6": "numbered",
            "minicom": "small",
            "XMPP": "capitals",
            "Debian": "capitalized",
        }
        self.assertEqual({word: shape_of(word) for word in [*shapes, "GnuPG"]}, shapes | {"GnuPG": "mixed"})


class RenamedRows(unittest.TestCase):
    ROWS = [
        row("Pidgin and Empathy know XMPP", "Pidgin ed Empathy conoscono XMPP", id=f"{number:04}")
        for number in range(ONE_IN)
    ] + [
        row(
            f"about Name{chr(97 + n)} and ABC{chr(65 + n)}",
            f"su Name{chr(97 + n)} e ABC{chr(65 + n)}",
            id=f"{n:04x}",
        )
        for n in range(20)
    ]

    def test_both_sides_get_the_same_other_names_of_the_same_shape(self):
        first = renamed_rows(self.ROWS)[0][0]
        self.assertEqual((first["id"], first["package"]), ("0000-renamed", "p"))
        a, _, b, know, c = first["source"].split()
        self.assertEqual(first["target"].split(), [a, "ed", b, "conoscono", c])
        self.assertEqual(
            [know, shape_of(a), shape_of(b), shape_of(c)], ["know", "capitalized", "capitalized", "capitals"]
        )
        self.assertNotEqual((a, b, c), ("Pidgin", "Empathy", "XMPP"))

    def test_every_third_row_stands_apart_and_those_without_names_are_left_out(self):
        nameless = row("a plain text", "un testo semplice", id="9")
        ids = [[row["id"] for row in rows] for rows in renamed_rows([nameless] * ONE_IN + self.ROWS[:ONE_IN])]
        self.assertEqual(ids, [["0000-renamed"], ["0001-renamed", "0002-renamed"]])

    def test_the_same_pairs_give_the_same_ones(self):
        self.assertEqual(renamed_rows(self.ROWS), renamed_rows(self.ROWS))


if __name__ == "__main__":
    unittest.main()
