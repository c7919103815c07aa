#!/usr/bin/env python3
"""Unpacks Baton's archive on bare roots of Debian 11, 12 and 13 and runs a job on each.

    sudo scripts/dist_check.py dist/baton-0.1.0-x86_64.tar.zst --bundle BUNDLE

debootstrap makes the roots, with only Debian's required packages. BUNDLE is a bundle of a small model alone,
as `baton bundle import-slm` makes it.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASES = ("bullseye", "bookworm", "trixie")

JOB = """
set -eu
export PATH=/opt/baton/bin:$PATH
baton --version
baton doctor --bundle /bundle --store /out
printf '%s\\n' '{"text": "The library opens at nine."}' > /corpus.jsonl
baton run --bundle /bundle --input /corpus.jsonl --output /out/job
cat /out/job/part-000000.jsonl
test -e /out/job/_SUCCESS
baton-coordinator --help > /dev/null
baton-encoder --help > /dev/null
baton-decoder --help > /dev/null
"""


def check(release, archive, bundle, mirror, cache):
    """Runs the job on a fresh root of `release`."""
    root = cache / release
    if not root.exists():
        scratch = cache / f"{release}.incomplete"
        shutil.rmtree(scratch, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", release, str(scratch)]
        subprocess.run(command + ([mirror] if mirror else []), stdout=subprocess.DEVNULL, check=True)
        scratch.rename(root)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / "root"
        subprocess.run(["cp", "-a", root, fresh], check=True)
        (fresh / "opt/baton").mkdir(parents=True)
        unpack = ["tar", "--zstd", "-xf", archive, "--strip-components=1", "-C", fresh / "opt/baton"]
        subprocess.run(unpack, check=True)
        shutil.copytree(bundle, fresh / "bundle")
        subprocess.run(["mount", "-t", "proc", "proc", fresh / "proc"], check=True)
        try:
            job = ["chroot", fresh, "/usr/bin/env", "-i", "/bin/sh", "-c", JOB]
            done = subprocess.run(
                job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
        finally:
            subprocess.run(["umount", fresh / "proc"], check=True)
    print(f"--- Debian {release}: {'runs' if done.returncode == 0 else 'FAILED'}\n{done.stdout}")
    return done.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--mirror", help="where debootstrap fetches packages; its own default otherwise")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/baton/roots", metavar="DIR")
    arguments = parser.parse_args()
    if shutil.which("debootstrap") is None:
        sys.exit("error: debootstrap is missing: install it with 'sudo apt install debootstrap'")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    results = [
        check(release, arguments.archive, arguments.bundle, arguments.mirror, arguments.cache)
        for release in RELEASES
    ]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
