"""Fields that take one of a few words. Kubernetes' published schemas say only that they are strings."""

from ..manifests import title

# The end of a field's path -> its words. The longest end that fits decides.
WORDS = {
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "ports.protocol": {"TCP", "UDP", "SCTP"},
    "Service.spec.type": {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"},
    "Secret.type": {
        "Opaque",
        "kubernetes.io/tls",
        "kubernetes.io/dockerconfigjson",
        "kubernetes.io/basic-auth",
    },
    "Deployment.spec.strategy.type": {"RollingUpdate", "Recreate"},
    "DaemonSet.spec.updateStrategy.type": {"RollingUpdate", "OnDelete"},
    "StatefulSet.spec.updateStrategy.type": {"RollingUpdate", "OnDelete"},
    "podManagementPolicy": {"OrderedReady", "Parallel"},
    "completionMode": {"Indexed", "NonIndexed"},
    "podReplacementPolicy": {"TerminatingOrFailed", "Failed"},
    "podFailurePolicy.rules.action": {"FailJob", "FailIndex", "Ignore", "Count"},
    "onExitCodes.operator": {"In", "NotIn"},
    "onPodConditions.type": {"DisruptionTarget", "PodScheduled", "Ready", "Initialized", "ContainersReady"},
    "onPodConditions.status": {"True", "False", "Unknown"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "seccompProfile.type": {"RuntimeDefault", "Localhost", "Unconfined"},
    "appArmorProfile.type": {"RuntimeDefault", "Localhost", "Unconfined"},
    "tolerations.operator": {"Exists", "Equal"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "matchExpressions.operator": {"In", "NotIn", "Exists", "DoesNotExist"},
    "nodeSelectorTerms.matchExpressions.operator": {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"},
    "preference.matchExpressions.operator": {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "policyTypes": {"Ingress", "Egress"},
    "unhealthyPodEvictionPolicy": {"IfHealthyBudget", "AlwaysAllow"},
    "emptyDir.medium": {"", "Memory"},
    "dnsPolicy": {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"},
    "terminationMessagePolicy": {"File", "FallbackToLogsOnError"},
    "fsGroupChangePolicy": {"Always", "OnRootMismatch"},
    "httpGet.scheme": {"HTTP", "HTTPS"},
    "HorizontalPodAutoscaler.spec.metrics.type": {
        "Resource",
        "ContainerResource",
        "Pods",
        "Object",
        "External",
    },
    "target.type": {"Utilization", "Value", "AverageValue"},
    "policies.type": {"Pods", "Percent"},
    "selectPolicy": {"Max", "Min", "Disabled"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "volumeMode": {"Filesystem", "Block"},
    "sessionAffinity": {"None", "ClientIP"},
    "externalTrafficPolicy": {"Cluster", "Local"},
    "internalTrafficPolicy": {"Cluster", "Local"},
    "ipFamilyPolicy": {"SingleStack", "PreferDualStack", "RequireDualStack"},
    "ipFamilies": {"IPv4", "IPv6"},
}
_POD_SECURITY_LEVELS = {"privileged", "baseline", "restricted"}


def words(manifests):
    """Fields with a fixed vocabulary use it."""
    for item in manifests.items:
        for path, value in _leaves(item, [item.get("kind", "")]):
            allowed = _allowed(path)
            if allowed is not None and value not in allowed:
                yield (
                    f"{title(item)}: {'.'.join(path[1:])} is {value!r}, not one of "
                    f"{', '.join(sorted(filter(None, allowed)))}"
                )


def pod_security(manifests):
    """A namespace's pod security labels name levels that exist; an unknown one is enforced as
    `restricted`."""
    for item in manifests.of_kind("Namespace"):
        for mode in ("enforce", "warn", "audit"):
            level = (item["metadata"].get("labels") or {}).get(f"pod-security.kubernetes.io/{mode}")
            if level is not None and level not in _POD_SECURITY_LEVELS:
                yield f"{title(item)}: pod-security.kubernetes.io/{mode} is {level!r}, which is no level"


def _leaves(value, path):
    """(path, value) of every plain value; positions in lists are left out of the path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not (len(path) == 1 and key in ("data", "stringData")):
                yield from _leaves(inner, path + [key])
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, path)
    else:
        yield path, value


def _allowed(path):
    for start in range(len(path)):
        allowed = WORDS.get(".".join(path[start:]))
        if allowed is not None:
            return allowed
    return None


CHECKS = [words, pod_security]
