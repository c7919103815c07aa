"""Rendered overlays in which the tests of scripts/k8s_check.py make mistakes. Needs the tools of `make
tools`."""

import copy
import sys
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))

from k8s import render  # noqa: E402
from k8s.checks import semantic_errors  # noqa: E402
from k8s.manifests import Manifests  # noqa: E402

ROOT = render.REPOSITORY / "k8s"
RENDERED = {}

def rendered(overlay):
    if overlay not in RENDERED:
        RENDERED[overlay] = render.render(ROOT / "overlays" / overlay)
    return copy.deepcopy(RENDERED[overlay])


def find(items, kind, name):
    return next(item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)


class WithBrokenManifests(unittest.TestCase):
    def setUp(self):
        self.use("cpu")

    def use(self, overlay):
        self.items = rendered(overlay)

    def object(self, kind, name):
        return find(self.items, kind, name)

    def deployment(self, role="decoder"):
        return self.object("Deployment", f"baton-{role}")["spec"]

    def pod(self, role="decoder"):
        return (
            self.object("Job", "baton-coordinator")["spec"]
            if role == "coordinator"
            else self.deployment(role)
        )["template"]["spec"]

    def container(self, role="decoder"):
        return self.pod(role)["containers"][0]

    def replace_argument(self, role, prefix, argument):
        arguments = self.container(role)["args"]
        kept = [kept for kept in arguments if not kept.startswith(prefix)]
        self.assertNotEqual(kept, arguments)
        self.container(role)["args"] = kept + ([argument] if argument else [])

    def errors(self):
        return list(semantic_errors(Manifests(self.items, render.outside(ROOT))))

    def assert_found(self, pattern):
        self.assertRegex("\n".join(self.errors()), pattern)
