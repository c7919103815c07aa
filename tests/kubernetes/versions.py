"""Images of another version of Baton, made from the archives of this one without a compiler.

A program names its release and a fingerprint of the contracts in each call (proto/build.rs). The other images
have programs with another fingerprint: a new layer on top of each archive.
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

from manifests import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

import dist  # noqa: E402

PROTOS = ("shard", "encoder", "decoder")
ROLES = ("coordinator", "encoder", "decoder")
SUFFIX = "-other"
LAYER = "other-version.tar"


class OtherVersionError(Exception):
    """The archive is not one of this version."""


def fingerprint():
    """Of the contracts, as proto/build.rs makes it."""
    sha256 = hashlib.sha256()
    for name in PROTOS:
        sha256.update((REPOSITORY / f"proto/baton/v1/{name}.proto").read_bytes())
    return sha256.hexdigest()[:8]


def of_another_version(program):
    """The bytes of a program that names another fingerprint, of the same length."""
    ours = fingerprint()
    # A compiler compares the name in pieces of eight bytes: its first eight and its last eight. Only digits
    # that are not among the first eight may change.
    theirs = ours[:2] + ("0" * 6 if ours[2:] != "0" * 6 else "1" * 6)
    if f"{dist.version()}-{ours}".encode() not in program:
        raise OtherVersionError(f"a program does not name the contracts {ours} of this checkout")
    return program.replace(ours.encode(), theirs.encode())


def make_other_archive(archive, role, target):
    """Writes an image like that of `archive`, whose program is of another version, with its tag made longer
    by `SUFFIX`; returns the tag."""
    with tarfile.open(archive) as source, tarfile.open(target, "w") as out:
        manifest = json.load(source.extractfile("manifest.json"))[0]
        path, program = _program(source, manifest["Layers"], role)
        layer = _layer(path, of_another_version(program))
        config = json.load(source.extractfile(manifest["Config"]))
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        config.setdefault("history", []).append({"created_by": "tests/kubernetes/versions.py"})
        text = json.dumps(config).encode()
        tag = manifest["RepoTags"][0] + SUFFIX
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        for layer_name in dict.fromkeys(manifest["Layers"]):
            member = source.getmember(layer_name)
            if not member.isreg():  # docker links equal layers to each other
                content = source.extractfile(layer_name).read()
                _add(out, layer_name, content)
            else:
                out.addfile(member, source.extractfile(member))
        _add(out, LAYER, layer)
        _add(out, name, text)
        entry = {"Config": name, "RepoTags": [tag], "Layers": [*manifest["Layers"], LAYER]}
        _add(out, "manifest.json", json.dumps([entry]).encode())
    return tag


def make_other_archives(images, scratch):
    """Archives of all roles in `scratch`, from those in the directory `images`."""
    made = []
    for role in ROLES:
        target = Path(scratch) / f"{role}{SUFFIX}.tar"
        make_other_archive(images / f"{role}.tar", role, target)
        made.append(target)
    return made


def name_other_images(items):
    """Lets all pods of `items` run the other version."""
    for item in items:
        if item["kind"] not in ("Deployment", "Job"):
            continue
        for container in item["spec"]["template"]["spec"]["containers"]:
            container["image"] += SUFFIX
    return items


def _program(source, layers, role):
    """The path and bytes of a role's program in the last layer that has it."""
    path = f"usr/local/bin/baton-{role}"
    for name in reversed(layers):
        with tarfile.open(fileobj=source.extractfile(name)) as layer:
            found = next((entry for entry in layer if entry.name.lstrip("./") == path), None)
            if found:
                return path, layer.extractfile(found).read()
    raise OtherVersionError(f"the image of the {role} has no {path}")


def _layer(path, content):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as out:
        _add(out, path, content, mode=0o755)
    return layer.getvalue()


def _add(out, name, content, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    out.addfile(entry, io.BytesIO(content))
