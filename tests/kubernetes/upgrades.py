"""Upgrades while a job runs. Processes of two versions refuse each other, so no shard is made by both; once
all are of one version the job goes on where it stopped."""

import shlex
import subprocess
import tempfile

import versions
from jobs import SkipStep, kill
from kubectl import expect, kubectl, pods, wait_until

REFUSAL = "another version of Baton"


def workers_are_upgraded_before_coordinators_and_versions_never_mix(suite):
    other = other_version(suite, "workers-first")
    suite.workers()
    job = suite.begin("workers-first")
    job.wait_for_share(0.2)
    replace_workers(suite, other)
    expect_no_work(job)
    suite.begin("workers-first", items=other).finish()


def coordinators_are_upgraded_before_workers_and_versions_never_mix(suite):
    other = other_version(suite, "workers-last")
    suite.workers()
    suite.begin("workers-last").wait_for_share(0.2)
    job = suite.begin("workers-last", items=other)
    expect_no_work(job)
    replace_workers(suite, other)
    job.finish()


def other_version(suite, output):
    """The manifests of a job with the other version's images, which the cluster then has."""
    options = suite.options
    if not options.load:
        raise SkipStep("--images and --load say how to load images of another version")
    if not suite.has_other_version:
        with tempfile.TemporaryDirectory() as scratch:
            for archive in versions.make_other_archives(options.images, scratch):
                subprocess.run([*shlex.split(options.load), str(archive)], check=True)
        suite.has_other_version = True
    return versions.name_other_images(suite.render(output))


def replace_workers(suite, items):
    """Replaces all workers at once; none of the old ones is left when the first new one starts."""
    kubectl("scale", "deployment", "baton-encoder", "baton-decoder", "--replicas=0")
    kill("encoder", "decoder")
    wait_until("the old workers are gone", lambda: not pods("encoder", "decoder"), 60)
    suite.workers(items=items)


def expect_no_work(job):
    """Coordinators and workers are of two versions: the log says so, and nothing is committed."""
    before = job.settled_count()
    job.expect_running()
    wait_until("a coordinator is told of the other version", lambda: REFUSAL in job.logs(200), 120)
    after = job.settled_count()
    expect(after == before, f"{after - before} parts were made by two versions")
