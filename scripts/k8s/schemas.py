"""Checks objects against the schemas of Kubernetes' API, strictly: a field that the schema does not name is
an error.

Kubernetes' own kinds have the published schemas of each version in `SCHEMAS`. Kinds that operators add (KEDA,
cert-manager) have schemas in scripts/k8s/crds/, written by hand for the fields that Baton's manifests use.
"""

import json
from functools import lru_cache
from pathlib import Path

from .tools import SCHEMAS

import jsonschema  # noqa: E402 - found by way of .tools

VERSIONS = sorted(path.name for path in SCHEMAS.iterdir())
CRDS = Path(__file__).resolve().parent / "crds"


class _Pointers(jsonschema.RefResolver):
    """Follows references by their path alone. The library's own way searches the whole document for ids, of
    which there are none."""

    def resolve_fragment(self, document, fragment):
        for step in fragment.strip("/").split("/"):
            document = document[step]
        return document


@lru_cache(maxsize=None)
def _read(path):
    return json.loads(path.read_text())


def _schema_path(item, version):
    """Published schemas are named by kind, first label of the group, and version: cronjob-batch-v1.json."""
    group, _, api_version = item["apiVersion"].rpartition("/")
    if group and "." in group and not group.endswith(".k8s.io"):
        return CRDS / f"{item['kind'].lower()}-{group}-{api_version}.json"
    name = "-".join(part for part in (item["kind"].lower(), group.split(".")[0], api_version) if part)
    return SCHEMAS / version / f"{name}.json"


def schema_errors(item):
    """Errors of `item` against the schemas of all versions, each once."""
    seen = set()
    for version in VERSIONS:
        path = _schema_path(item, version)
        if not path.is_file():
            yield f"Kubernetes {version} has no kind {item['kind']} in {item['apiVersion']}"
            continue
        definitions = _read(path.parent / "_definitions.json") if path.parent != CRDS else {}
        resolver = _Pointers("", _read(path), store={"_definitions.json": definitions})
        for error in jsonschema.Draft7Validator(_read(path), resolver=resolver).iter_errors(item):
            where = ".".join(str(step) for step in error.absolute_path) or "the object"
            message = f"{where}: {error.message}"
            if message not in seen:
                seen.add(message)
                yield message
