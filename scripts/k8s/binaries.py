"""Facts from the binaries: flags, variables and exit codes from --help, and metrics from the source.

A manifest may set only flags and BATON_* variables that the container's binary has, with values that it
accepts. Each binary is started with the arguments of its container and a bundle that does not exist; the
bundle must be its first complaint.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from functools import lru_cache

from .manifests import title

# Container name -> binary.
BINARIES = {"coordinator": "baton-coordinator", "encoder": "baton-encoder", "decoder": "baton-decoder"}
# The exit code of a binary whose flags are right and which finds something else missing.
CANNOT_START = 1
_METRIC = re.compile(r"\bbaton_[a-z0-9_]+")
# Suffixes that Prometheus adds to the name of a histogram.
_HISTOGRAM_SUFFIX = re.compile(r"_(bucket|count|sum)$")


class Binary:
    """The content of one binary's --help."""

    def __init__(self, help_text):
        self.flags = set(re.findall(r"^\s+(?:-\w, )?(--[a-z0-9-]+)", help_text, re.MULTILINE))
        self.switches = set(re.findall(r"^\s+(?:-\w, )?(--[a-z0-9-]+)\s*$", help_text, re.MULTILINE))
        self.variables = set(re.findall(r"\[env: ([A-Z0-9_]+)=?", help_text))
        self.takes_file = bool(
            re.search(r"^\s+(?:\[[A-Z.]+\w*\.toml\]|\[JOB\.toml\]|\[JOB_FILE\])", help_text, re.MULTILINE)
        )
        codes = help_text.partition("Exit codes:")[2]
        self.exit_codes = {int(code) for code in re.findall(r"^\s+(\d+)\s", codes, re.MULTILINE)}
        self.words = {}
        for block in re.split(r"\n(?=\s+(?:-\w, )?--[a-z])", help_text):
            name = re.match(r"\s+(?:-\w, )?(--[a-z0-9-]+)", block)
            short = re.search(r"\[possible values: ([^\]]+)\]", " ".join(block.split()))
            listed = re.findall(
                r"^\s+- ([a-z0-9-]+)(?::|$)", block.partition("Possible values:")[2], re.MULTILINE
            )
            if name and (short or listed):
                self.words[name.group(1)] = set(short.group(1).split(", ")) if short else set(listed)


@lru_cache(maxsize=None)
def read(path):
    """The `Binary` at `path`, asked for its help."""
    done = subprocess.run(
        [str(path), "--help"], stdout=subprocess.PIPE, universal_newlines=True, check=True, timeout=600
    )
    return Binary(done.stdout)


def flag_errors(manifests, binaries):
    """Flags, variables and exit codes in `manifests` that `binaries`, {container name: Binary}, do not
    have."""
    for pod in manifests.pods:
        for container in pod.containers:
            binary = binaries.get(container.name)
            if binary is None:
                continue
            for argument in container.spec.get("args") or []:
                if not str(argument).startswith("--") and not binary.takes_file:
                    yield f"{container.title}: argument {argument} is no flag, and the binary takes no file"
            for flag, value in container.flags().items():
                if flag not in binary.flags:
                    yield f"{container.title}: the binary has no flag {flag}"
                elif value is None and flag not in binary.switches:
                    yield f"{container.title}: {flag} needs a value"
                elif flag in binary.words and value not in binary.words[flag]:
                    yield (
                        f"{container.title}: {flag}={value} is not one of "
                        f"{', '.join(sorted(binary.words[flag]))}"
                    )
            for name in container.environment():
                used_in_arguments = any(
                    f"$({name})" in str(argument) for argument in container.spec.get("args") or []
                )
                if name.startswith("BATON_") and name not in binary.variables and not used_in_arguments:
                    yield f"{container.title}: the binary reads no variable {name}"
            for rule in ((pod.job_spec() or {}).get("podFailurePolicy") or {}).get("rules") or []:
                for code in (rule.get("onExitCodes") or {}).get("values") or []:
                    if binary.exit_codes and code not in binary.exit_codes:
                        yield (
                            f"{pod.title}: a failure rule is about exit code {code}, which the binary does "
                            "not have"
                        )


def start_errors(manifests, paths):
    """Problems of the arguments and job files in `manifests`, for the binaries in `paths`, {container name:
    binary}."""
    for pod in manifests.pods:
        for container in pod.containers:
            if container.name in paths:
                # An index, or part of a name, in place of a variable.
                arguments = [
                    re.sub(r"\$\(\w+\)", "0", str(argument)) for argument in container.spec.get("args") or []
                ]
                code, said = _start(paths[container.name], tuple(arguments), _files(manifests, container))
                if code != CANNOT_START or "bundle.json" not in said:
                    yield (
                        f"{container.title}: the binary does not take its arguments: "
                        f"{' '.join(said.split())[-500:]}"
                    )


def _files(manifests, container):
    """((path, text), ...) of the config maps that the container mounts."""
    files = []
    for mount in container.spec.get("volumeMounts") or []:
        volume = next(
            (volume for volume in container.pod.spec["volumes"] if volume["name"] == mount["name"]), {}
        )
        config_map = manifests.find(
            "ConfigMap", (volume.get("configMap") or {}).get("name"), container.pod.namespace
        )
        files += [
            (f"{mount['mountPath']}/{key}", text)
            for key, text in ((config_map or {}).get("data") or {}).items()
        ]
    return tuple(files)


@lru_cache(maxsize=None)
def _start(path, arguments, files):
    """Exit code and words of the binary, started on this machine with these arguments and files, and without
    a bundle."""
    with tempfile.TemporaryDirectory() as directory:
        here = {
            "--bundle": f"--bundle={directory}",
            "--listen": "--listen=127.0.0.1:0",
            "--http-listen": "--http-listen=none",
        }
        for index, (name, text) in enumerate(files):
            here[name] = str(Path(directory) / f"{index}-{Path(name).name}")
            Path(here[name]).write_text(text.replace('"/bundle"', f'"{directory}"'))
        command = [str(path)] + [here.get(argument.partition("=")[0], argument) for argument in arguments]
        done = subprocess.run(
            command,
            env={},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=600,
        )
    return done.returncode, done.stderr


def metrics_in(sources):
    """Names of the metrics that the Rust files `sources` register."""
    return {name for path in sources for name in re.findall(r'"(baton_[a-z0-9_]+)"', path.read_text())}


def metric_errors(manifests, known):
    """Metrics that autoscalers ask for and no process of Baton has."""
    for item in manifests.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        for name in sorted(set(_METRIC.findall(str(item["spec"])))):
            if _HISTOGRAM_SUFFIX.sub("", name) not in known and name not in known:
                yield f"{title(item)}: asks for the metric {name}, which no process has"
