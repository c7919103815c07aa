"""Which connections the network policies allow, tried from inside the pods' own network namespaces.

Baton's images have no shell, so an ephemeral container with the bundle's image does the trying.
"""

import json
import uuid

from kubectl import expect, get, kubectl, ready_pods, wait_until

PROBE_IMAGE = "localhost/baton/bundle:0.1.0"
OUTSIDERS = ("default", "monitoring")
# (from, to, port, whether it is open)
PATHS = [
    ("coordinator", "encoder", 7001, True),
    ("coordinator", "decoder", 7002, True),
    ("coordinator", "storage", 8333, True),
    ("coordinator", "encoder", 9464, False),
    ("coordinator", "decoder", 9464, False),
    ("encoder", "decoder", 7002, True),
    ("encoder", "storage", 8333, False),
    ("encoder", "coordinator", 9464, False),
    ("encoder", "encoder", 7001, False),
    ("decoder", "storage", 8333, True),
    ("decoder", "encoder", 7001, False),
    ("decoder", "coordinator", 9464, False),
    ("decoder", "decoder", 7002, False),
    ("storage", "encoder", 7001, False),
    ("storage", "decoder", 7002, False),
    ("default", "encoder", 7001, False),
    ("default", "decoder", 7002, False),
    ("default", "coordinator", 9464, False),
    ("default", "storage", 8333, False),
    ("monitoring", "encoder", 9464, True),
    ("monitoring", "decoder", 9464, True),
    ("monitoring", "coordinator", 9464, True),
    ("monitoring", "encoder", 7001, False),
    ("monitoring", "decoder", 7002, False),
]


def script(targets):
    """A shell script that prints `ADDRESS PORT open` or `shut` for each target."""
    lines = [
        f"nc -w 3 {address} {port} -e true 2> /dev/null && s=open || s=shut; echo {address} {port} $s"
        for address, port in targets
    ]
    return "; ".join(lines)


def parse(text):
    """{(address, port): whether it is open} from what the script printed."""
    rows = [line.split() for line in text.splitlines()]
    return {(row[0], int(row[1])): row[2] == "open" for row in rows if len(row) == 3}


def from_pod(pod, targets):
    """Tries the targets from the network namespace of a pod."""
    container = f"probe-{uuid.uuid4().hex[:8]}"
    name = pod["metadata"]["name"]
    kubectl(
        "debug",
        f"pod/{name}",
        f"--image={PROBE_IMAGE}",
        f"--container={container}",
        "--profile=restricted",
        "--attach=false",
        "--image-pull-policy=IfNotPresent",
        "--",
        "sh",
        "-c",
        script(targets),
    )

    def ended():
        statuses = get("pod", name)["status"].get("ephemeralContainerStatuses") or []
        state = next((entry["state"] for entry in statuses if entry["name"] == container), {})
        return "terminated" in state

    wait_until(f"the probe in {name} has ended", ended, 240)
    return parse(kubectl("logs", name, "--container", container))


def outsider(namespace, targets):
    """Tries the targets from a pod of another namespace, once policies know the pod."""
    name = f"probe-{uuid.uuid4().hex[:8]}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "probe",
                    "image": PROBE_IMAGE,
                    "command": ["sh", "-c", f"sleep 5; {script(targets)}"],
                }
            ],
        },
    }
    kubectl("--namespace", namespace, "create", "--filename", "-", stdin=json.dumps(pod))

    def ended():
        found = get("--namespace", namespace, "pod", name)
        return found["status"].get("phase") in ("Succeeded", "Failed")

    try:
        wait_until(f"the probe in {namespace} has ended", ended, 240)
        return parse(kubectl("--namespace", namespace, "logs", name))
    finally:
        kubectl("--namespace", namespace, "delete", "pod", name, "--wait=false")


def members():
    """{role: its ready pods}; of workers there must be two."""
    found = {role: ready_pods(role) for role in ("coordinator", "encoder", "decoder", "storage")}
    for role, ready in found.items():
        expect(len(ready) >= (2 if role in ("encoder", "decoder") else 1), f"{len(ready)} {role}s are ready")
    return found


def check(found):
    """Tries all paths between `members()`; returns their number."""
    home = {role: ready[0] for role, ready in found.items()}
    last = {role: ready[-1] for role, ready in found.items()}
    for namespace in OUTSIDERS:
        kubectl("create", "namespace", namespace, check=False)
    address = {role: pod["status"]["podIP"] for role, pod in last.items()}
    wrong = []
    for source in dict.fromkeys(path[0] for path in PATHS):
        rows = [path for path in PATHS if path[0] == source]
        targets = [(address[target], port) for _, target, port, _ in rows]
        found = outsider(source, targets) if source in OUTSIDERS else from_pod(home[source], targets)
        for _, target, port, is_open in rows:
            state = found.get((address[target], port))
            if state is not is_open:
                words = {True: "open", False: "shut", None: "untried"}[state]
                wrong.append(f"{source} to {target}:{port} is {words}")
    expect(not wrong, "; ".join(wrong))
    return len(PATHS)
