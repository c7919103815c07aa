"""Choosing the distribution's own sources out of what a machine has configured."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.apt_lists import parse_targets
from corpus.apt_sources import (
    Distribution,
    deb822_sources,
    machine_sources,
    one_line_sources,
    read_distribution,
)
from corpus.errors import CorpusError

NOBLE = Distribution(frozenset({"ubuntu", "debian"}), frozenset({"noble"}))


class Sources(unittest.TestCase):
    def test_one_line_sources_are_narrowed_to_the_main_suite_and_free_components(self):
        text = """# a comment
deb [arch=amd64 signed-by=/key.gpg] http://mirror/ubuntu noble main restricted universe # trailing
deb http://mirror/ubuntu noble-updates main
deb-src http://mirror/ubuntu noble main
deb http://vendor/apt noble stable
deb cdrom:[disc]/ noble main
"""
        kept = "deb [arch=amd64 signed-by=/key.gpg] http://mirror/ubuntu noble main universe\n"
        self.assertEqual(one_line_sources(text, NOBLE), kept)

    def test_deb822_stanzas_are_narrowed_and_keep_their_other_fields(self):
        text = """## first
Types: deb deb-src
URIs: http://mirror/ubuntu
Suites: noble noble-updates
Components: main restricted
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 key
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://vendor/apt
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://mirror/ubuntu
Suites: noble
Components: main
"""
        kept = """types: deb
uris: http://mirror/ubuntu
suites: noble
components: main
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 key
 -----END PGP PUBLIC KEY BLOCK-----

"""
        self.assertEqual(deb822_sources(text, NOBLE), kept)

    def test_a_machine_without_a_fitting_source_is_told_which_suite_is_missing(self):
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "sources.list").write_text("deb http://vendor/apt stable-vendor main\n")
            with self.assertRaisesRegex(CorpusError, "noble"):
                machine_sources(Path(directory), NOBLE)

    def test_a_derivative_answers_to_its_parents_names(self):
        with tempfile.TemporaryDirectory() as directory:
            os_release = Path(directory) / "os-release"
            os_release.write_text(
                'ID=mint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n'
            )
            distribution = read_distribution(os_release)
        self.assertEqual(distribution.ids, {"mint", "ubuntu", "debian"})
        self.assertEqual(distribution.suites, {"wilma", "noble"})

    def test_index_targets_are_read_from_what_apt_prints(self):
        text = "MetaKey: main/i18n/Translation-it\nFilename: /lists/it\n"
        text += "Created-By: Translations\nFallback-Of: \n\n"
        (target,) = parse_targets(text)
        self.assertEqual((target["Filename"], target["MetaKey"]), ("/lists/it", "main/i18n/Translation-it"))


if __name__ == "__main__":
    unittest.main()
