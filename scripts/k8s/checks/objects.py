"""Names, namespaces, and references from one object to another."""

import re

from ..manifests import CLUSTER_KINDS, name_of, title

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
# Kinds whose name becomes a host name or part of a pod's.
_LABEL_NAMED = {"Namespace", "Service", "Job"}


def names(manifests):
    """Names can be names, and no two objects are the same."""
    seen = set()
    for item in manifests.items:
        name = name_of(item)
        pattern = _DNS_LABEL if item.get("kind") in _LABEL_NAMED else _DNS_SUBDOMAIN
        longest = 52 if item.get("kind") == "CronJob" else 63 if item.get("kind") in _LABEL_NAMED else 253
        if not pattern.fullmatch(name) or len(name) > longest:
            yield f"{title(item)}: not a name (lower case letters, digits and dashes, {longest} at most)"
        identity = (item.get("apiVersion"), item.get("kind"), item["metadata"].get("namespace"), name)
        if identity in seen:
            yield f"{title(item)}: appears twice"
        seen.add(identity)


def labels(manifests):
    """Label keys and values are allowed ones."""
    for item in manifests.items:
        for holder in [item] + [{"metadata": pod.metadata} for pod in manifests.pods if pod.owner is item]:
            for key, value in (holder["metadata"].get("labels") or {}).items():
                if (
                    not _LABEL_KEY.fullmatch(key)
                    or not isinstance(value, str)
                    or not _LABEL_VALUE.fullmatch(value)
                ):
                    yield f"{title(item)}: label {key}: {value!r} is not allowed"


def namespaces(manifests):
    """Every object that lives in a namespace names the one that is made here."""
    made = {name_of(item) for item in manifests.of_kind("Namespace")}
    for item in manifests.items:
        namespace = item["metadata"].get("namespace")
        if item["kind"] in CLUSTER_KINDS:
            if namespace:
                yield f"{title(item)}: lives in no namespace, but names {namespace}"
        elif namespace not in made:
            yield (
                f"{title(item)}: namespace {namespace} is not among those made here "
                f"({', '.join(sorted(made)) or 'none'})"
            )


def references(manifests):
    """Config maps, secrets, claims and service accounts that pods use exist, with the keys that they use."""
    for pod in manifests.pods:
        account = pod.spec.get("serviceAccountName")
        if account and not manifests.find("ServiceAccount", account, pod.namespace):
            yield f"{pod.title}: service account {account} does not exist"
        for kind, name, keys, optional in _used_by(pod):
            if not optional:
                yield from _missing(manifests, pod, kind, name, keys)


def _missing(manifests, pod, kind, name, keys):
    found = manifests.find(kind, name, pod.namespace)
    if found is not None:
        there = (
            set(found.get("data") or {})
            | set(found.get("binaryData") or {})
            | set(found.get("stringData") or {})
        )
    elif (kind, name) in manifests.outside:
        there = set(manifests.outside[(kind, name)])
    elif kind == "Secret" and any(
        item["spec"].get("secretName") == name for item in manifests.of_kind("Certificate")
    ):
        there = {"tls.crt", "tls.key", "ca.crt"}
    else:
        yield f"{pod.title}: {kind} {name} does not exist, nor is it in outside.yaml"
        return
    for key in sorted(keys - there):
        yield f"{pod.title}: {kind} {name} has no key {key}"


def _used_by(pod):
    """(kind, name, keys, optional) of everything that the pod takes in."""
    for volume in pod.spec.get("volumes") or []:
        for field, kind, name_field in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            if field in volume:
                source = volume[field]
                keys = {entry["key"] for entry in source.get("items") or []} | set(
                    _files_used(pod, volume["name"])
                )
                yield kind, source.get(name_field), (
                    keys if field != "persistentVolumeClaim" else set()
                ), source.get("optional")
    for container in pod.all_containers():
        for source in container.spec.get("envFrom") or []:
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in source:
                    yield kind, source[field]["name"], set(), source[field].get("optional")
        for variable in container.environment().values():
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                source = (variable.get("valueFrom") or {}).get(field)
                if source:
                    yield kind, source["name"], {source["key"]}, source.get("optional")


def _files_used(pod, volume):
    """Files of a mounted volume that arguments and variables name: /etc/baton/job.toml of a mount at
    /etc/baton."""
    for container in pod.all_containers():
        values = [
            str(argument).partition("=")[2] or str(argument) for argument in container.spec.get("args") or []
        ]
        values += [variable.get("value") or "" for variable in container.environment().values()]
        for mount in container.spec.get("volumeMounts") or []:
            prefix = mount["mountPath"].rstrip("/") + "/"
            if mount["name"] == volume and "subPath" not in mount:
                yield from (value[len(prefix) :] for value in values if value.startswith(prefix))


CHECKS = [names, labels, namespaces, references]
