#!/usr/bin/env python3
"""Lints each crate of this workspace as it is compiled. Warnings are errors.

The build of a library's tests contains the library, so clippy reads it there alone; the library's own build
is read by rustdoc, and the compiler's warnings fail it.

    RUSTC_WORKSPACE_WRAPPER=scripts/lint_rustc.py cargo build --workspace --all-targets

`cargo clippy` and `cargo doc` compile every dependency once more, for its metadata alone. As a wrapper of
rustc, the lints read what the build has made anyway: the tree of dependencies is compiled once. The lints
write nothing that the build reads.
"""

import os
import re
import subprocess
import sys
import tempfile

# Takes a value, after a space or after `=`, and means the same to rustdoc.
RUSTDOC_OPTIONS = ("--edition", "--crate-name", "--crate-type", "--cfg", "--check-cfg", "-L", "--extern")
RUSTDOC_OPTIONS += ("--error-format", "--json", "--warn", "--deny", "--forbid", "--allow", "--cap-lints")


def is_a_crate(arguments):
    """Whether rustc is to compile something. Cargo also asks it for its version and its target."""
    names = [value for option, value in zip(arguments, arguments[1:]) if option == "--crate-name"]
    return bool(names) and names[0] != "___" and source_of(arguments) is not None


def is_library(arguments):
    """Whether rustc is to compile a library for others to use, not its tests."""
    return "--test" not in arguments and re.search(r"--crate-type[ =]lib\b", " ".join(arguments)) is not None


def source_of(arguments):
    """The file that rustc compiles."""
    return next((argument for argument in arguments if argument.endswith(".rs")), None)


def for_clippy(arguments, scratch):
    """The same compilation, as far as lints need it, into another directory."""
    changed = []
    for option, argument in zip(["", *arguments], arguments):
        if argument.startswith("--emit="):
            argument = "--emit=metadata"
        elif argument.startswith("--json="):
            argument = without_artifacts(argument)
        elif option == "--out-dir":
            argument = scratch
        elif option == "-C" and argument.startswith("incremental="):
            changed.pop()
            continue
        changed.append(argument)
    return changed


def for_rustdoc(arguments, scratch):
    """The arguments of this compilation that rustdoc needs."""
    kept = [source_of(arguments), "--out-dir", scratch, "--deny=warnings"]
    following = iter(arguments)
    for argument in following:
        option = argument.split("=", 1)[0]
        if option not in RUSTDOC_OPTIONS:
            continue
        kept.append(without_artifacts(argument) if option == "--json" else argument)
        if option == argument:
            kept.append(next(following))
    return kept


def without_artifacts(argument):
    """Cargo must not hear of files that a lint has written."""
    return re.sub(r"\bartifacts,|,artifacts\b", "", argument)


def main():
    rustc, *arguments = sys.argv[1:]
    if is_a_crate(arguments):
        with tempfile.TemporaryDirectory() as scratch:
            if is_library(arguments):
                lint(["rustdoc", *for_rustdoc(arguments, scratch)])
                arguments.append("--deny=warnings")
            else:
                lint(["clippy-driver", rustc, *for_clippy(arguments, scratch)])
    os.execvp(rustc, [rustc, *arguments])


def lint(command):
    """Ends with the command's status unless it finds nothing."""
    environment = dict(os.environ, CLIPPY_ARGS="-Dwarnings__CLIPPY_HACKERY__")
    # With the descriptors of the job server, by which cargo shares the cores.
    status = subprocess.run(command, env=environment, close_fds=False).returncode
    if status != 0:
        sys.exit(status)


if __name__ == "__main__":
    main()
