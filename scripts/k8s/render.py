"""From a kustomization to the objects that the API server would be sent."""

import subprocess

from .tools import KUBECTL, REPOSITORY

import yaml  # noqa: E402 - found by way of .tools


class RenderError(Exception):
    """kubectl cannot render a kustomization; its own words."""


def render(directory):
    """The objects of the kustomization in `directory`, a list of dicts."""
    command = [str(KUBECTL), "kustomize", str(directory)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if (
        done.returncode != 0 or done.stderr.strip()
    ):  # a warning is a failure: deprecated fields, dropped patches
        raise RenderError(done.stderr.strip() or f"`{' '.join(command)}` ended with status {done.returncode}")
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def kustomizations(root):
    """The kustomizations to apply: the base and each overlay below `root`."""
    return [root / "base"] + sorted(path.parent for path in (root / "overlays").glob("*/kustomization.yaml"))


def outside(root):
    """The objects that manifests may use but do not contain, from `root`/outside.yaml: {(kind, name):
    keys}."""
    declared = yaml.safe_load((root / "outside.yaml").read_text())
    return {(entry["kind"], entry["name"]): entry.get("keys", []) for entry in declared}


def with_component(root, scratch, component):
    """Writes a kustomization that puts `component` on the CPU overlay into `scratch`, a directory below
    `root`."""
    scratch.mkdir()
    text = {"resources": ["../overlays/cpu"], "components": [f"../components/{component}"]}
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return scratch


__all__ = ["REPOSITORY", "RenderError", "kustomizations", "outside", "render", "with_component"]
