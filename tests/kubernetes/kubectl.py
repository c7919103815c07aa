"""The cluster, by way of kubectl, and waiting for it."""

import json
import subprocess
import time

NAMESPACE = "baton"
ROLE = "app.kubernetes.io/component"


class StepFailed(Exception):
    """An expectation of the suite does not hold; says which."""


def expect(holds, words):
    if not holds:
        raise StepFailed(words)


def wait_until(words, condition, seconds):
    """Waits until `condition()` is true, or fails with `words`; returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise StepFailed(f"after {seconds} s still not so: {words}")
        time.sleep(0.25)


def kubectl(*arguments, stdin=None, check=True, binary=False):
    """Runs kubectl in Baton's namespace and returns what it printed."""
    command = ["kubectl", "--namespace", NAMESPACE, *arguments]
    if isinstance(stdin, str):
        stdin = stdin.encode()
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if check and done.returncode != 0:
        raise StepFailed(f"`{' '.join(command)}`: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout if binary else done.stdout.decode(errors="replace")


def get(*arguments):
    """An object or a list of objects; None if there is none of that name."""
    text = kubectl("get", *arguments, "--output", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


def apply(items, namespace=NAMESPACE):
    """Applies objects, dicts; those that have a namespace must be in this one."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl("--namespace", namespace, "apply", "--filename", "-", stdin=text)


def pods(*roles):
    """The pods of these roles, also those that are ending."""
    found = get("pods", "--selector", f"{ROLE} in ({','.join(roles)})")
    return found["items"] if found else []


def names(items):
    return {item["metadata"]["name"] for item in items}


def uids(items):
    return {item["metadata"]["uid"] for item in items}


def is_ready(pod):
    conditions = pod.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def ready_pods(role):
    """The pods of a role that are ready and not ending."""
    return [pod for pod in pods(role) if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]


def schedulable_nodes():
    found = [node for node in get("nodes")["items"] if not node["spec"].get("unschedulable")]
    return sorted(names(found))
