"""Reading catalogues of messages: gettext's two formats, Qt's, and files of texts by key."""

import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.catalogues.keyed import json_texts, pak_texts, property_texts
from corpus.catalogues.messages import (
    QM_MAGIC,
    MalformedFile,
    english_share,
    mo_messages,
    po_messages,
    qm_messages,
)

PO = rb"""# a translator
msgid ""
msgstr ""
"Content-Type: text/plain; charset=ISO-8859-1\n"
"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 ? 1 : 2);\n"

#: src/open.c:10
msgid "Open the "
"\"file\"\n"
msgstr "Abrir o \"ficheiro\"\n"

#, fuzzy
msgid "Close the file"
msgstr "Abrir o ficheiro"

#, c-format
msgid "%d file was copied"
msgid_plural "%d files were copied"
msgstr[0] "%d ficheiro foi copiado"
msgstr[1] "few"
msgstr[2] "%d ficheiros foram copiados"

msgid "Not translated"
msgstr ""

msgctxt "verb"
msgid "Print"
msgstr "Imprima\t\303\251"

#~ msgid "No longer used"
#~ msgstr "Em desuso"
"""


def catalogue(entries: dict[bytes, bytes], order: str) -> bytes:
    """A compiled catalogue of gettext, in the byte order of either kind of machine."""
    pairs = sorted(entries.items())
    place = 28 + 16 * len(pairs)
    tables, texts = [b"", b""], b""
    for side in (0, 1):
        for pair in pairs:
            tables[side] += struct.pack(order + "II", len(pair[side]), place + len(texts))
            texts += pair[side] + b"\0"
    header = struct.pack(order + "7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return header + tables[0] + tables[1] + texts


def record(tag: int, content: bytes) -> bytes:
    return struct.pack(">BI", tag, len(content)) + content


class Gettext(unittest.TestCase):
    def test_a_po_file_gives_confirmed_messages_in_its_order_and_charset(self):
        messages = po_messages(PO)
        self.assertEqual(
            [(message.source, message.target) for message in messages],
            [
                ('Open the "file"\n', 'Abrir o "ficheiro"\n'),
                ("%d file was copied", "%d ficheiro foi copiado"),
                ("%d files were copied", "%d ficheiros foram copiados"),
                ("Print", "Imprima\t\u00c3\u00a9"),
            ],
        )
        self.assertEqual([message.context for message in messages], ["", "", "", "verb"])
        self.assertLess(messages[0].number, messages[1].number)

    def test_a_compiled_catalogue_of_either_byte_order_gives_contexts_and_plurals(self):
        header = b"Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n > 1);\n"
        entries = {
            b"": header,
            b"menu\x04Open": "Açar".encode(),
            b"a file\0many files": "um\0muitos".encode(),
            b"empty": b"",
        }
        for order in "<>":
            messages = mo_messages(catalogue(entries, order))
            found = {(message.context, message.source, message.target) for message in messages}
            self.assertEqual(
                found, {("menu", "Open", "Açar"), ("", "a file", "um"), ("", "many files", "muitos")}
            )

    def test_a_file_that_is_cut_or_of_another_kind_is_malformed(self):
        whole = catalogue({b"": b"", b"Open": b"Abrir"}, "<")
        for content in (b"", b"<html>" * 10, whole[:30]):
            with self.assertRaises(MalformedFile):
                mo_messages(content)

    def test_keys_are_told_from_english(self):
        keys = po_messages(b'msgid "error file open dialog caption"\nmsgstr "Nao foi possivel abrir"\n')
        english = po_messages(b'msgid "The file could not be opened"\nmsgstr "Nao foi possivel abrir"\n')
        self.assertEqual((english_share(keys), english_share(english)), (0.0, 1.0))


class Qt(unittest.TestCase):
    def test_a_compiled_catalogue_gives_its_messages_without_plurals(self):
        def message(source: str, *targets: str) -> bytes:
            written = b"".join(record(3, target.encode("utf-16-be")) for target in targets)
            return (
                written + record(8, b"a note") + record(6, source.encode()) + record(7, b"Window") + b"\x01"
            )

        messages = (
            b"\x05\x00\x00\x00\x07"
            + message("Save the file", "Guardar o ficheiro")
            + message("%n file(s)", "um", "dois")
        )
        content = QM_MAGIC + record(0x42, b"12345678") + record(0x69, messages)
        self.assertEqual(
            [(message.context, message.source, message.target) for message in qm_messages(content)],
            [("Window", "Save the file", "Guardar o ficheiro")],
        )

    def test_another_file_is_malformed(self):
        with self.assertRaises(MalformedFile):
            qm_messages(b"\x00" * 100)


class Keyed(unittest.TestCase):
    def test_json_gives_its_strings_by_path_without_notes_to_translators(self):
        content = b"""{"@metadata": {"authors": ["A"]}, "list": ["one"],
            "open": {"message": "Open", "description": "a verb"}}"""
        self.assertEqual(json_texts(content), [("/list/0", "one"), ("/open/message", "Open")])
        with self.assertRaises(MalformedFile):
            json_texts(b"{open}")

    def test_properties_give_their_lines_without_quotes_and_escapes(self):
        content = b'# note\n[section]\nOpen.File="Open \\"it\\""\nClose = Fech\\u00e1-lo\n'
        self.assertEqual(property_texts(content), [("Open.File", 'Open "it"'), ("Close", "Fechá-lo")])

    def test_a_pak_gives_its_texts_by_number(self):
        texts = ["Open", "Fechar já"]
        content = [text.encode() for text in texts]
        for head, size in ((struct.pack("<IIB", 4, 2, 1), 9), (struct.pack("<IBxxxHH", 5, 1, 2, 0), 12)):
            start = size + 18
            ends = [start, start + len(content[0]), start + len(content[0]) + len(content[1])]
            table = b"".join(struct.pack("<HI", key, end) for key, end in zip((7, 9, 0), ends))
            self.assertEqual(pak_texts(head + table + b"".join(content)), [("7", "Open"), ("9", "Fechar já")])


if __name__ == "__main__":
    unittest.main()
