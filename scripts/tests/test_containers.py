"""Tests of containers/: what an image build would find out late. No build tool is needed, and none is run."""

import re
import sys
import unittest
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

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

    def test_stages_build_only_on_earlier_ones_and_images_have_versions(self):
        known = set()
        for stage, (origin, lines) in stages().items():
            arguments = dict(
                rest.split("=", 1) for name, rest in instructions() if name == "ARG" and "=" in rest
            )
            named = re.fullmatch(r"\$\{(\w+)\}", origin)  # an image of the user's choice; a stage never is
            options = [arguments[named.group(1)] if named else origin] + [
                source
                for name, rest in lines
                if name == "COPY"
                for source in re.findall(r"--from=(\S+)", rest)
            ]
            for source in options:
                is_image = (
                    "/" in source and re.search(r":[\w.${}-]+$", source) and not source.endswith(":latest")
                )
                self.assertTrue(source in known or is_image, f"{stage} is from {source}")
            known.add(stage)

    def test_what_is_copied_from_a_stage_was_made_there(self):
        made = " ".join(rest for _, lines in stages().values() for name, rest in lines if name == "RUN")
        for stage, (_, lines) in stages().items():
            for name, rest in lines:
                if name == "COPY" and "--from=" in rest:
                    source = rest.split()[1].rstrip("/")
                    self.assertIn(source, made, stage)

    def test_the_coordinator_meets_no_libtorch_on_its_way(self):
        lines = stages()["build-coordinator"][1] + stages()["coordinator"][1]
        self.assertNotIn("libtorch", str(lines))
        self.assertEqual(stages()["coordinator"][0], "runtime")

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
        for member in re.findall(r'"([^"]+)"', members) + ["Cargo.toml", "Cargo.lock", ".cargo", "scripts"]:
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
