"""Which split a package falls in, and what leaks from one into the other."""

import sys
import unittest
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.splits import drop_leaks, home_package, more_for_train, ngrams, split_of_package, split_rows


def row(id, source, target="testo", package="p"):
    return {"id": id, "source": source, "target": target, "package": package}


def package_in(split):
    return next(f"p{number}" for number in range(1000) if split_of_package(f"p{number}") == split)


class Splits(unittest.TestCase):
    def test_the_split_of_a_package_never_changes(self):
        # sha256 modulo 100 of these names: 58, 80 and 3.
        packages = ("bash", "0ad", "snakemake")
        self.assertEqual([split_of_package(package) for package in packages], ["train", "train", "test"])

    def test_about_four_percent_of_packages_are_test_and_two_dev(self):
        counts = Counter(split_of_package(f"package-{number}") for number in range(10_000))
        self.assertTrue(300 < counts["test"] < 500 and 120 < counts["dev"] < 280, counts)

    def test_a_text_of_a_train_and_a_test_package_belongs_to_train(self):
        train, test = package_in("train"), package_in("test")
        self.assertEqual(home_package([test, train]), train)
        self.assertEqual(home_package([test]), test)

    def test_a_short_text_is_one_ngram(self):
        self.assertEqual(list(ngrams("One two, three")), [("one", "two", "three")])
        self.assertEqual(len(list(ngrams("a b c d e f g"))), 2)
        self.assertEqual(list(ngrams("--")), [])

    def test_a_held_out_row_that_shares_six_words_on_either_side_is_dropped(self):
        train = [row("1", "this package has the files of foo", "questo pacchetto ha i file di foo")]
        clean = row("2", "this package has the pictures of foo", "il pacchetto ha le figure di foo")
        same_source = row("3", "Now THIS package has the files, of bar", "altro")
        same_target = row("4", "other", "ecco: questo pacchetto ha i file di bar")
        self.assertEqual(drop_leaks(train, [clean, same_source, same_target]), [clean])

    def test_splits_are_ordered_by_id_and_count_what_was_dropped(self):
        train, test = package_in("train"), package_in("test")
        rows = [
            row("b", "second in train", "seconda", train),
            row("c", "second in train", "altra", test),
            row("a", "first in train", "prima", train),
        ]
        splits, dropped = split_rows(rows)
        self.assertEqual([row["id"] for row in splits["train"]], ["a", "b"])
        self.assertEqual((splits["test"], dropped), ([], {"dev": 0, "test": 1}))

    def test_more_for_train_leaves_what_is_held_out_as_it_is(self):
        train, test = package_in("train"), package_in("test")
        splits = {"dev": [], "test": [row("t", "a text of six words held out", "prova", test)]}
        unseen = row("b", "another text", "altro", train)
        leaking = row("a", "once more a text of six words held out", "ancora", train)
        self.assertEqual(
            more_for_train([unseen, leaking, row("c", "of test", "di prova", test)], splits), [unseen]
        )


if __name__ == "__main__":
    unittest.main()
