"""Services, endpoints in arguments, and what network policies let through."""

import ipaddress
import re

from ..manifests import labels_match, title

_ENDPOINT = re.compile(r"(?:dns|dnss|http|https)://([^:/,]+):(\d+)")
ROLE = "app.kubernetes.io/component"
METRICS_PORT = 9464
# Connections that must get through, and others that must not: (from, to, port). Encoders dial the decoders
# that coordinators name.
FLOWS = [
    ("coordinator", "encoder", 7001),
    ("coordinator", "decoder", 7002),
    ("encoder", "decoder", 7002),
    ("encoder", "reader", 7001),
]
NO_FLOWS = [
    ("decoder", "encoder", 7001),
    ("coordinator", "reader", 7001),
    ("reader", "decoder", 7002),
    ("decoder", "coordinator", METRICS_PORT),
    ("encoder", "coordinator", METRICS_PORT),
]
STORAGE_PORT = 443
READS_STORAGE = {"coordinator": True, "decoder": True, "encoder": False, "reader": False}
# Any public address, and the one that hands out a node's credentials.
STORAGE_ADDRESS, METADATA_ADDRESS = ipaddress.ip_address("203.0.113.1"), ipaddress.ip_address(
    "169.254.169.254"
)


def services(manifests):
    """Services select pods, and forward to ports that these pods declare."""
    for item in manifests.of_kind("Service"):
        spec, seen = item["spec"], set()
        pods = (
            manifests.selected({"matchLabels": spec.get("selector")}, item["metadata"]["namespace"])
            if spec.get("selector")
            else []
        )
        if not pods:
            yield f"{title(item)}: selects no pod"
        for port in spec.get("ports") or []:
            target = port.get("targetPort", port["port"])
            if not 1 <= port["port"] <= 65535:
                yield f"{title(item)}: port {port['port']} is not between 1 and 65535"
            if port.get("name") in seen or (len(spec["ports"]) > 1 and "name" not in port):
                yield f"{title(item)}: port {port['port']} needs a name of its own"
            seen.add(port.get("name"))
            for pod in pods:
                if target not in pod.ports():
                    yield f"{title(item)}: targetPort {target} is no port of {pod.title}"
                elif spec.get("clusterIP") == "None" and pod.ports()[target] != port["port"]:
                    yield (
                        f"{title(item)}: headless, so clients dial {port['port']}, but {pod.title} listens "
                        f"on {pod.ports()[target]}"
                    )


def endpoints(manifests):
    """Service names in arguments and variables exist, with the port that is dialled."""
    for pod in manifests.pods:
        for container in pod.containers:
            environment = container.environment().items()
            variables = {name: entry.get("value") for name, entry in environment if "BATON" in name}
            for flag, value in {**container.flags(), **variables}.items():
                for host, port in _ENDPOINT.findall(value or ""):
                    name, _, rest = host.partition(".")
                    namespace = rest.partition(".")[0] or pod.namespace
                    service = manifests.find("Service", name, namespace)
                    if service is None:
                        yield (
                            f"{container.title}: {flag} names {host}, and there is no such Service in "
                            f"{namespace}"
                        )
                    elif int(port) not in [entry["port"] for entry in service["spec"]["ports"]]:
                        yield (
                            f"{container.title}: {flag} dials port {port} of {host}, which the Service does "
                            "not have"
                        )


def policy_selectors(manifests):
    """Policies select pods and name peers that exist, and ports that the pods behind them declare."""
    for item in manifests.of_kind("NetworkPolicy"):
        namespace, spec = item["metadata"]["namespace"], item["spec"]
        pods = manifests.selected(spec.get("podSelector"), namespace)
        if not pods:
            yield f"{title(item)}: podSelector matches no pod"
        for direction, side in (("ingress", "from"), ("egress", "to")):
            rules = spec.get(direction) or []
            if rules and direction.capitalize() not in spec.get("policyTypes", ["Ingress"]):
                yield f"{title(item)}: has {direction} rules, but policyTypes leaves them out"
            for rule in rules:
                behind = pods if direction == "ingress" else []
                for peer in rule.get(side) or []:
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        peers = manifests.selected(peer["podSelector"], namespace)
                        if not peers:
                            yield f"{title(item)}: a peer in {direction} matches no pod"
                        behind = behind + peers if direction == "egress" else behind
                    yield from _bad_block(item, peer)
                for port in rule.get("ports") or []:
                    declared = [pod for pod in behind if port.get("port") in pod.ports()]
                    if behind and not declared:
                        yield (
                            f"{title(item)}: port {port.get('port')} in {direction} is declared by no pod "
                            "behind the rule"
                        )
                    if isinstance(port.get("port"), int) and not 1 <= port["port"] <= 65535:
                        yield f"{title(item)}: port {port['port']} is not between 1 and 65535"


