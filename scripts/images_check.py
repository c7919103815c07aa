#!/usr/bin/env python3
"""Runs each image as its pod does: as user 65532, on a read-only root, without capabilities, and without a
network beyond its pod; together they do a small job.

    scripts/images_check.py            after scripts/images.py

Arguments and mounts are those of k8s/overlays/try, except for addresses: all containers share one loopback,
and inputs and outputs are local. Needs docker or podman and `make tools`. RUN_FLAGS has further flags for
`run`, such as `--ulimit nofile=1024`.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dist
import images
from images import ImagesError

USER = "65532:65532"
HARDENED = ["--read-only", "--user", USER, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
# All containers in one network namespace, so each role serves its pages on a port of its own.
HTTP_PORTS = {"coordinator": 9464, "encoder": 9465, "decoder": 9466}
CORPUS = [{"id": 1, "text": "The library opens at nine."}, {"id": 2, "text": "Please keep your ticket."}]
JOB = """
bundle = "/bundle"
inputs = ["/corpus/corpus.jsonl"]
output = "/out/job"
"""
LABELS = ("title", "description", "version", "revision", "licenses")
DEADLINE_SECONDS = 300


def pods():
    """{component: pod} of the overlay, with the arguments that clusters use."""
    from k8s import render
    from k8s.manifests import Manifests

    rendered = Manifests(render.render(images.REPOSITORY / "k8s/overlays/try"))
    return {pod.labels["app.kubernetes.io/component"]: pod for pod in rendered.pods}


def local_arguments(container):
    """A container's arguments with addresses on the loopback."""
    changed = []
    for argument in container.spec["args"]:
        argument = argument.replace("$(JOB_COMPLETION_INDEX)/2", "0/1")
        argument = re.sub(r"dns://baton-\w+:", "http://127.0.0.1:", argument)
        argument = re.sub(r"0\.0\.0\.0:9464", f"127.0.0.1:{HTTP_PORTS[container.name]}", argument)
        changed.append(argument)
    return changed


class Engine:
    """Runs containers, and removes them."""

    def __init__(self, name, prefix):
        self.name, self.prefix, self.version = name, prefix, dist.version()
        self.started = []
        self.flags = shlex.split(os.environ.get("RUN_FLAGS", ""))

    def image(self, role):
        return f"{self.prefix}/{role}:{self.version}"

    def call(self, *arguments, check=True):
        done = subprocess.run(
            [self.name, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if check and done.returncode != 0:
            command = shlex.join([self.name, *map(str, arguments)])
            raise ImagesError(f"`{command}` failed: {done.stdout.strip()}")
        return done

    def run(self, role, arguments, mounts=(), network="none", extra=(), background=False):
        """Runs an image's program; in the background it is named after its role."""
        name = f"baton-check-{role}"
        command = ["run", *HARDENED, *self.flags, "--network", network, "--tmpfs", "/tmp"]
        command += ["--detach", "--name", name] if background else ["--rm"]
        for host, inside, mode in mounts:
            command += ["--volume", f"{host}:{inside}:{mode}"]
        if background:
            self.started.append(name)
        return self.call(*command, *extra, self.image(role), *arguments, check=False)

    def remove_all(self):
        for name in reversed(self.started):
            self.call("rm", "--force", "--volumes", name, check=False)


def check_content(engine, role):
    """Labels, bill of materials, user, and that there is no shell."""
    found = json.loads(engine.call("image", "inspect", engine.image(role)).stdout)[0]
    config = found["Config"]
    missing = [name for name in LABELS if not config["Labels"].get(f"org.opencontainers.image.{name}")]
    if missing or config["User"] != USER:
        raise ImagesError(f"{role}: its user is {config['User']}, and it lacks the labels {missing}")
    shell = engine.run(role, [], extra=["--entrypoint", "/bin/sh"])
    if shell.returncode == 0:
        raise ImagesError(f"{role}: the image has a shell")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "sbom.json"
        name = f"baton-check-{role}-files"
        engine.started.append(name)
        engine.call("create", "--name", name, engine.image(role))
        engine.call("cp", f"{name}:/usr/share/doc/baton/sbom.cdx.json", file)
        components = json.loads(file.read_text())["components"]
    version = engine.run(role, ["--version"])
    if version.returncode != 0 or engine.version not in version.stdout:
        raise ImagesError(f"{role} --version: {version.stdout.strip()}")
    megabytes = found["Size"] / 1e6
    print(f"{role}: {megabytes:.0f} MB, {len(components)} components, {version.stdout.strip()}")


def wait_until_ready(engine, role, word):
    """Waits until the log of a container has `word`."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        log = engine.call("logs", f"baton-check-{role}", check=False).stdout
        if word in log:
            return
        state = engine.call("inspect", "--format", "{{.State.Running}}", f"baton-check-{role}").stdout.strip()
        if state != "true" or time.monotonic() > deadline:
            raise ImagesError(f"{role} did not start:\n{log[-2000:]}")
        time.sleep(0.2)


def check_job(engine, scratch):
    """Does a job with all images, and returns its rows."""
    for name in ("bundle", "corpus", "job", "out"):
        (scratch / name).mkdir()
        (scratch / name).chmod(0o777)  # the containers' user writes here
    scratch.chmod(0o755)
    (scratch / "corpus/corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CORPUS))
    (scratch / "job/job.toml").write_text(JOB)
    found = pods()
    copy = next(c for c in found["decoder"].init_containers if c.name == "bundle")
    done = engine.run("bundle", copy.spec["command"], mounts=[(scratch / "bundle", "/mnt/bundle", "rw")])
    if done.returncode != 0:
        raise ImagesError(f"the bundle's image: {done.stdout.strip()}")
    mounts = [
        (scratch / "bundle", "/bundle", "ro"),
        (scratch / "corpus", "/corpus", "ro"),
        (scratch / "job", "/etc/baton", "ro"),
        (scratch / "out", "/out", "rw"),
    ]
    network = "none"
    for role in ("encoder", "decoder"):
        container = found[role].containers[0]
        started = engine.run(role, local_arguments(container), mounts, network, background=True)
        if started.returncode != 0:
            raise ImagesError(f"{role}: {started.stdout.strip()}")
        wait_until_ready(engine, role, "serving gRPC")
        network = "container:baton-check-encoder"
    container = found["coordinator"].containers[0]
    done = engine.run("coordinator", local_arguments(container), mounts, network)
    if done.returncode != 0 or not (scratch / "out/job/_SUCCESS").exists():
        raise ImagesError(f"the coordinator ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return [json.loads(line) for line in (scratch / "out/job/part-000000.jsonl").read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default=os.environ.get("ENGINE"), help="docker or podman")
    parser.add_argument("--prefix", default="localhost/baton", help="registry and path of the names")
    arguments = parser.parse_args()
    try:
        wanted = None if arguments.engine == "buildah" else arguments.engine  # it shares podman's images
        engine = Engine(images.find_engine(wanted, ("docker", "podman")), arguments.prefix)
        try:
            for role in images.ROLES:
                check_content(engine, role)
            with tempfile.TemporaryDirectory() as scratch:
                rows = check_job(engine, Path(scratch))
        finally:
            engine.remove_all()
        if len(rows) != len(CORPUS) or not all(row["output"] for row in rows):
            raise ImagesError(f"the job wrote {rows}")
        print(f"a job of {len(rows)} records ran in them: {rows[0]['output']}")
    except ImagesError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
