"""Autoscalers and disruption budgets."""

import re

from ..manifests import title
from ..quantities import quantity


def disruption_budgets(manifests):
    """Budgets select pods of a scaled workload, and leave a node a way to be drained."""
    for item in manifests.of_kind("PodDisruptionBudget"):
        spec = item["spec"]
        pods = manifests.selected(spec.get("selector"), item["metadata"]["namespace"])
        if not pods:
            yield f"{title(item)}: selects no pod"
        if ("minAvailable" in spec) == ("maxUnavailable" in spec):
            yield f"{title(item)}: has either minAvailable or maxUnavailable"
        if spec.get("maxUnavailable") in (0, "0%") or spec.get("minAvailable") == "100%":
            yield f"{title(item)}: allows no eviction at all, so no node could be drained"
        if any(pod.job_spec() is not None for pod in pods) and not isinstance(spec.get("minAvailable"), int):
            yield f"{title(item)}: selects pods of a job, for which only a number as minAvailable counts"


def autoscalers(manifests):
    """Autoscalers have targets, which nothing else scales, and metrics that these can have."""
    scaled = {}
    for item in manifests.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        spec, namespace = item["spec"], item["metadata"]["namespace"]
        reference = spec["scaleTargetRef"]
        kind = reference.get("kind", "Deployment")
        target = manifests.find(kind, reference["name"], namespace)
        if target is None:
            yield f"{title(item)}: scales {kind}/{reference['name']}, which does not exist"
            continue
        if reference.get("apiVersion", target["apiVersion"]) != target["apiVersion"]:
            yield (
                f"{title(item)}: names its target by {reference['apiVersion']}, which is "
                f"{target['apiVersion']}"
            )
        if title(target) in scaled:
            yield f"{title(item)}: {title(target)} is scaled by {scaled[title(target)]} as well"
        scaled[title(target)] = title(item)
        if "replicas" in target["spec"]:
            yield f"{title(item)}: {title(target)} sets replicas, so that each apply undoes the scaling"
        hpa = item["kind"] == "HorizontalPodAutoscaler"
        low = spec.get("minReplicas", 1) if hpa else spec.get("minReplicaCount", 0)
        high = spec["maxReplicas"] if hpa else spec.get("maxReplicaCount", 100)
        if low > high or high < 1 or (hpa and low < 1):
            yield f"{title(item)}: {low} to {high} replicas is no range"
        for metric in spec.get("metrics") or []:
            yield from _bad_metric(manifests, item, target, metric)


def _bad_metric(manifests, item, target, metric):
    fields = {
        "Resource": "resource",
        "ContainerResource": "containerResource",
        "Pods": "pods",
        "Object": "object",
        "External": "external",
    }
    field = fields.get(metric.get("type"))
    if field is None or field not in metric:
        yield f"{title(item)}: a metric of type {metric.get('type')} lacks its field {field}"
        return
    aim = metric[field]["target"]
    value_of = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}
    value = aim.get(value_of.get(aim.get("type"), ""))
    if value is None or quantity(value) is None or quantity(value) <= 0:
        yield f"{title(item)}: target of type {aim.get('type')} has no value that fits: {aim}"
    if metric["type"] == "Resource" and aim.get("type") == "Utilization":
        name = metric["resource"]["name"]
        for pod in manifests.pods:
            for container in pod.containers if pod.owner is target else []:
                if name not in ((container.spec.get("resources") or {}).get("requests") or {}):
                    yield (
                        f"{title(item)}: {container.title} has no {name} request, of which a share could be "
                        "used"
                    )


def triggers(manifests):
    """KEDA's thresholds are numbers in strings, and an object that may scale to zero can be woken without its
    own pods."""
    for item in manifests.of_kind("ScaledObject"):
        queries = []
        for trigger in item["spec"]["triggers"]:
            metadata = trigger["metadata"]
            queries.append(metadata.get("query", ""))
            for name in ("threshold", "activationThreshold"):
                value = metadata.get(name, "1")
                if not isinstance(value, str) or not re.fullmatch(r"\d+(\.\d+)?", value):
                    yield f"{title(item)}: {name} {value!r} is not a number in a string"
        own_metrics = "baton_" + item["spec"]["scaleTargetRef"]["name"].replace("baton-", "") + "_"
        if item["spec"].get("minReplicaCount", 0) == 0 and all(own_metrics in query for query in queries):
            yield f"{title(item)}: scales to zero, but only its own pods' metrics could wake it"


CHECKS = [disruption_budgets, autoscalers, triggers]