def _bad_block(item, peer):
    if "ipBlock" not in peer:
        return
    try:
        block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        excepted = [ipaddress.ip_network(cidr) for cidr in peer["ipBlock"].get("except") or []]
    except ValueError as error:
        yield f"{title(item)}: {error}"
        return
    for inner in excepted:
        if inner.version != block.version or not inner.subnet_of(block):
            yield f"{title(item)}: the exception {inner} is not inside {block}"


def flows(manifests):
    """Connections that Baton's processes need pass all policies together, and others do not."""
    if not manifests.of_kind("NetworkPolicy"):
        yield "NetworkPolicy: there is none, so every pod may reach every other"
        return
    pods = {pod.labels.get(ROLE): pod for pod in manifests.pods}
    for wanted, routes in ((True, FLOWS), (False, NO_FLOWS)):
        for source, target, port in routes:
            if (
                source in pods
                and target in pods
                and _passes(manifests, pods[source], pods[target], port) != wanted
            ):
                yield f"NetworkPolicy: {source} {'cannot' if wanted else 'can'} reach {target} on port {port}"
    for role, wanted in READS_STORAGE.items():
        if role in pods and _reaches_address(manifests, pods[role], STORAGE_ADDRESS, STORAGE_PORT) != wanted:
            yield (
                f"NetworkPolicy: {role} {'cannot' if wanted else 'can'} reach storage on port {STORAGE_PORT}"
            )
        if role in pods and _reaches_address(manifests, pods[role], METADATA_ADDRESS, STORAGE_PORT):
            yield f"NetworkPolicy: {role} can reach the node's metadata on {METADATA_ADDRESS}"
    for role, pod in pods.items():
        if not _reaches_name_servers(manifests, pod):
            yield f"NetworkPolicy: {role} cannot reach the cluster's name servers on port 53"


def _rules(manifests, pod, direction):
    """The rules of all policies on `pod` in one direction; None if no policy restricts it."""
    restricting = [
        item["spec"]
        for item in manifests.of_kind("NetworkPolicy")
        if item["metadata"]["namespace"] == pod.namespace
        and labels_match(item["spec"].get("podSelector"), pod.labels)
        and direction in item["spec"].get("policyTypes", ["Ingress"])
    ]
    return (
        [rule for spec in restricting for rule in spec.get(direction.lower()) or []] if restricting else None
    )


def _has_port(rule, pod, port):
    ports = rule.get("ports")
    return not ports or any(
        (pod.ports() if pod else {}).get(entry.get("port"), entry.get("port")) == port for entry in ports
    )


def _passes(manifests, source, target, port):
    for pod, other, direction, side in (
        (source, target, "Egress", "to"),
        (target, source, "Ingress", "from"),
    ):
        rules = _rules(manifests, pod, direction)
        if rules is None:
            continue
        open_rules = [
            rule
            for rule in rules
            if _has_port(rule, target, port)
            and any(
                "podSelector" in peer
                and "namespaceSelector" not in peer
                and labels_match(peer["podSelector"], other.labels)
                for peer in rule.get(side) or [{"podSelector": {}}]
            )
        ]
        if not open_rules:
            return False
    return True


def _reaches_address(manifests, pod, address, port):
    rules = _rules(manifests, pod, "Egress")
    if rules is None:
        return True
    for rule in rules:
        if not _has_port(rule, None, port):
            continue
        for peer in rule.get("to") or [{"ipBlock": {"cidr": "0.0.0.0/0"}}]:
            block = peer.get("ipBlock")
            if block and address in ipaddress.ip_network(block["cidr"]):
                if not any(address in ipaddress.ip_network(cidr) for cidr in block.get("except") or []):
                    return True
    return False


def _reaches_name_servers(manifests, pod):
    rules, labels = _rules(manifests, pod, "Egress"), {"kubernetes.io/metadata.name": "kube-system"}
    return rules is None or any(
        _has_port(rule, None, 53)
        and any(labels_match(peer.get("namespaceSelector"), labels) for peer in rule.get("to") or [])
        for rule in rules
    )


CHECKS = [services, endpoints, policy_selectors, flows]
