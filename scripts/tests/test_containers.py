"""Tests of containers/: what an image build would find out late. No build tool is needed, and none is run."""

import json
import re
import shutil
import sys
import tempfile
import unittest
from fnmatch import fnmatch
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

import images  # noqa: E402
import images_check  # noqa: E402
import programs  # noqa: E402
import sbom  # noqa: E402
from k8s import render  # noqa: E402
from k8s.manifests import Manifests  # noqa: E402

CONTAINERFILE = REPOSITORY / "containers" / "Containerfile"


def instructions():
    """(instruction, rest) of each instruction, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages():
    """{stage: (what it is from, its instructions)}, in order."""
    found, current = {}, None
    for name, rest in instructions():
        if name == "FROM":
            origin, _, current = re.fullmatch(r"(\S+)( AS (\S+))", rest).groups()
            found[current] = (origin, [])
        elif current:
            found[current][1].append((name, rest))
    return found


def programs_of(scratch, program):
    """The tree that images take, made of copies of `program` and of an empty libtorch."""
    for name in programs.PROGRAMS:
        shutil.copyfile(program, scratch / name)
    (scratch / "libtorch/lib").mkdir(parents=True)
    (scratch / "libtorch/lib/libc10.so").write_text("")
    (scratch / "libtorch/build-version").write_text("2.13.0")
    programs.gather(scratch, scratch / "libtorch", scratch / "tree")
    return scratch / "tree"


class BillOfMaterials(unittest.TestCase):
    def test_only_programs_that_link_libtorch_list_it(self):
        with tempfile.TemporaryDirectory() as scratch:
            tree = programs_of(Path(scratch), "/bin/true")
            for program in programs.PROGRAMS:
                found = json.loads((tree / f"sbom/{program}.cdx.json").read_text())
                names = {component["name"] for component in found["components"]}
                self.assertEqual("libtorch" in names, program != "baton-coordinator")
                self.assertIn("tokio", names)
                self.assertNotIn("proptest", names, "a crate of tests alone")

    def test_each_crate_of_a_registry_has_a_licence_and_a_hash(self):
        graph, lock = sbom.metadata(), (REPOSITORY / "Cargo.lock").read_text()
        for component in sbom.document("baton-decoder", graph, lock, None)["components"]:
            self.assertNotEqual(component["licenses"], [{"expression": "NOASSERTION"}], component["name"])
            if not component["name"].startswith("baton-"):
                self.assertRegex(component["hashes"][0]["content"], "^[0-9a-f]{64}$")


class Commands(unittest.TestCase):
    def test_podman_and_buildah_keep_layers_and_docker_does_so_by_itself(self):
        for engine, has_flag in (("docker", False), ("podman", True), ("buildah", True)):
            contexts = [("programs", "/p")]
            command = images.build_command(engine, "F", "t", ".", "encoder", [("A", "b")], contexts)
            self.assertEqual("--layers" in command, has_flag)
            self.assertEqual(command[-1], ".")
            for pair in (["--target", "encoder"], ["--build-arg", "A=b"], ["--build-context", "programs=/p"]):
                self.assertIn(pair, [command[at : at + 2] for at in range(len(command))])

    def test_an_engine_that_is_missing_is_named(self):
        with mock.patch("images.works", return_value=False):
            with self.assertRaisesRegex(images.ImagesError, "docker, podman"):
                images.find_engine(None, ("docker", "podman"))

    def test_arguments_of_pods_become_local(self):
        container = mock.Mock(spec=["spec", "name"])
        container.name = "coordinator"
        container.spec = {
            "args": [
                "--partition=$(JOB_COMPLETION_INDEX)/2",
                "--encoders=dns://baton-encoder:7001",
                "--http-listen=0.0.0.0:9464",
            ]
        }
        local = ["--partition=0/1", "--encoders=http://127.0.0.1:7001", "--http-listen=127.0.0.1:9464"]
        self.assertEqual(images_check.local_arguments(container), local)


class Containerfile(unittest.TestCase):
    def test_each_service_has_a_target_that_runs_its_binary_as_a_number(self):
        for service in ("coordinator", "encoder", "decoder"):
            stage, users, entry = service, [], None
            while stage in stages():
                origin, lines = stages()[stage]
                users += [rest for name, rest in lines if name == "USER"]
                entry = entry or next((rest for name, rest in lines if name == "ENTRYPOINT"), None)
                stage = origin
            self.assertEqual(entry, f'["/usr/local/bin/baton-{service}"]')
            self.assertEqual(users, ["65532:65532"])

    def test_stages_build_only_on_earlier_ones_and_images_are_pinned_by_digest(self):
        known = set()
        for stage, (origin, lines) in stages().items():
            arguments = dict(
                rest.split("=", 1) for name, rest in instructions() if name == "ARG" and "=" in rest
            )
            named = re.fullmatch(r"\$\{(\w+)\}", origin)  # an image of the user's choice; a stage never is
            options = [] if origin == "scratch" else [arguments[named.group(1)] if named else origin]
            options += [
                source
                for name, rest in lines
                if name == "COPY"
                for source in re.findall(r"--from=(\S+)", rest)
            ]
            for source in options:
                is_image = "/" in source and re.search(r"@sha256:[0-9a-f]{64}$", source)
                self.assertTrue(source in known or is_image, f"{stage} is from {source}")
            known.add(stage)

    def test_what_is_copied_from_the_programs_is_in_their_tree(self):
        with tempfile.TemporaryDirectory() as scratch:
            tree = programs_of(Path(scratch), "/bin/true")
            for stage, (_, lines) in stages().items():
                for name, rest in lines:
                    if name == "COPY" and "--from=programs" in rest:
                        self.assertTrue((tree / rest.split()[1].lstrip("/")).exists(), f"{stage}: {rest}")

    def test_the_coordinator_meets_no_libtorch_on_its_way(self):
        self.assertNotIn("libtorch", str(stages()["coordinator"][1]))
        self.assertEqual(stages()["coordinator"][0], "runtime")

    def test_a_coordinator_that_asks_for_libtorch_is_refused(self):
        asked = ["libtorch_cpu.so", "libc.so.6"]
        with tempfile.TemporaryDirectory() as scratch, mock.patch("programs.needed", return_value=asked):
            with self.assertRaisesRegex(programs.ProgramsError, "libtorch_cpu.so"):
                programs_of(Path(scratch), "/bin/true")

    def test_the_environment_of_the_numeric_libraries_is_the_one_that_the_services_want(self):
        wanted = re.findall(
            r'\("([A-Z_]+)", "(\w+)"\)', (REPOSITORY / "worker/src/environment.rs").read_text()
        )
        self.assertTrue(wanted)
        environment = next(rest for name, rest in stages()["service"][1] if name == "ENV")
        self.assertEqual(set(environment.split()), {f"{name}={value}" for name, value in wanted})

    def test_rust_is_the_one_that_the_workspace_asks_for(self):
        wanted = re.search(
            r'^rust-version = "(\d+\.\d+)', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE
        ).group(1)
        self.assertIn(("ARG", f"RUST_VERSION={wanted}"), instructions())


class BuildContext(unittest.TestCase):
    def setUp(self):
        ignore = (CONTAINERFILE.parent / "Containerfile.dockerignore").read_text().splitlines()
        self.kept = [line[1:] for line in ignore if line.startswith("!")]

    def test_every_member_of_the_workspace_is_sent_to_the_builder(self):
        members = re.search(r"members = \[(.*?)\]", (REPOSITORY / "Cargo.toml").read_text(), re.DOTALL).group(
            1
        )
        others = ["Cargo.toml", "Cargo.lock", "LICENSE", ".cargo", "scripts"]
        for member in re.findall(r'"([^"]+)"', members) + others:
            self.assertTrue(
                any(fnmatch(member, kept) or member.startswith(kept + "/") for kept in self.kept), member
            )

    def test_what_is_sent_exists_and_is_small(self):
        for kept in self.kept:
            self.assertTrue((REPOSITORY / kept).exists(), kept)
        self.assertFalse({"target", "models", "third_party", "data", ".git"} & set(self.kept))


class Images(unittest.TestCase):
    def test_the_manifests_use_the_images_that_are_built_and_their_ports(self):
        bundle = (CONTAINERFILE.parent / "Bundle.Containerfile").read_text()
        built = CONTAINERFILE.read_text() + bundle
        for pod in Manifests(render.render(REPOSITORY / "k8s/overlays/cpu")).pods:
            for container in pod.all_containers():
                self.assertIn(f"-t {container.spec['image']} ", built)
            if pod.owner["kind"] == "Deployment":
                exposed = {
                    int(rest)
                    for name, rest in stages()[pod.containers[0].name][1] + stages()["runtime"][1]
                    if name == "EXPOSE"
                }
                self.assertEqual(
                    exposed, set(port["containerPort"] for port in pod.containers[0].spec["ports"])
                )


if __name__ == "__main__":
    unittest.main()
