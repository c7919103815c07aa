"""A part of the cache: made whole or not at all, under a lock, and linked into the checkout.

Owns the places of checkout and cache, and the way messages name them. It knows nothing of pip.
"""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "baton"


class SetupError(Exception):
    """Says in one line what is wrong and what to do about it."""


class Part:
    """One directory of the cache: where it goes, what proves it whole, and the room its making takes."""

    def __init__(self, label, target, proof, work_num_megabytes):
        self.label = label
        self.target = target
        self.proof = proof  # files, relative to target
        self.work_num_megabytes = work_num_megabytes  # at the peak, downloads included

    def is_whole(self):
        return all((self.target / name).is_file() for name in self.proof)

    def provide(self, build):
        """Makes the part with `build(work, result)` unless it is there.

        `work` is an empty directory for downloads; `build` creates `result`, which becomes the part. If
        `build` raises, nothing is left behind.
        """
        if self.is_whole():
            say(self.label, f"ready in {home_relative(self.target)}")
            return
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.label, self.target.parent):
            if self.is_whole():  # another run made it while this one waited
                say(self.label, f"ready in {home_relative(self.target)}")
                return
            work = self.target.with_name(self.target.name + ".partial")
            shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
            self.check_room()
            started = time.monotonic()
            try:
                work.mkdir()
                build(work, work / "result")
                shutil.rmtree(self.target, ignore_errors=True)
                (work / "result").rename(self.target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            if not self.is_whole():
                raise SetupError(
                    f"{self.target} lacks one of {', '.join(self.proof)}: please report this as a bug"
                )
            size = directory_num_megabytes(self.target)
            say(
                self.label,
                f"made {home_relative(self.target)}, {size} MB, in {time.monotonic() - started:.0f} s",
            )

    def check_room(self):
        free_num_megabytes = shutil.disk_usage(self.target.parent).free // 1_000_000
        if free_num_megabytes < self.work_num_megabytes:
            raise SetupError(
                f"{home_relative(self.target.parent)} has {free_num_megabytes} MB free and {self.label} "
                f"needs {self.work_num_megabytes} MB: make room, or set XDG_CACHE_HOME to a directory on a "
                "larger disk"
            )


def link(path, target):
    """Makes `path` a link to `target`. A real directory at `path` is the user's own and stays."""
    if path.is_symlink():
        if os.readlink(path) == str(target):
            return
    elif path.exists():
        say(path.name, f"{shown(path)} is no link: leaving it as it is")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + f".{os.getpid()}")
    fresh.symlink_to(target)
    os.replace(fresh, path)
    say(path.name, f"linked {shown(path)} to {home_relative(target)}")


@contextlib.contextmanager
def locked(label, directory):
    """Holds an exclusive lock on `directory` itself; the system frees it when the process ends, however it
    ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(label, "another setup is at work in the same cache: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def no_room():
    return (
        f"the disk of {home_relative(CACHE)} is full: make room, or set XDG_CACHE_HOME to a directory on a "
        "larger disk; nothing was kept"
    )


def directory_num_megabytes(directory):
    return round(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1_000_000)


def home_relative(path):
    home = str(Path.home())
    return "~" + str(path)[len(home) :] if str(path).startswith(home + os.sep) else str(path)


def shown(path):
    """A path below the checkout relative to it, any other relative to the home directory."""
    below_checkout = str(path).startswith(str(REPOSITORY) + os.sep)
    return str(path.relative_to(REPOSITORY)) if below_checkout else home_relative(path)


def say(label, message):
    print(f"{label}: {message}", flush=True)
