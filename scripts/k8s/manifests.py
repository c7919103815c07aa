"""Rendered objects with what connects them: pods of workloads, selectors, lookups by name.

Owns the reading of objects; checks/ has the rules for them.
"""

# Kinds that live in no namespace, among those that Baton may use.
CLUSTER_KINDS = {
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "StorageClass",
    "ClusterRole",
    "ClusterRoleBinding",
}
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"}


def name_of(item):
    return item.get("metadata", {}).get("name", "")


def title(item):
    return f"{item.get('kind', '?')}/{name_of(item)}"


def labels_match(selector, labels):
    """Whether a label selector, null for none and {} for all, matches `labels`."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions") or []:
        key, values = rule["key"], rule.get("values") or []
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds.get(rule["operator"], False):
            return False
    return True


class Container:
    """One container of a pod template."""

    def __init__(self, pod, spec, is_init):
        self.pod, self.spec, self.is_init = pod, spec, is_init
        self.name = spec.get("name", "")
        self.title = f"{pod.title} container {self.name}"

    def ports(self):
        """{name or number: number} of the declared ports."""
        ports = {}
        for port in self.spec.get("ports") or []:
            ports[port["containerPort"]] = port["containerPort"]
            if "name" in port:
                ports[port["name"]] = port["containerPort"]
        return ports

    def flags(self):
        """{flag: value} of the arguments, `--flag=value` or `--flag value`; a flag without a value is
        None."""
        flags, arguments = {}, [str(argument) for argument in self.spec.get("args") or []]
        for index, argument in enumerate(arguments):
            if argument.startswith("--"):
                flag, equals, value = argument.partition("=")
                following = arguments[index + 1] if index + 1 < len(arguments) else "--"
                flags[flag] = value if equals else (None if following.startswith("--") else following)
        return flags

    def environment(self):
        return {variable["name"]: variable for variable in self.spec.get("env") or []}


class Pod:
    """The pod template of a workload."""

    def __init__(self, owner, template):
        self.owner, self.title = owner, title(owner)
        self.namespace = owner.get("metadata", {}).get("namespace", "default")
        self.metadata = template.get("metadata") or {}
        self.labels = self.metadata.get("labels") or {}
        self.spec = template.get("spec") or {}
        self.containers = [Container(self, spec, False) for spec in self.spec.get("containers") or []]
        self.init_containers = [Container(self, spec, True) for spec in self.spec.get("initContainers") or []]

    def all_containers(self):
        return self.init_containers + self.containers

    def job_spec(self):
        """The Job that the pod belongs to, or None."""
        if self.owner["kind"] == "CronJob":
            return self.owner["spec"]["jobTemplate"].get("spec") or {}
        return self.owner["spec"] if self.owner["kind"] == "Job" else None

    def ports(self):
        return {name: port for container in self.containers for name, port in container.ports().items()}


class Manifests:
    """All objects of one rendering. `outside` names those that others provide: {(kind, name): keys}."""

    def __init__(self, items, outside=None):
        self.items = items
        self.outside = outside or {}
        self.pods = [Pod(item, self._template(item)) for item in items if item.get("kind") in WORKLOADS]

    @staticmethod
    def _template(item):
        spec = item.get("spec") or {}
        if item["kind"] == "Pod":
            return {"metadata": item.get("metadata"), "spec": spec}
        if item["kind"] == "CronJob":
            spec = spec.get("jobTemplate", {}).get("spec") or {}
        return spec.get("template") or {}

    def of_kind(self, *kinds):
        return [item for item in self.items if item.get("kind") in kinds]

    def find(self, kind, name, namespace):
        for item in self.of_kind(kind):
            if name_of(item) == name and item["metadata"].get("namespace", "default") == namespace:
                return item
        return None

    def selected(self, selector, namespace):
        """The pods of `namespace` that a label selector matches."""
        return [pod for pod in self.pods if pod.namespace == namespace and labels_match(selector, pod.labels)]
