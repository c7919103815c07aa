"""Deployments, jobs and cron jobs: selectors, and the rules that tie their fields together."""

import re

from ..manifests import labels_match, title

_CRON_FIELDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]


def selectors(manifests):
    """A workload selects its own pods and no others."""
    for item in manifests.of_kind("Deployment", "StatefulSet", "DaemonSet"):
        selector = item["spec"].get("selector")
        for pod in manifests.pods:
            same_namespace = pod.namespace == item["metadata"].get("namespace", "default")
            matches = same_namespace and labels_match(selector, pod.labels)
            if pod.owner is item and not matches:
                yield f"{title(item)}: selector does not match its own pods' labels {pod.labels}"
            elif pod.owner is not item and matches:
                yield f"{title(item)}: selector matches the pods of {pod.title} as well"
    for pod in manifests.pods:
        for constraint in pod.spec.get("topologySpreadConstraints") or []:
            if not labels_match(constraint.get("labelSelector"), pod.labels):
                yield f"{pod.title}: a topologySpreadConstraint does not select the pods it is written for"


def restarts(manifests):
    """Restart policies that the API server accepts."""
    for pod in manifests.pods:
        policy = pod.spec.get("restartPolicy", "Always")
        if pod.job_spec() is not None:
            if policy == "Always":
                yield f"{pod.title}: restartPolicy of a job is Never or OnFailure"
            elif policy != "Never" and "podFailurePolicy" in pod.job_spec():
                yield f"{pod.title}: podFailurePolicy needs restartPolicy Never"
        elif pod.owner["kind"] != "Pod" and policy != "Always":
            yield f"{pod.title}: restartPolicy {policy} is for jobs only"


def jobs(manifests):
    """Indexed jobs and failure policies hang together."""
    for pod in manifests.pods:
        job = pod.job_spec()
        if job is None:
            continue
        indexed = job.get("completionMode") == "Indexed"
        if indexed and "completions" not in job:
            yield f"{pod.title}: an Indexed job needs completions"
        if "backoffLimitPerIndex" in job and not indexed:
            yield f"{pod.title}: backoffLimitPerIndex needs completionMode Indexed"
        if job.get("parallelism", 1) > job.get("completions", 1):
            yield (
                f"{pod.title}: parallelism {job['parallelism']} is more than completions "
                f"{job.get('completions', 1)}"
            )
        if "selector" in job or job.get("manualSelector"):
            yield f"{pod.title}: a job's selector is made by the cluster"
        rules = (job.get("podFailurePolicy") or {}).get("rules") or []
        if rules and job.get("podReplacementPolicy", "Failed") != "Failed":
            yield f"{pod.title}: podFailurePolicy allows only podReplacementPolicy Failed"
        names = {container.name for container in pod.all_containers()}
        for rule in rules:
            if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in job:
                yield f"{pod.title}: action FailIndex needs backoffLimitPerIndex"
            if ("onExitCodes" in rule) == ("onPodConditions" in rule):
                yield f"{pod.title}: a failure rule has either onExitCodes or onPodConditions"
            codes = rule.get("onExitCodes") or {}
            if codes.get("containerName", next(iter(names))) not in names:
                yield (
                    f"{pod.title}: a failure rule names container {codes['containerName']}, which does not "
                    "exist"
                )
            values = codes.get("values") or []
            if values != sorted(set(values)) or (codes.get("operator") == "In" and 0 in values):
                yield f"{pod.title}: exit codes {values} must be in order, each once, and 0 is no failure"
        yield from _partitions(pod, job)


def _partitions(pod, job):
    """--partition I/N names every partition once."""
    for container in pod.containers:
        partition = container.flags().get("--partition")
        if partition is None:
            if job.get("completions", 1) > 1:
                yield f"{container.title}: {job['completions']} completions, but no --partition"
            continue
        index, _, total = partition.partition("/")
        if index != "$(JOB_COMPLETION_INDEX)" or total != str(job.get("completions")):
            yield (
                f"{container.title}: --partition={partition} does not fit completions "
                f"{job.get('completions')}"
            )


def cron_jobs(manifests):
    """Schedules can be read."""
    for item in manifests.of_kind("CronJob"):
        fields = str(item["spec"].get("schedule", "")).split()
        if len(fields) != 5 or not all(
            _is_cron_field(field, *bounds) for field, bounds in zip(fields, _CRON_FIELDS)
        ):
            yield f"{title(item)}: schedule {item['spec'].get('schedule')!r} is not five cron fields"
        zone = item["spec"].get("timeZone", "Etc/UTC")
        if not re.fullmatch(r"[A-Za-z_+\-0-9]+(/[A-Za-z_+\-0-9]+)*", zone) or zone == "Local":
            yield f"{title(item)}: timeZone {zone!r} is no name of a time zone"


def _is_cron_field(field, low, high):
    for part in field.split(","):
        found = re.fullmatch(r"(\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", part)
        if not found:
            return False
        ends = [int(end) for end in found.group(2, 3) if end is not None]
        if any(not low <= end <= high for end in ends) or ends != sorted(ends):
            return False
    return True


CHECKS = [selectors, restarts, jobs, cron_jobs]
