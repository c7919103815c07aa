#!/usr/bin/env python3
"""Gathers what container images take from a build into one tree: programs without debug symbols, libtorch's
libraries, bills of materials, and the licence.

    scripts/programs.py --binaries target/release --out DIR

The tree has bin/, lib/, sbom/ and LICENSE. Its programs need the C and C++ libraries of the machine that
built them, or newer ones.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import sbom

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = ("baton-coordinator", "baton-encoder", "baton-decoder")
# A linker script, which only the linker reads.
NOT_LOADED = "libtorch.so"


class ProgramsError(Exception):
    """Says in one line what is wrong and what to do about it."""


def needed(program):
    """The names of the libraries that `program` asks the loader for."""
    done = subprocess.run(
        ["readelf", "--dynamic", program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    return [line.split("[")[1].rstrip("]") for line in done.stdout.splitlines() if "(NEEDED)" in line]


def gather(binaries, libtorch, out):
    """Fills `out`, which does not exist yet. `libtorch` is the root of its files."""
    for directory in ("bin", "lib", "sbom"):
        (out / directory).mkdir(parents=True)
    for program in PROGRAMS:
        source = binaries / program
        if not source.is_file():
            how = "build it with `cargo build --release --workspace --bins`"
            raise ProgramsError(f"{source} is missing: {how}")
        shutil.copyfile(source, out / "bin" / program)
        subprocess.run(["strip", "--strip-debug", out / "bin" / program], check=True)
        (out / "bin" / program).chmod(0o755)
    torch = [name for name in needed(out / "bin" / "baton-coordinator") if name.startswith("libtorch")]
    if torch:
        raise ProgramsError(f"the coordinator asks for {torch[0]}, and its image has no libtorch")
    for library in sorted((libtorch / "lib").glob("*.so*")):
        if library.name != NOT_LOADED:
            shutil.copyfile(library, out / "lib" / library.name)
            (out / "lib" / library.name).chmod(0o755)
    sbom.write(out / "sbom", PROGRAMS, libtorch)
    shutil.copyfile(REPOSITORY / "LICENSE", out / "LICENSE")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binaries", type=Path, default=REPOSITORY / "target/release", metavar="DIR")
    parser.add_argument("--libtorch", type=Path, default=REPOSITORY / "third_party/libtorch", metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    try:
        gather(arguments.binaries, arguments.libtorch, arguments.out)
    except ProgramsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
