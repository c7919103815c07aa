"""Tests of scripts/lint_rustc.py: what of a compilation the lints are told."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lint_rustc

LIBRARY = (
    "--crate-name x --edition=2024 x/src/lib.rs --error-format=json "
    "--json=diagnostic-rendered-ansi,artifacts,future-incompat --crate-type lib "
    "--emit=dep-info,metadata,link -C opt-level=1 --warn=clippy::all --cfg feature=\"a\" "
    "--out-dir /target -C incremental=/target/i -L dependency=/target --extern y=/target/liby.rmeta"
).split()


class Lints(unittest.TestCase):
    def test_cargos_questions_are_passed_on_and_crates_are_linted(self):
        self.assertTrue(lint_rustc.is_a_crate(LIBRARY))
        self.assertFalse(lint_rustc.is_a_crate(["-vV"]))
        self.assertFalse(lint_rustc.is_a_crate("- --crate-name ___ --print=file-names".split()))

    def test_a_library_is_told_from_its_tests(self):
        self.assertTrue(lint_rustc.is_library(LIBRARY))
        tests = [argument for argument in LIBRARY if argument not in ("--crate-type", "lib")] + ["--test"]
        self.assertFalse(lint_rustc.is_library(tests))

    def test_clippy_writes_elsewhere_and_tells_cargo_of_no_file(self):
        changed = lint_rustc.for_clippy(LIBRARY, "/scratch")
        self.assertIn("--emit=metadata", changed)
        self.assertEqual(changed[changed.index("--out-dir") + 1], "/scratch")
        self.assertFalse([argument for argument in changed if "incremental" in argument])
        self.assertIn("--json=diagnostic-rendered-ansi,future-incompat", changed)
        self.assertEqual(changed.count("-C"), 1)

    def test_rustdoc_is_told_what_the_crate_is_and_what_it_needs(self):
        told = " ".join(lint_rustc.for_rustdoc(LIBRARY, "/scratch"))
        self.assertTrue(told.startswith("x/src/lib.rs --out-dir /scratch --deny=warnings"))
        for part in ("--edition=2024", "--crate-name x", "--extern y=/target/liby.rmeta", "--cfg feature="):
            self.assertIn(part, told)
        for part in ("--emit", "opt-level", "artifacts"):
            self.assertNotIn(part, told)


if __name__ == "__main__":
    unittest.main()
