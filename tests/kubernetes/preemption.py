"""Pods of a higher priority take all nodes at once: every pod of Baton goes, and comes back."""

import json

from jobs import SkipStep
from kubectl import ROLE, apply, expect, get, kubectl, pods, schedulable_nodes, uids, wait_until
from paths import PROBE_IMAGE

ROLES = ("coordinator", "encoder", "decoder")
# The smallest pod of the suite asks for more than what is left of a node, in thousandths of a CPU.
LEFT_MILLICPUS = 10
OTHERS = {"suite": "preemptor"}


def all_pods_of_baton_are_preempted_at_once(suite):
    items = suite.render("none", components=["priority"])
    suite.workers(items=items)
    job = suite.begin("preempted", components=["priority"])
    job.wait_for_share(0.2)
    others = [preemptor(node) for node in schedulable_nodes()]
    if not all(others):
        raise SkipStep("a node is so full that Baton has no room on it")
    before = uids(pods(*ROLES))
    apply(others, "default")
    try:
        wait_until("all pods of Baton are gone", lambda: not before & uids(pods(*ROLES)), 200)
        job.expect_running()
        wait_until("the others run", lambda: all_run(others), 60)
        placed = [pod for pod in pods(*ROLES) if pod["spec"].get("nodeName")]
        expect(not placed, f"{len(placed)} pods of Baton run beside the others")
        count = job.settled_count()
        expect(count < len(job.wanted), "the job was complete while it was preempted")
    finally:
        kubectl("--namespace", "default", "delete", "pods", "--selector", "suite=preemptor", "--wait=true")
    preempted = events_of_preemption()
    expect(before <= preempted, f"only {len(before & preempted)} of {len(before)} pods were preempted")
    job.finish()
    print(f"    {len(before)} pods were preempted, after {count} of {len(job.wanted)} parts")


def millicpus(quantity):
    """A quantity of CPUs in thousandths."""
    return int(quantity[:-1]) if quantity.endswith("m") else round(float(quantity) * 1000)


def requested(pod):
    """The CPUs that a pod asks for, in thousandths; init containers run before the others."""

    def of(container):
        return millicpus(container.get("resources", {}).get("requests", {}).get("cpu", "0"))

    spec = pod["spec"]
    starting = max((of(container) for container in spec.get("initContainers") or []), default=0)
    return max(starting, sum(of(container) for container in spec["containers"]))


def preemptor(node):
    """A pod of the usual priority that leaves no room for Baton on the node; None if there is none now."""
    allocatable = millicpus(get("node", node)["status"]["allocatable"]["cpu"])
    everybody = get("pods", "--all-namespaces", "--field-selector", f"spec.nodeName={node}")["items"]
    lasting = [pod for pod in everybody if pod["status"].get("phase") not in ("Succeeded", "Failed")]
    of_others = [pod for pod in lasting if pod["metadata"].get("labels", {}).get(ROLE) not in ROLES]
    wanted = allocatable - sum(requested(pod) for pod in of_others) - LEFT_MILLICPUS
    if wanted <= 0:
        return None
    container = {
        "name": "idle",
        "image": PROBE_IMAGE,
        "command": ["sleep", "3600"],
        "resources": {"requests": {"cpu": f"{wanted}m", "memory": "16Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"preemptor-{node}", "namespace": "default", "labels": OTHERS},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }


def all_run(others):
    found = get("--namespace", "default", "pods", "--selector", "suite=preemptor")["items"]
    return sum(pod["status"].get("phase") == "Running" for pod in found) == len(others)


def events_of_preemption():
    """The uids of the pods that the scheduler has preempted."""
    found = json.loads(kubectl("get", "events", "--field-selector", "reason=Preempted", "--output", "json"))
    return {event["involvedObject"]["uid"] for event in found["items"]}
