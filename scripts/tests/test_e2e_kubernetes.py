"""The parts of tests/kubernetes/ that need no cluster: its corpus, its manifests, and its list of paths."""

import hashlib
import io
import json
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests/kubernetes")]

import paths  # noqa: E402
import preemption  # noqa: E402
import reference  # noqa: E402
import steps  # noqa: E402
import versions  # noqa: E402
from k8s.checks import network  # noqa: E402
from k8s.manifests import Manifests  # noqa: E402
from manifests import Overlays, find  # noqa: E402

ROLES = ("coordinator", "encoder", "decoder")


class Corpus(unittest.TestCase):
    def test_a_seed_always_gives_the_same_texts_within_the_limit(self):
        data = reference.corpus(7, 300, 70)
        self.assertEqual(data, reference.corpus(7, 300, 70))
        self.assertNotEqual(data, reference.corpus(8, 300, 70))
        rows = [json.loads(line) for line in data.splitlines()]
        self.assertEqual(len({row["id"] for row in rows}), 300)
        self.assertLessEqual(max(len(row["text"]) for row in rows), 70)
        self.assertGreater(len({len(row["text"]) for row in rows}), 10)


class Rendered(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.overlays = Overlays(scratch.name)
        self.job = reference.job_file(["s3://corpora/in"], "s3://corpora/out", 8)

    def test_the_cpu_overlay_gets_local_images_small_requests_and_the_server_of_the_try_overlay(self):
        items = self.overlays.render("cpu", self.job)
        for pod in Manifests(items).pods:
            for container in pod.all_containers():
                self.assertTrue(container.spec["image"].startswith("localhost/baton/"), container.title)
                self.assertTrue(container.spec["resources"]["requests"]["cpu"].endswith("m"))
        self.assertIn(
            "baton-storage:8333", find(items, "ConfigMap", "baton-storage")["data"]["AWS_ENDPOINT_URL"]
        )
        self.assertEqual(find(items, "ConfigMap", "baton-job")["data"]["job.toml"], self.job)

    def test_each_component_of_a_step_renders_with_the_cpu_overlay(self):
        for component in ("tls", "bundle-volume", "priority", "kueue", "keda"):
            self.assertTrue(self.overlays.render("cpu", self.job, [component]))

    def test_the_paths_that_are_tried_are_those_of_the_policies(self):
        found = Manifests(self.overlays.render("cpu", self.job))
        pods = {pod.labels[network.ROLE]: pod for pod in found.pods}
        tried = [row for row in paths.PATHS if row[0] in ROLES and row[1] in ROLES]
        self.assertGreater(len(tried), 8)
        for source, target, port, is_open in tried:
            self.assertEqual(
                network._passes(found, pods[source], pods[target], port), is_open, (source, target)
            )


class Probe(unittest.TestCase):
    def test_lines_of_the_probe_are_read_and_others_are_not(self):
        text = "10.0.0.1 7001 open\n10.0.0.2 8333 shut\nsomething else\n"
        self.assertEqual(paths.parse(text), {("10.0.0.1", 7001): True, ("10.0.0.2", 8333): False})


def archive_of(directory, role, program):
    """An image archive like those of `docker save`, whose second layer has the program."""

    def tar(files):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return out.getvalue()

    layers = [tar({"etc/passwd": b"nobody"}), tar({f"usr/local/bin/baton-{role}": program})]
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"rootfs": {"type": "layers", "diff_ids": digests}, "history": [{}, {}]}
    names = ["one/layer.tar", "two/layer.tar"]
    manifest = [{"Config": "c.json", "RepoTags": ["localhost/baton/x:1"], "Layers": names}]
    files = dict(zip(names, layers))
    files |= {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    path = Path(directory) / f"{role}.tar"
    path.write_bytes(tar(files))
    return path


class OtherVersion(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)
        self.program = f"ab {versions.dist.version()}-{versions.fingerprint()} cd".encode()

    def test_only_the_fingerprint_of_the_program_changes(self):
        other = versions.of_another_version(self.program)
        self.assertEqual(len(other), len(self.program))
        differing = [index for index, byte in enumerate(other) if byte != self.program[index]]
        self.assertTrue(differing and set(differing) <= set(range(len(other) - 9, len(other) - 3)), differing)

    def test_a_program_of_other_contracts_is_refused(self):
        with self.assertRaises(versions.OtherVersionError):
            versions.of_another_version(b"0.1.0-00000000")

    def test_the_other_image_has_the_changed_program_in_a_layer_of_its_own(self):
        target = self.scratch / "other.tar"
        archive = archive_of(self.scratch, "decoder", self.program)
        tag = versions.make_other_archive(archive, "decoder", target)
        self.assertEqual(tag, f"localhost/baton/x:1{versions.SUFFIX}")
        with tarfile.open(target) as image:
            entry = json.load(image.extractfile("manifest.json"))[0]
            config = json.load(image.extractfile(entry["Config"]))
            layers = [image.extractfile(name).read() for name in entry["Layers"]]
        self.assertEqual(len(config["history"]), 3)
        digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        self.assertEqual(config["rootfs"]["diff_ids"], digests)
        with tarfile.open(fileobj=io.BytesIO(layers[-1])) as layer:
            program = layer.extractfile("usr/local/bin/baton-decoder").read()
            self.assertEqual(layer.getmember("usr/local/bin/baton-decoder").mode, 0o755)
        self.assertEqual(program, versions.of_another_version(self.program))


class Requests(unittest.TestCase):
    def test_a_pod_asks_for_its_containers_or_for_its_largest_init_container(self):
        def container(cpu):
            return {"resources": {"requests": {"cpu": cpu}}}

        spec = {"initContainers": [container("300m")], "containers": [container("50m"), container("0.1"), {}]}
        self.assertEqual(preemption.requested({"spec": spec}), 300)
        del spec["initContainers"]
        self.assertEqual(preemption.requested({"spec": spec}), 150)


class Steps(unittest.TestCase):
    def test_names_are_sentences_and_different(self):
        names = [step.__name__ for step in steps.STEPS]
        self.assertEqual(len(names), len(set(names)))
        self.assertTrue(all(name.count("_") >= 3 for name in names))


if __name__ == "__main__":
    unittest.main()
