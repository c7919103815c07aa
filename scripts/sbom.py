"""The list of what a program is made of, as a CycloneDX document: its crates with licences and hashes, and
libtorch.

Facts come from Cargo.lock and `cargo metadata`, which reads the sources that were compiled. The document
depends only on them, so that equal sources give equal lists.
"""

import json
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
# The package of each program.
PACKAGES = {
    "baton": "baton-cli",
    "baton-coordinator": "baton-coordinator",
    "baton-encoder": "baton-encoder-svc",
    "baton-decoder": "baton-decoder-svc",
}


def metadata():
    """The workspace and its crates on the target platform, as cargo sees them."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={TARGET}"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def checksums(lock):
    """{(crate, version): sha256 of its archive} from the text of Cargo.lock."""
    found = {}
    for block in lock.split("[[package]]"):
        fields = dict(re.findall(r'^(name|version|checksum) = "(.+)"$', block, re.MULTILINE))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def linked(graph, package):
    """The ids of the packages that `package` links or runs, itself included; not those of build scripts."""
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    names = {entry["id"]: entry["name"] for entry in graph["packages"]}
    waiting = [identity for identity in graph["workspace_members"] if names[identity] == package]
    seen = set()
    while waiting:
        identity = waiting.pop()
        if identity not in seen:
            seen.add(identity)
            waiting += [
                dependency["pkg"]
                for dependency in nodes[identity]["deps"]
                if any(kind["kind"] is None for kind in dependency["dep_kinds"])
            ]
    return seen


def component(entry, sums):
    """One crate as a component."""
    name, version = entry["name"], entry["version"]
    found = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
        # Old crates separate alternatives by a slash.
        "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", entry["license"] or "NOASSERTION")}],
    }
    if (name, version) in sums:
        found["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
    return found


def document(program, graph, lock, libtorch_version):
    """The bill of materials of `program`; `libtorch_version` is None for one without libtorch."""
    package = PACKAGES[program]
    identities = linked(graph, package)
    entries = sorted(
        (entry for entry in graph["packages"] if entry["id"] in identities),
        key=lambda entry: (entry["name"], entry["version"]),
    )
    sums = checksums(lock)
    itself = next(entry for entry in entries if entry["name"] == package)
    components = [component(entry, sums) for entry in entries if entry is not itself]
    if libtorch_version:
        components.append(
            {
                "type": "library",
                "name": "libtorch",
                "version": libtorch_version,
                "purl": f"pkg:pypi/torch@{libtorch_version}",
                "licenses": [{"expression": "BSD-3-Clause"}],
            }
        )
    subject = component(itself, sums) | {"type": "application", "name": program}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }


def write(directory, programs, libtorch):
    """Writes `PROGRAM.cdx.json` for each program that exists into `directory`. `libtorch` is its root."""
    graph = metadata()
    lock = (REPOSITORY / "Cargo.lock").read_text(encoding="utf-8")
    uses_torch = {entry["id"] for entry in graph["packages"] if entry["name"] == "torch-sys"}
    version = (libtorch / "build-version").read_text(encoding="utf-8").strip()
    for program in programs:
        links_torch = bool(linked(graph, PACKAGES[program]) & uses_torch)
        found = document(program, graph, lock, version if links_torch else None)
        path = directory / f"{program}.cdx.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
