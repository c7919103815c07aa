"""The archive's environment is the one that the programs would set themselves."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dist


class DistTest(unittest.TestCase):
    def test_the_wrapper_sets_the_variables_of_the_worker(self):
        source = (dist.REPOSITORY / "worker/src/environment.rs").read_text(encoding="utf-8")
        lines = dist.library_variables(source).splitlines()
        self.assertEqual(len(lines), int(source.split("VARIABLES: [(&str, &str); ")[1].split("]")[0]))
        self.assertIn('export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"', lines)

    def test_a_source_without_variables_is_refused(self):
        with self.assertRaises(dist.DistError):
            dist.library_variables("const VARIABLES: [(&str, &str); 0] = [];")

    def test_equal_trees_make_equal_archives(self):
        archives = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as scratch:
                root = Path(scratch) / "baton"
                (root / "bin").mkdir(parents=True)
                (root / "bin/baton").write_text("program", encoding="utf-8")
                archive = Path(scratch) / "baton.tar.zst"
                dist.pack(root, archive)
                archives.append(archive.read_bytes())
        self.assertEqual(*archives)


if __name__ == "__main__":
    unittest.main()
