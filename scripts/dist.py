#!/usr/bin/env python3
"""Packs Baton's programs and all libraries they load into one archive that runs on any Linux on x86-64.

    scripts/dist.py --binaries target/release --out dist

The archive `baton-VERSION-x86_64.tar.zst` has the programs, the CPU libtorch, and the C and C++ libraries of
the machine that built them, with their loader. The target machine therefore needs no libraries, not even a C
library as new as the builder's. The bytes depend only on the binaries and libraries.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = ("baton", "baton-coordinator", "baton-encoder", "baton-decoder")
LOADER = "ld-linux-x86-64.so.2"
# The time of the archive's files.
EPOCH = 0

WRAPPER = """\
#!/bin/sh
# Starts {program} with the libraries beside it, by their own loader.
root=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd)
{variables}
exec "$root/lib/{loader}" --argv0 "$0" --library-path "$root/lib" "$root/libexec/{program}" "$@"
"""

README = """\
Baton {version}: bulk translation and summarization with LLM-to-SLM models.

    bin/baton --help          the command; bin/baton doctor checks this machine
    share/man, share/completions

Unpack it anywhere and put bin/ on the path. Licences: LICENSE, and share/licenses for the libraries.
"""


class DistError(Exception):
    """Says in one line what is wrong and what to do about it."""


def version():
    manifest = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "(.+)"$', manifest, re.MULTILINE)[1]


def library_variables(source):
    """The environment that the numeric libraries need, as shell lines; a variable that is set stays.

    Programs set it themselves by starting a second time, which the loader's own name would break.
    """
    variables = re.findall(r'^    \("([A-Z_]+)", "([^"]+)"\),$', source, re.MULTILINE)
    if not variables:
        raise DistError("worker/src/environment.rs lists no variables in the form that scripts/dist.py reads")
    return "\n".join(f'export {name}="${{{name}:-{value}}}"' for name, value in variables)


def libraries_of(program, libtorch):
    """The files that the loader would load for `program`, by the names it asks for."""
    listing = subprocess.run(
        ["ldd", program],
        env={"LD_LIBRARY_PATH": str(libtorch), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    if missing:
        raise DistError(f"{program} loads {', '.join(missing)}, which this machine lacks")
    found = dict(re.findall(r"^\s*(\S+) => (/\S+)", listing, re.MULTILINE))
    found[LOADER] = re.search(rf"^\s*(/\S*{re.escape(LOADER)})", listing, re.MULTILINE)[1]
    return found


def assemble(binaries, libtorch, root):
    """Fills `root` with the archive's tree."""
    for directory in ("bin", "libexec", "lib", "share/completions", "share/man/man1"):
        (root / directory).mkdir(parents=True)
    variables = library_variables((REPOSITORY / "worker/src/environment.rs").read_text(encoding="utf-8"))
    libraries = {}
    for program in PROGRAMS:
        source = binaries / program
        if not source.is_file():
            raise DistError(f"{source} is missing: build it with `cargo build --release --workspace --bins`")
        libraries |= libraries_of(source, libtorch)
        target = root / "libexec" / program
        shutil.copyfile(source, target)
        subprocess.run(["strip", "--strip-debug", target], check=True)
        target.chmod(0o755)
        wrapper = root / "bin" / program
        script = WRAPPER.format(program=program, variables=variables, loader=LOADER)
        wrapper.write_text(script, encoding="utf-8")
        wrapper.chmod(0o755)
    for name, path in libraries.items():
        shutil.copyfile(path, root / "lib" / name)
        (root / "lib" / name).chmod(0o755)
    add_documents(binaries / "baton", root)


def add_documents(baton, root):
    shutil.copyfile(REPOSITORY / "LICENSE", root / "LICENSE")
    (root / "README").write_text(README.format(version=version()), encoding="utf-8")
    subprocess.run([baton, "manual", root / "share/man/man1"], check=True)
    for shell in ("bash", "zsh", "fish"):
        script = subprocess.run([baton, "completions", shell], stdout=subprocess.PIPE, check=True).stdout
        (root / "share/completions" / f"baton.{shell}").write_bytes(script)
    licenses = root / "share/licenses"
    licenses.mkdir()
    for package in ("libc6", "libstdc++6", "libgcc-s1", "libgomp1"):
        text = Path("/usr/share/doc") / package / "copyright"
        if text.exists():
            shutil.copyfile(text, licenses / package)


def pack(root, archive):
    """Writes the tree as tar and zstd, in order of names, with neither times nor owners of this machine."""

    def anonymous(member):
        member.mtime, member.uid, member.gid, member.uname, member.gname = EPOCH, 0, 0, "", ""
        return member

    with tempfile.NamedTemporaryFile(dir=archive.parent, suffix=".tar") as spool:
        with tarfile.open(fileobj=spool, mode="w") as tar:
            for path in [root, *sorted(root.rglob("*"))]:
                tar.add(path, arcname=str(path.relative_to(root.parent)), recursive=False, filter=anonymous)
        spool.flush()
        subprocess.run(["zstd", "--force", "--quiet", "-T0", "-10", spool.name, "-o", archive], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binaries", type=Path, default=REPOSITORY / "target/release", metavar="DIR")
    parser.add_argument(
        "--libtorch", type=Path, default=REPOSITORY / "third_party/libtorch/lib", metavar="DIR"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist", metavar="DIR")
    arguments = parser.parse_args()
    try:
        for tool in ("ldd", "strip", "zstd"):
            if shutil.which(tool) is None:
                raise DistError(
                    f"{tool} is missing: install it with 'sudo apt install binutils zstd libc-bin'"
                )
        arguments.out.mkdir(parents=True, exist_ok=True)
        name = f"baton-{version()}-x86_64"
        archive = arguments.out / f"{name}.tar.zst"
        with tempfile.TemporaryDirectory(dir=arguments.out) as scratch:
            root = Path(scratch) / name
            assemble(arguments.binaries.resolve(), arguments.libtorch.resolve(), root)
            pack(root, archive)
            archive.chmod(0o644)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        print(f"{archive}: {archive.stat().st_size / 1e6:.0f} MB, sha256 {digest}")
    except DistError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
