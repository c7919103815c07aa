"""Runs Baton on any Kubernetes cluster and disturbs it: each job's parts must have the bytes of a local run.

    python3 tests/kubernetes --baton target/release/baton --bundle models/en-pt [--load COMMAND]

KUBECONFIG names the cluster, which gets the namespace `baton`. The images are those of `make images`; --load
is called with their archives, such as `kind load image-archive`. Each step asserts that its disturbance
happened before the job ended. Nodes are cut off with the commands --cut and --mend, in which {node} is the
node's name.
"""

import argparse
import random
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from jobs import SkipStep, Suite
from kubectl import StepFailed
from manifests import Overlays
from reference import Reference
from steps import STEPS
import try_overlay

FIRST = try_overlay.overlays_try_ends_by_itself_as_its_guide_says


def arguments_of(command_line):
    parser = argparse.ArgumentParser(
        prog="tests/kubernetes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baton", type=Path, required=True, help="the local baton, whose bytes count")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle of the images")
    parser.add_argument("--images", type=Path, metavar="DIR", help="archives of the images, for --load")
    parser.add_argument("--load", metavar="COMMAND", help="loads an image archive, its last argument")
    parser.add_argument("--cut", metavar="COMMAND", help="cuts off {node}")
    parser.add_argument("--mend", metavar="COMMAND", help="ends that")
    parser.add_argument("--bundle-on-nodes", metavar="DIR", help="where each node has the bundle")
    parser.add_argument("--only", metavar="WORDS", help="steps whose name has one of these words, by commas")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--records-per-shard", type=int, default=32)
    parser.add_argument("--max-text-bytes", type=int, default=200, help="of the generated texts")
    parser.add_argument("--list", action="store_true", help="lists the steps")
    return parser.parse_args(command_line)


def chosen(steps, only):
    if not only:
        return steps
    words = only.split(",")
    return [step for step in steps if any(word in step.__name__ for word in words)]


def load(options):
    """Gives the cluster the images."""
    if options.load:
        for archive in sorted(options.images.glob("*.tar")):
            subprocess.run([*shlex.split(options.load), str(archive)], check=True)


def run_step(step, suite):
    """Runs one step; returns its line of the summary."""
    name = step.__name__.replace("_", " ")
    print(f"--- {name}", flush=True)
    started = time.monotonic()
    try:
        step(suite)
        outcome = "holds"
    except SkipStep as skip:
        outcome = f"skipped: {skip}"
    except StepFailed as failure:
        outcome = f"FAILED: {failure}"
    except Exception:  # a summary must come, whatever a step does
        outcome = f"FAILED: {traceback.format_exc()}"
    seconds = time.monotonic() - started
    print(f"    {outcome} ({seconds:.0f} s)", flush=True)
    return name, outcome, seconds


def main():
    options = arguments_of(sys.argv[1:])
    steps = chosen([FIRST, *STEPS], options.only)
    if options.list:
        sys.exit("\n".join(step.__name__ for step in steps))
    print(f"seed {options.seed}, {options.records} records", flush=True)
    load(options)
    with tempfile.TemporaryDirectory() as scratch:
        reference = Reference(options.baton.resolve(), options.bundle.resolve(), scratch)
        suite = Suite(Overlays(scratch), reference, options)
        results = []
        if FIRST in steps:
            results.append(run_step(steps.pop(0), suite))
        try_overlay.provide_storage(suite)
        suite.prepare()
        results += [run_step(step, suite) for step in steps]
    print()
    for name, outcome, seconds in results:
        print(f"{outcome.split(':')[0]:>8}  {seconds:5.0f} s  {name}")
    failed = [name for name, outcome, _ in results if outcome.startswith("FAILED")]
    print(f"seed {options.seed}: {len(results)} steps, {len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
