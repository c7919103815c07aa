"""Paths, the choice of packages, cleaning, what is held out, and documents."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.catalogues.archive import Package
from corpus.catalogues.choice import Offer, chosen
from corpus.catalogues.cleaning import cleaned_pair
from corpus.catalogues.corpus import document_rows, held_out_packages, split_corpus, unique_rows
from corpus.catalogues.glue import without_run_together
from corpus.catalogues.paths import locale_pattern, text_file, variant_of
from corpus.catalogues.yields import MEASURED, measured_sentences


class Paths(unittest.TestCase):
    def test_a_locale_is_found_however_it_is_written(self):
        pattern = locale_pattern("pt")
        for path, variant, english in (
            (
                "usr/share/locale/pt_BR/LC_MESSAGES/kate.mo",
                "pt_BR",
                "usr/share/locale/en/LC_MESSAGES/kate.mo",
            ),
            (
                "usr/share/libreoffice/help/pt-BR/text/a.html",
                "pt_BR",
                "usr/share/libreoffice/help/en-US/text/a.html",
            ),
            (
                "usr/share/debian-reference/ch01.pt-br.html",
                "pt_BR",
                "usr/share/debian-reference/ch01.en.html",
            ),
            ("usr/share/help/pt/eog/open.page", "pt", "usr/share/help/C/eog/open.page"),
            ("usr/share/man/pt_PT/man1/ls.1.gz", "pt", "usr/share/man/man1/ls.1.gz"),
            ("usr/lib/chromium/locales/pt-PT.pak", "pt", "usr/lib/chromium/locales/en-US.pak"),
            ("usr/share/doc/tool/html/index.pt.html", "pt", "usr/share/doc/tool/html/index.html"),
        ):
            file = text_file(path, pattern)
            self.assertIsNotNone(file, path)
            self.assertEqual(file.variant, variant)
            self.assertIn(english, file.english)

    def test_other_files_and_other_languages_are_none(self):
        pattern = locale_pattern("pt")
        for path in (
            "usr/share/locale/ptx/LC_MESSAGES/kate.mo",
            "usr/share/gimp/help/pt_BR/images/a.png",
            "usr/include/octave/pt-colon.h",
            "usr/share/man/man1/pt-kill.1p.gz",
        ):
            self.assertIsNone(text_file(path, pattern), path)
        self.assertIsNone(text_file("usr/share/locale/pt/LC_MESSAGES/kate.mo", locale_pattern("pt_BR")))

    def test_a_variant_has_one_spelling(self):
        self.assertEqual(
            [variant_of(locale) for locale in ("pt-br", "pt_PT", "zh-Hans", "sr@latin")],
            ["pt_BR", "pt", "zh_Hans", "sr@latin"],
        )


class Choice(unittest.TestCase):
    def test_the_densest_packages_are_bought_and_a_shared_one_is_paid_once(self):
        sizes = {
            "help-en": 3_000_000,
            "help-pt": 2_000_000,
            "help-br": 2_000_000,
            "game": 5_000_000,
            "small": 500_000,
        }
        packages = {name: Package(name, name, "doc", size, size) for name, size in sizes.items()}
        offers = [
            Offer({"help-en", "help-pt"}, [], 900),
            Offer({"help-en", "help-br"}, [], 900),
            Offer({"game"}, [], 300),
            Offer({"small"}, [], 90),
        ]
        taken = chosen(offers, packages, 8)
        self.assertEqual(
            {name for offer in taken for name in offer.packages}, {"help-en", "help-pt", "help-br", "small"}
        )

    def test_a_package_that_was_measured_is_not_guessed(self):
        self.assertEqual(
            measured_sentences("libreoffice-help-pt-br", {"pt_BR"}), MEASURED["libreoffice-help-{}"]
        )
        self.assertEqual(measured_sentences("libreoffice-help-de", {"de"}), MEASURED["libreoffice-help-{}"])
        self.assertEqual(measured_sentences("gramps", {"pt", "pt_BR"}), 2 * MEASURED["gramps"])
        self.assertIsNone(measured_sentences("another-package-pt", {"pt"}))


class Glue(unittest.TestCase):
    def test_texts_with_words_run_together_are_dropped_in_the_file_that_is_full_of_them(self):
        def file(document: str, targets: list[str]) -> list[dict]:
            return [
                row("p", f"Some words {document} {n}", target, document=document)
                for n, target in enumerate(targets)
            ]

        good = file("good", ["O barco tem uma vela"] * 500 + ["Uma palavracomposta única"])
        # Of two words that others have, and one that no other text has.
        good += file("good", ["A palavra é composta"] * 40)
        bad = file(
            "bad",
            [
                "O barcotem mar",
                "Umavela de fora",
                "Nau Uma nau de mar",
                "A vela étoda",
                "O umatem",
                "Ela temvela",
            ],
        )
        bad += file("bad", ["O barco de mar"] * 10)
        kept = without_run_together(good + bad)
        self.assertEqual(len([kept_row for kept_row in kept if kept_row["document"] == "good"]), len(good))
        self.assertLessEqual(len([kept_row for kept_row in kept if kept_row["document"] == "bad"]), 11)


class Cleaning(unittest.TestCase):
    def test_mnemonics_and_entities_are_taken_off(self):
        for source, target, cleaned in (
            ("_Open the file", "Abrir _o ficheiro", ("Open the file", "Abrir o ficheiro")),
            ("Sa&ve the file", "&Guardar o ficheiro", ("Save the file", "Guardar o ficheiro")),
            ("~Open all files", "ファイルを開く(~O)", ("Open all files", "ファイルを開く")),
            (
                "Search &amp; replace it",
                "Procurar &amp; substituir",
                ("Search & replace it", "Procurar & substituir"),
            ),
            ("With IP_RECVERR, it is", "Com IP_RECVERR é", ("With IP_RECVERR, it is", "Com IP_RECVERR é")),
            (
                "Read the user_name field",
                "Ler o campo user_name",
                ("Read the user_name field", "Ler o campo user_name"),
            ),
            ("It is done", "Está feito.", ("It is done", "Está feito")),
        ):
            self.assertEqual(cleaned_pair(source, target)[:2], cleaned)

    def test_placeholders_are_counted_and_have_to_agree(self):
        found = cleaned_pair(
            "Copied %d of <b>%(name)s</b> to ${HOME}, 5% done", "5% feito: %d de <b>%(name)s</b> para ${HOME}"
        )
        self.assertEqual(sorted(found[2]), ["$" + "{HOME}", "%(name)s", "%d", "</b>", "<b>"])
        self.assertIsNone(cleaned_pair("Copied %d files here", "Copiados os ficheiros aqui"))
        self.assertIsNone(cleaned_pair("Copied %s files here", "Copiados %d ficheiros aqui"))
        self.assertEqual(
            cleaned_pair('See <a href="x">this</a> page', 'Veja <a href="y">esta</a> página')[2],
            ['<a href="x">', "</a>"],
        )

    def test_what_is_no_translation_is_dropped(self):
        for source, target in (
            ("Open the file now", "Open the file now"),
            ("The settings of this window", "The settings of the window aqui"),
            ("The file was saved", "O ficheiro foi guardadoEle.Agora"),
            ("The café is open", "O cafÃ© está aberto"),
            ("Open", "Abrir"),
            (
                "{COUNT, plural, =1 {one file} other {files}}",
                "{COUNT, plural, =1 {um ficheiro} other {ficheiros}}",
            ),
            ("See \ufffc for more", "Veja \ufffc para mais"),
        ):
            self.assertIsNone(cleaned_pair(source, target), source)


def row(package: str, source: str, target: str, kind: str = "interface", **more) -> dict:
    place = {
        "variant": "pt",
        "kind": kind,
        "package": package,
        "origin": package,
        "document": "d",
        "is_ordered": True,
    }
    return {
        "id": source,
        "source": source,
        "target": target,
        **place,
        "paragraph": 0,
        "number": 0,
        "placeholders": [],
        **more,
    }


class Corpus(unittest.TestCase):
    def test_a_text_is_one_row_with_its_most_frequent_translation(self):
        rows = [row("a", "Open it", "Abrir"), row("b", "Open it", "Abra-o"), row("c", "Open it", "Abra-o")]
        self.assertEqual([(row["package"], row["target"]) for row in unique_rows(rows)], [("b", "Abra-o")])

    def test_whole_packages_are_held_out_of_each_kind_and_no_large_one(self):
        rows = [
            row(f"p{n}", f"text {n} {line}", "t", kind)
            for kind in ("manual", "interface")
            for n in range(80)
            for line in range(2)
        ]
        rows += [row("large", f"large {line}", "t", "manual") for line in range(100)]
        held = held_out_packages(rows)
        self.assertNotIn("large", held)
        self.assertEqual(set(held.values()), {"dev", "test"})
        self.assertEqual(held, held_out_packages(rows[::-1]))

    def test_train_keeps_nothing_that_shares_six_words_with_what_is_held_out(self):
        packages = [row(f"p{n}", f"text number {n} of this one package", f"t{n}") for n in range(100)]
        held = held_out_packages(packages)
        test = next(package for package, split in held.items() if split == "test")
        train = next(f"p{n}" for n in range(100) if f"p{n}" not in held)
        shared = "one two three four five six"
        rows = packages + [row(test, f"{shared} here", "alvo"), row(train, f"And {shared} there", "outro")]
        rows += [row(test, "Save all", "Guardar"), row(train, "Save all", "Guardar")]
        splits, dropped = split_corpus(
            rows, [{"source": "quoted words of another test set indeed", "target": "x y"}]
        )
        sources = {split: {row["source"] for row in of_split} for split, of_split in splits.items()}
        self.assertIn(f"{shared} here", sources["test"])
        self.assertNotIn(f"And {shared} there", sources["train"])
        self.assertIn("Save all", sources["train"])
        self.assertNotIn("Save all", sources["test"])
        self.assertEqual(dropped["test_short_texts_of_train"], 1)

    def test_a_document_joins_what_follows_and_ends_where_a_segment_is_missing(self):
        def sentence(paragraph: int, number: int, **more) -> dict:
            return row(
                "p",
                f"The words of {paragraph} and {number}.",
                f"As palavras de {paragraph} e {number}.",
                paragraph=paragraph,
                number=number,
                **more,
            )

        rows = [
            sentence(0, 0),
            sentence(0, 1),
            sentence(1, 0),
            sentence(3, 0),
            sentence(3, 2),
            sentence(4, 0),
        ]
        documents = list(document_rows(rows))
        self.assertEqual([len(document["sentences"]) for document in documents], [3, 2])
        self.assertEqual(
            documents[0]["source"], "The words of 0 and 0. The words of 0 and 1.\nThe words of 1 and 0."
        )
        catalogue = [sentence(n, 0, is_ordered=False) for n in range(3)]
        self.assertEqual(list(document_rows(catalogue)), [])


if __name__ == "__main__":
    unittest.main()
