"""Jobs on the cluster: begin one, watch its commits, and compare its parts with those of a local run."""

import json
import subprocess
import time

import storage
from kubectl import StepFailed, apply, expect, get, kubectl, pods, ready_pods, uids, wait_until
from manifests import container_of, find, renamed, without
from reference import corpus, job_file

BUCKET = "corpora"
NAME = "baton-coordinator"
# A job of the suite takes a minute or two; a busy machine is several times slower.
JOB_SECONDS = 600
START_SECONDS = 300


class SkipStep(Exception):
    """The step needs something that was not given; says what."""


class Suite:
    """The common ground of all steps: manifests, the corpus, and the sums that every job must reach."""

    def __init__(self, overlays, reference, options):
        self.overlays, self.reference, self.options = overlays, reference, options
        # Outputs of an earlier run must not be taken for this one's.
        self.run = f"run-{time.time():.0f}"
        self.inputs = [f"s3://{BUCKET}/{self.run}/in/corpus.jsonl"]
        self.wanted = {}
        self.has_other_version = False

    def corpus(self, seed, num_records):
        return corpus(seed, num_records, self.options.max_text_bytes)

    def prepare(self):
        """Makes and uploads the corpus, and runs the job locally."""
        data = self.corpus(self.options.seed, self.options.records)
        self.wanted = self.digests(data)
        storage.put(f"{BUCKET}/{self.run}/in/corpus.jsonl", data)

    def job_text(self, output, inputs=None):
        return job_file(
            inputs or self.inputs, f"s3://{BUCKET}/{self.run}/{output}", self.options.records_per_shard
        )

    def render(self, output, components=(), overlay="cpu", inputs=None):
        return self.overlays.render(overlay, self.job_text(output, inputs), components)

    def workers(self, encoders=1, decoders=2, items=None):
        """Applies the workers in these numbers and waits until all are ready."""
        items = items or self.render("none")
        changed = without(items, "Job", "HorizontalPodAutoscaler")
        kubectl("delete", "horizontalpodautoscaler", "--all", "--wait=true")
        for role, number in (("encoder", encoders), ("decoder", decoders)):
            find(changed, "Deployment", f"baton-{role}")["spec"]["replicas"] = number
        apply(changed)
        for role, number in (("encoder", encoders), ("decoder", decoders)):
            wait_for_workers(role, number)

    def begin(self, output, components=(), items=None, name=NAME, edit=None, inputs=None):
        """Begins a job with the output `output`; the workers stay as they are."""
        kubectl("delete", "job", name, "--ignore-not-found", "--wait=true")
        items = items or self.render(output, components, inputs=inputs)
        job = renamed(find(items, "Job", NAME), name)
        if edit:
            edit(job)
        apply([item for item in items if item["kind"] in ("ConfigMap", "Secret")] + [job])
        return RunningJob(self, name, f"{self.run}/{output}", self.wanted)

    def digests(self, data):
        """{part: sha256} of a local job over `data`."""
        return self.reference.digests(data, self.options.records_per_shard)

    def running(self, name, output, data):
        """A job that something else began, over `data`."""
        return RunningJob(self, name, f"{self.run}/{output}", self.digests(data))

    def more_records(self, number):
        """Another corpus of the same seed, a tenth as long."""
        return self.corpus(f"{self.options.seed}-{number}", max(40, self.options.records // 10))


def wait_for_workers(role, number):
    """Waits until a Deployment has exactly `number` pods, all ready and of its newest template."""

    def settled():
        status = get("deployment", f"baton-{role}")
        done = status["status"].get("observedGeneration") == status["metadata"]["generation"]
        updated = status["status"].get("updatedReplicas", 0) == number
        return done and updated and len(ready_pods(role)) == number and len(pods(role)) == number

    wait_until(f"{number} {role}s are ready", settled, START_SECONDS)


class RunningJob:
    """A job that has begun."""

    def __init__(self, suite, name, output, wanted):
        self.suite, self.name, self.output, self.wanted = suite, name, output, wanted

    def prefix(self):
        return f"{BUCKET}/{self.output}"

    def listing(self):
        return storage.entries(self.prefix())

    def committed(self):
        """The number of parts."""
        return sum(name.startswith("part-") for name in self.listing())

    def is_complete(self):
        return "_SUCCESS" in self.listing()

    def wait_for_share(self, least):
        """Waits until this share of the parts is committed; the job must still have more than a fifth to do,
        or a disturbance proves nothing."""
        total = len(self.wanted)
        count = wait_until(
            f"{least:.0%} of {self.output} are committed",
            lambda: (n := self.committed()) >= least * total and n,
            JOB_SECONDS,
        )
        expect(count <= 0.8 * total, f"{self.output} is too far to be disturbed: {count} of {total} parts")
        return count

    def expect_running(self):
        """The disturbance came before the end."""
        expect(not self.is_complete(), f"{self.output} was complete before the disturbance")

    def wait_for_success(self, seconds=JOB_SECONDS):
        wait_until(f"{self.output} has _SUCCESS", self.is_complete, seconds)

    def finish(self, seconds=JOB_SECONDS):
        """Waits for the Job's end and compares all parts."""
        wait_until(f"the Job {self.name} is complete", self.job_has_completed, seconds)
        self.expect_equal_bytes()

    def job_has_completed(self):
        """Whether the Job has ended well; fails if it has ended otherwise."""
        found = get("job", self.name)["status"].get("conditions", [])
        kinds = {entry["type"]: entry for entry in found if entry["status"] == "True"}
        if "Failed" in kinds:
            raise StepFailed(f"the Job failed: {kinds['Failed'].get('message')}\n{self.logs()}")
        return "Complete" in kinds

    def expect_equal_bytes(self):
        """Each part has the bytes of the local run, and nothing failed."""
        listing = self.listing()
        parts = [name for name in listing if name.startswith("part-")]
        expect("_SUCCESS" in listing, f"{self.output} has no _SUCCESS: {listing[-3:]}")
        expect("errors" not in listing, f"{self.output} has error rows")
        expect(parts == sorted(self.wanted), f"{self.output} has {len(parts)} parts, not {len(self.wanted)}")
        found = storage.digests(self.prefix(), parts)
        unequal = [name for name in parts if found[name] != self.wanted[name]]
        expect(not unequal, f"{self.output}: {', '.join(unequal[:5])} differ from the local run")

    def manifest(self):
        return json.loads(storage.read(f"{self.prefix()}/_SUCCESS"))

    def record(self):
        return json.loads(storage.read(f"{self.prefix()}/_baton/job.json"))

    def settled_count(self):
        """The number of parts once workers have finished what they had in hand."""
        seen = [self.committed()]

        def unchanged():
            time.sleep(2)
            seen.append(self.committed())
            return seen[-1] == seen[-2]

        wait_until("nothing more is committed", unchanged, 60)
        return seen[-1]

    def logs(self, lines=20):
        return kubectl("logs", f"job/{self.name}", "--all-pods", f"--tail={lines}", check=False)


def run_outside(command, node):
    """Runs a command of the user's with the name of a node in it."""
    subprocess.run(command.replace("{node}", node), shell=True, check=True)


def kill(*roles):
    """Kills all pods of these roles by force and returns how many there were."""
    before = pods(*roles)
    expect(before, f"no {roles} to kill")
    kubectl(
        "delete",
        "pods",
        "--selector",
        f"app.kubernetes.io/component in ({','.join(roles)})",
        "--force",
        "--grace-period=0",
        "--wait=false",
    )
    old = uids(before)
    wait_until("the old pods are gone", lambda: not old & uids(pods(*roles)), 60)
    return len(old)


def twin_deployment(items, role, suffix, **variables):
    """A second Deployment of a role behind the same Service, with other variables."""
    twin = renamed(find(items, "Deployment", f"baton-{role}"), f"baton-{role}-{suffix}")
    for labels in (twin["spec"]["selector"]["matchLabels"], twin["spec"]["template"]["metadata"]["labels"]):
        labels["suite"] = suffix
    container = container_of(twin, role)
    container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    twin["spec"]["replicas"] = 1
    return twin
