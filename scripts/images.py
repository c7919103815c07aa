#!/usr/bin/env python3
"""Builds all container images of this repository with docker, podman or buildah, whichever is there.

    scripts/images.py [--bundle models/en-pt] [--binaries target/release] [--archive DIR]

It makes coordinator, encoder and decoder (containers/Containerfile) and the bundle
(containers/Bundle.Containerfile), named PREFIX/ROLE:VERSION. One compilation in a container serves the three;
with --binaries none is needed.

Variables: BUILDER_IMAGE, RUNTIME_IMAGE and FILES_IMAGE name other base images than the pinned ones; LIBTORCH
is cpu or cuda; BUILD_FLAGS has further flags for the engine, such as `--network host`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dist
import programs

REPOSITORY = Path(__file__).resolve().parent.parent
CONTAINERS = REPOSITORY / "containers"
ROLES = ("coordinator", "encoder", "decoder")
SERVICE_ARGUMENTS = ("BUILDER_IMAGE", "RUNTIME_IMAGE", "LIBTORCH")
BUNDLE_ARGUMENTS = ("FILES_IMAGE",)


class ImagesError(Exception):
    """Says in one line what is wrong and what to do about it."""


def works(engine):
    """Whether `engine` is installed and, if it is docker, has a server."""
    if shutil.which(engine) is None:
        return False
    done = subprocess.run([engine, "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0


def find_engine(wanted, able):
    """`wanted`, or the first of `able` that works."""
    for engine in [wanted] if wanted else able:
        if works(engine):
            return engine
    names = wanted or ", ".join(able)
    raise ImagesError(f"none of these works here: {names}; install one, such as Debian's package podman")


def build_command(engine, file, tag, context, target=None, arguments=(), contexts=()):
    """The command that builds one image."""
    command = [engine, "build", "--file", str(file), "--tag", tag]
    if engine != "docker":
        command.append("--layers")  # docker keeps layers by itself
    if target:
        command += ["--target", target]
    for name, value in arguments:
        command += ["--build-arg", f"{name}={value}"]
    for name, directory in contexts:
        command += ["--build-context", f"{name}={directory}"]
    return command + shlex.split(os.environ.get("BUILD_FLAGS", "")) + [str(context)]


def given(names):
    """The build arguments that the environment sets."""
    return [(name, os.environ[name]) for name in names if os.environ.get(name)]


def revision():
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode().strip() or "unknown"


def save_command(engine, tag, file):
    """The command that writes an image into `file`, an archive that clusters can load."""
    if engine == "buildah":
        return [engine, "push", "--quiet", tag, f"docker-archive:{file}:{tag}"]
    form = ["--format", "docker-archive"] if engine == "podman" else []
    return [engine, "save", *form, "--output", str(file), tag]


def build_services(engine, prefix, version, contexts):
    arguments = [("VERSION", version), ("REVISION", revision()), *given(SERVICE_ARGUMENTS)]
    for role in ROLES:
        tag = f"{prefix}/{role}:{version}"
        file = CONTAINERS / "Containerfile"
        # Each engine looks for the list of ignored files beside this one, or takes it by flag.
        command = build_command(engine, file, tag, REPOSITORY, role, arguments, contexts)
        if engine != "docker":
            command[2:2] = ["--ignorefile", f"{file}.dockerignore"]
        subprocess.run(command, check=True)


def build_bundle(engine, prefix, version, bundle):
    for needed in ("bundle.json", "slm"):
        if not (bundle / needed).exists():
            raise ImagesError(f"{bundle} is no bundle: it has no {needed}")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "bundle"
        shutil.copytree(bundle, copy)  # a link to an LLM becomes its files
        unlisted = [path for path in copy.rglob("*.toml")]  # training configs, which no pod reads
        for path in unlisted:
            path.unlink()
        file = CONTAINERS / "Bundle.Containerfile"
        tag = f"{prefix}/bundle:{version}"
        arguments = [("BUNDLE", bundle.name), ("VERSION", version), *given(BUNDLE_ARGUMENTS)]
        subprocess.run(build_command(engine, file, tag, copy, arguments=arguments), check=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default=os.environ.get("ENGINE"), help="docker, podman or buildah")
    parser.add_argument("--prefix", default="localhost/baton", help="registry and path of the names")
    parser.add_argument("--bundle", type=Path, default=REPOSITORY / "models/en-pt", metavar="DIR")
    parser.add_argument(
        "--binaries", type=Path, metavar="DIR", help="programs that exist; else they are compiled"
    )
    parser.add_argument("--archive", type=Path, metavar="DIR", help="also write each image into DIR/ROLE.tar")
    arguments = parser.parse_args()
    version = dist.version()
    try:
        engine = find_engine(arguments.engine, ("docker", "podman", "buildah"))
        with tempfile.TemporaryDirectory() as scratch:
            contexts = []
            if arguments.binaries:
                tree = Path(scratch) / "programs"
                programs.gather(arguments.binaries, REPOSITORY / "third_party/libtorch", tree)
                contexts = [("programs", tree)]
            build_services(engine, arguments.prefix, version, contexts)
        build_bundle(engine, arguments.prefix, version, arguments.bundle)
        for role in (*ROLES, "bundle"):
            tag = f"{arguments.prefix}/{role}:{version}"
            if arguments.archive:
                arguments.archive.mkdir(parents=True, exist_ok=True)
                file = arguments.archive / f"{role}.tar"
                file.unlink(missing_ok=True)  # engines refuse to add to an archive
                subprocess.run(save_command(engine, tag, file), check=True)
            print(tag)
    except (ImagesError, programs.ProgramsError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: this ended with status {error.returncode}: {shlex.join(map(str, error.cmd))}")


if __name__ == "__main__":
    main()
