"""Reading marked-up documents and manual pages, and pairing their blocks and sentences."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.catalogues.alignment import paired_blocks, paired_sentences, sentences
from corpus.catalogues.appstream import component_texts, components
from corpus.catalogues.markup import LOST, Block, markup_blocks
from corpus.catalogues.pairs import file_segments, paired_paragraphs
from corpus.catalogues.roff import roff_blocks

HELP = """<html><head><title>Help</title><script>x</script></head><body>
<h1 id="hd_1">Saving <b>Files</b></h1><p id="par_2" class="note">Click <em>Save</em>.
Then&nbsp;close it.</p><pre>code</pre><p id="par_3">{}</p></body></html>"""
APPSTREAM = """---
File: DEP-11
---
Type: desktop-application
ID: org.example.Tool
Package: tool
Name:
  C: Tool
Summary:
  C: Draws things
  pt_BR: 'Desenha ''coisas'''
Description:
  C: "<p>A tool that draws\\n  many things.</p>\\n<ul>\\n  <li>It is
    fast</li>\\n</ul>"
  pt_BR: "<p>Uma ferramenta que desenha muitas coisas \\xE9
    boa.</p>\\n<ul>\\n  <li>\\xC9 r\\xE1pida</li>\\n</ul>"
Icon:
  cached: []
"""
PAGE = r""".\" a comment
.TH LS 1 "2022"
.SH NAME
ls \- list \fBdirectory\fR contents
.SH "SEE ALSO"
.PP
List information about the FILEs (the current directory
by default).\" not text
.TP
\fB\-a\fR, \fB\-\-all\fR
do not ignore \(lqentries\(rq starting with .\&
.IP \(bu 3
It\(aqs an item\e
.BR cat (1),
.nf
$ ls
.fi
"""


class Markup(unittest.TestCase):
    def test_a_page_gives_its_blocks_with_their_ids_and_without_code(self):
        blocks = markup_blocks(HELP.format("Done.").encode())
        self.assertEqual(
            blocks,
            [
                Block("h1", "hd_1", "Saving Files"),
                Block("p", "par_2", "Click Save. Then close it."),
                Block("p", "par_3", "Done."),
            ],
        )

    def test_a_page_without_a_charset_is_utf_8_and_one_that_is_not_is_latin_1(self):
        for charset in ("utf-8", "latin-1"):
            self.assertEqual(markup_blocks("<p>é útil</p>".encode(charset))[0].text, "é útil")
        declared = '<?xml version="1.0" encoding="iso-8859-2"?><p>żaba</p>'.encode("iso-8859-2")
        self.assertEqual(markup_blocks(declared)[0].text, "żaba")

    def test_an_entity_of_docbook_stands_for_its_name_and_a_reference_without_text_is_lost(self):
        text = "<title>The &kate; Handbook</title><para>Use the &RMB; as in <xref linkend='x'/>.</para>"
        self.assertEqual(
            [block.text for block in markup_blocks(text.encode())],
            ["The Kate Handbook", f"Use the &RMB; as in {LOST}."],
        )

    def test_an_entity_that_the_file_declares_is_expanded(self):
        text = """<!DOCTYPE book [ <!ENTITY kappname "&kate;"> <!ENTITY part "<para/>"> ]>
            <para>&kappname; opens &part;</para>"""
        self.assertEqual([block.text for block in markup_blocks(text.encode())], [f"Kate opens {LOST}"])

    def test_help_is_aligned_by_the_ids_of_paragraphs(self):
        translated = """<body><h1 id="hd_1">Guardar</h1><p id="par_9">Novo parágrafo.</p>
            <p id="par_3">Feito está.</p></body>"""
        segments = file_segments("markup", translated.encode(), HELP.format("It is done.").encode())
        expected = [("Saving Files", "Guardar"), ("It is done.", "Feito está.")]
        self.assertEqual([(segment.source, segment.target) for segment in segments], expected)


class Roff(unittest.TestCase):
    def test_a_manual_page_gives_headings_terms_and_paragraphs_without_escapes(self):
        self.assertEqual(
            [(block.tag, block.text) for block in roff_blocks(PAGE.encode())],
            [
                ("SH", "NAME"),
                ("PP", "ls - list directory contents"),
                ("SH", "SEE ALSO"),
                ("PP", "List information about the FILEs (the current directory by default)."),
                ("TP", "-a, --all"),
                ("item", "do not ignore “entries” starting with ."),
                ("IP", "•"),
                ("item", "It's an item\\ cat(1),"),
            ],
        )

    def test_a_page_in_other_macros_gives_nothing(self):
        self.assertEqual(roff_blocks(b".Dd May 1, 2020\n.Sh NAME\n.Nm ls\n"), [])


class Alignment(unittest.TestCase):
    def test_an_added_paragraph_shifts_no_other_pair(self):
        english = [
            Block("p", "", text)
            for text in (
                "The first file has 12 lines in it.",
                "Short one.",
                "The last of the texts ends here.",
            )
        ]
        added = Block(
            "p",
            "",
            "Um parágrafo muito comprido que só existe na tradução, escrito por quem traduziu, em 2019.",
        )
        translated = [
            Block("p", "", text)
            for text in ("O primeiro tem 12 linhas nele.", "Um curto.", "O último dos textos acaba aqui.")
        ]
        pairs = paired_blocks(english, [translated[0], added, *translated[1:]])
        self.assertEqual(pairs, list(zip(english, translated)))

    def test_a_sentence_ends_before_a_capital_but_not_after_an_abbreviation(self):
        text = "Use e.g. Kate (v. 3.5) or vi. It works! Does it? “Yes.” see below etc. and so on."
        self.assertEqual(
            sentences(text),
            ["Use e.g. Kate (v. 3.5) or vi.", "It works!", "Does it?", "“Yes.” see below etc. and so on."],
        )
        self.assertEqual(sentences("保存します。閉じます。"), ["保存します。", "閉じます。"])

    def test_sentences_pair_where_they_are_as_many_and_else_the_paragraph_stays_whole(self):
        self.assertEqual(
            paired_sentences("Open it. Then close it.", "Abra-o. Depois feche-o."),
            [("Open it.", "Abra-o."), ("Then close it.", "Depois feche-o.")],
        )
        whole = ("Open it. Then close it.", "Abra-o e depois feche-o.")
        self.assertEqual(paired_sentences(*whole), [whole])
        moved = (
            "Yes. The rest of this long text is another sentence.",
            "O resto deste longo texto é outra frase. Sim.",
        )
        self.assertEqual(paired_sentences(*moved), [moved])

    def test_a_message_of_several_paragraphs_is_cut_where_both_sides_are(self):
        self.assertEqual(
            paired_paragraphs("One.\n\nTwo.", "Um.\n\nDois."), [("One.", "Um."), ("Two.", "Dois.")]
        )
        wrapped = ("A text that\nis wrapped.", "Um texto que\né quebrado.")
        self.assertEqual(paired_paragraphs(*wrapped), [wrapped])


class AppStream(unittest.TestCase):
    def test_an_entry_gives_its_summary_and_the_blocks_of_its_description(self):
        _, entry = components(APPSTREAM.splitlines(keepends=True))
        self.assertEqual((entry.package, entry.identifier), ("tool", "org.example.Tool"))
        self.assertEqual(
            component_texts(entry, "pt_BR"),
            [
                ("Draws things", "Desenha 'coisas'"),
                ("A tool that draws many things.", "Uma ferramenta que desenha muitas coisas é boa."),
                ("It is fast", "É rápida"),
            ],
        )


if __name__ == "__main__":
    unittest.main()
