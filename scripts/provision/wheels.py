"""Wheels by pip, pinned by sha256: downloads them, explains a failure in one line, unpacks files of them."""

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile

from . import parts
from .parts import SetupError, no_room, say

# How pip and its HTTP library name a network that does not answer.
UNREACHABLE = (
    r"(NewConnection|NameResolution|Proxy|SSL)Error|connect\w* ?(timeout|timed out|refused|reset)|read ?time"
)


def download(requirements, label, size, work, tags=()):
    """Downloads the wheels that a file of hash-pinned requirements names into `work`. Returns their paths."""
    pip = pip_command()
    say(label, f"downloading {size}")
    pins = parts.REPOSITORY / "scripts" / requirements
    wheels, temporary = work / "wheels", work / "tmp"
    temporary.mkdir()
    # Wheels for one fixed Python, whichever runs this script: only their libraries are used.
    command = pip + ["download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
    command += tags
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(wheels), "-r", str(pins)]
    # pip writes first into TMPDIR: keep that on the disk whose room was checked. /tmp is often small.
    environment = dict(os.environ, TMPDIR=str(temporary), PIP_REQUIRE_VIRTUALENV="0", LC_ALL="C.UTF-8")
    progress = None if sys.stdout.isatty() else subprocess.DEVNULL
    done = subprocess.run(
        command, env=environment, stdout=progress, stderr=subprocess.PIPE, universal_newlines=True
    )
    if done.returncode != 0:
        raise SetupError(explain_pip_failure(label, requirements, done.stderr))
    return sorted(wheels.glob("*.whl"))


def explain_pip_failure(label, requirements, stderr):
    """One line for what pip said in many."""
    if "DO NOT MATCH THE HASHES" in stderr:
        package = re.search(r"^\s*(\S+==\S+).*:\s*$", stderr, re.MULTILINE)
        wheel = package.group(1) if package else "a wheel"
        digests = re.findall(r"(?:Expected sha256|Got)\s+([0-9a-f]{64})", stderr)
        detail = f", expected sha256 {digests[0]}, got {digests[-1]}" if len(digests) > 1 else ""
        return (
            f"{label}: checksum mismatch in {wheel}{detail}: what came is not what scripts/{requirements} "
            "pins, so it was thrown away; look at the package index or proxy that pip is configured to use, "
            "and run this again"
        )
    if os.strerror(errno.ENOSPC) in stderr:
        return no_room()
    if re.search(UNREACHABLE, stderr, re.IGNORECASE):
        return (
            f"{label}: pip cannot reach its package index; this first download needs the network "
            "(behind a proxy set HTTPS_PROXY, see `pip config list`); nothing was kept, run this again"
        )
    errors = [line[len("ERROR:") :].strip() for line in stderr.splitlines() if line.startswith("ERROR:")]
    reason = (errors or stderr.strip().splitlines() or ["it gave no reason"])[-1]
    return (
        f"{label}: pip download failed: {reason}; check the network and the package index in `pip config "
        "list`"
    )


def pip_command():
    """The command that runs a pip new enough to know today's wheel tags (manylinux_2_28: pip 20.3)."""
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        version = tool_version(command + ["--version"])
        if version is not None and version < (20, 3):
            upgrade = " ".join(command + ["install", "--upgrade", "pip"])
            raise SetupError(f"pip is version {dotted(version)} and 20.3 or newer is needed: run `{upgrade}`")
        if version is not None:
            return command
    raise SetupError("pip is missing: install it with `sudo apt install python3-pip`")


def extract(wheel, place):
    """Writes each file of `wheel` for which `place(name)` gives a path to that path. zipfile checks each
    file's CRC."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = None if entry.is_dir() else place(entry.filename)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    wheel.unlink()  # so that downloads and result share the room


def tool_version(command):
    """(major, minor) as `command` reports it in its first `N.N`, or None if it does not run."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
        )
    except OSError:
        return None
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(found.group(1)), int(found.group(2))) if done.returncode == 0 and found else None


def dotted(version):
    return ".".join(str(number) for number in version)
