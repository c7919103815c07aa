#!/usr/bin/env python3
"""Renders every kustomization below k8s/ and checks what comes out, without a cluster.

The check has three steps. Schemas of two Kubernetes versions, strictly. Then problems that schemas cannot see
(scripts/k8s/checks/): selectors that match nothing, ports nobody listens on, limits below requests, policies
that block needed connections, and so on. Last the binaries: their --help must list the flags that manifests
set, and they must accept the values.

    k8s_check.py [--binaries DIR]       DIR has baton-coordinator, baton-encoder and baton-decoder

Prints one line for each error and exits with 1 if there is one. Needs `make tools`.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from k8s import binaries, render
from k8s.checks import semantic_errors
from k8s.manifests import Manifests, title
from k8s.render import REPOSITORY
from k8s.schemas import VERSIONS, schema_errors

ROOT = REPOSITORY / "k8s"


def errors_of(manifests, binary_paths, known_metrics):
    """Everything that is wrong with one rendering, one line each."""
    for item in manifests.items:
        for error in schema_errors(item):
            yield f"{title(item)}: {error}"
    yield from semantic_errors(manifests)
    yield from binaries.flag_errors(
        manifests, {name: binaries.read(path) for name, path in binary_paths.items()}
    )
    yield from binaries.start_errors(manifests, binary_paths)
    yield from binaries.metric_errors(manifests, known_metrics)


def renderings():
    """(name, objects) of the base, each overlay, and each component on the CPU overlay."""
    for directory in render.kustomizations(ROOT):
        yield str(directory.relative_to(REPOSITORY)), render.render(directory)
    # kustomize reads only below the directory that holds them all, so a copy is composed elsewhere.
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "k8s"
        shutil.copytree(ROOT, copy)
        for component in sorted(path.name for path in (ROOT / "components").iterdir()):
            directory = render.with_component(copy, copy / f"with-{component}", component)
            yield f"k8s/overlays/cpu with k8s/components/{component}", render.render(directory)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--binaries",
        type=Path,
        metavar="DIR",
        help="where Baton's binaries are; without it no flag is checked",
    )
    arguments = parser.parse_args()
    binary_paths = {}
    if arguments.binaries:
        binary_paths = {
            name: arguments.binaries.absolute() / file for name, file in binaries.BINARIES.items()
        }
    known_metrics = binaries.metrics_in(REPOSITORY.glob("*/src/**/*.rs"))
    outside = render.outside(ROOT)
    failed = False
    try:
        for name, items in renderings():
            errors = list(errors_of(Manifests(items, outside), binary_paths, known_metrics))
            failed = failed or bool(errors)
            print(
                f"{name}: {len(items)} objects, {len(errors) or 'no'} error{'' if len(errors) == 1 else 's'}"
            )
            for error in errors:
                print(f"  {error}")
    except render.RenderError as error:
        sys.exit(f"error: {error}")
    against = f"Kubernetes {' and '.join(VERSIONS)}" + (
        "" if binary_paths else "; flags NOT CHECKED, no --binaries given"
    )
    print(f"checked against {against}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
