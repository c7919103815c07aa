"""The repository's manifests, changed as a user would change them: job and storage settings in their files,
images by name, and smaller requests.

Works on a copy of k8s/, which kustomize renders.
"""

import copy
import re
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

from k8s import render  # noqa: E402
from k8s.manifests import Manifests  # noqa: E402

import yaml  # noqa: E402 - k8s.tools makes it importable

IMAGES = "localhost/baton"
# A machine of two cores has room for several such pods of each role.
RESOURCES = {
    "coordinator": {
        "requests": {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "64Mi"},
        "limits": {"cpu": "1", "memory": "384Mi", "ephemeral-storage": "256Mi"},
    },
    "encoder": {
        "requests": {"cpu": "200m", "memory": "512Mi", "ephemeral-storage": "256Mi"},
        "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "2Gi"},
    },
    "decoder": {
        "requests": {"cpu": "200m", "memory": "512Mi", "ephemeral-storage": "256Mi"},
        "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "2Gi"},
    },
    "bundle": {
        "requests": {"cpu": "20m", "memory": "32Mi"},
        "limits": {"cpu": "1", "memory": "256Mi"},
    },
}


class Overlays:
    """A copy of k8s/ in `scratch` for one cluster."""

    def __init__(self, scratch):
        self.root = Path(scratch) / "k8s"
        shutil.copytree(REPOSITORY / "k8s", self.root)
        shutil.copyfile(self.root / "overlays/try/storage.env", self.root / "base/storage.env")
        overlay = self.root / "overlays/cpu/kustomization.yaml"
        text = overlay.read_text(encoding="utf-8").replace("bundle-en-it", "bundle")
        overlay.write_text(text.replace("registry.example.com/baton", IMAGES), encoding="utf-8")
        self.number = 0

    def render(self, overlay, job, components=()):
        """The objects of `overlay` with `components`, whose job file is `job`, with small requests."""
        items = self.render_as_it_is(overlay, job, ("storage-in-cluster", *components))
        for pod in Manifests(items).pods:
            for container in pod.all_containers():
                container.spec["resources"] = copy.deepcopy(RESOURCES[container.name])
        return items

    def render_as_it_is(self, overlay, job, components=()):
        for file in ("base/job.toml", f"overlays/{overlay}/job.toml"):
            if (self.root / file).exists():
                (self.root / file).write_text(job, encoding="utf-8")
        self.number += 1
        directory = self.root / f"suite-{self.number}"
        directory.mkdir()
        kustomization = {
            "resources": [f"../overlays/{overlay}"],
            "components": [f"../components/{name}" for name in components],
        }
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        return render.render(directory)


def find(items, kind, name):
    """The object of that kind and name, ends of generated names aside."""
    pattern = re.compile(rf"{re.escape(name)}(-[a-z0-9]{{10}})?")
    return next(i for i in items if i["kind"] == kind and pattern.fullmatch(i["metadata"]["name"]))


def without(items, *kinds):
    return [item for item in items if item["kind"] not in kinds]


def renamed(item, name):
    """A copy of a workload under another name."""
    twin = copy.deepcopy(item)
    twin["metadata"]["name"] = name
    return twin


def container_of(workload, name):
    """The spec of a container in a workload's pod template."""
    template = workload["spec"].get("jobTemplate", workload)["spec"]["template"]
    return next(c for c in template["spec"]["containers"] if c["name"] == name)


def set_environment(container, **variables):
    kept = [entry for entry in container.get("env") or [] if entry["name"] not in variables]
    container["env"] = kept + [{"name": name, "value": value} for name, value in variables.items()]


def load_yaml(text):
    return [item for item in yaml.safe_load_all(text) if item]
