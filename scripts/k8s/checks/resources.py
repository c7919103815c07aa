"""Requests and limits."""

from ..quantities import quantity


def resources(manifests):
    """Quantities can be read, requests are within limits, and every container has both for CPU and memory."""
    for pod in manifests.pods:
        for container in pod.all_containers():
            spec = container.spec.get("resources") or {}
            requests, limits = spec.get("requests") or {}, spec.get("limits") or {}
            for part, values in (("request", requests), ("limit", limits)):
                for name, value in values.items():
                    number = quantity(value)
                    if number is None or number < 0:
                        yield f"{container.title}: {name} {part} {value!r} is no quantity"
                    elif name == "memory" and number < 1024**2:
                        yield f"{container.title}: memory {part} {value!r} is less than 1Mi: a wrong unit?"
                    elif "/" in name and number.denominator != 1:
                        yield f"{container.title}: {name} {part} {value!r} is not whole"
                for name in ("cpu", "memory"):
                    if name not in values:
                        yield f"{container.title}: has no {name} {part}"
            for name, value in requests.items():
                requested, limit = quantity(value), quantity(limits.get(name))
                if "/" in name and limit is None:
                    yield (
                        f"{container.title}: {name} stands in requests alone; the API server wants it in "
                        "limits"
                    )
                elif "/" in name and requested != limit:
                    yield f"{container.title}: {name} request {value} differs from its limit {limits[name]}"
                elif None not in (requested, limit) and requested > limit:
                    yield f"{container.title}: {name} request {value} is over its limit {limits[name]}"


def scratch_space(manifests):
    """A pod that may fill its emptyDirs is not evicted for it: their limits fit its ephemeral storage
    limit."""
    for pod in manifests.pods:
        sizes = []
        for volume in pod.spec.get("volumes") or []:
            if "emptyDir" in volume:
                source = volume["emptyDir"] or {}
                size = quantity(source.get("sizeLimit"))
                if size is None:
                    yield (
                        f"{pod.title}: emptyDir {volume['name']} has no sizeLimit, or one that is no quantity"
                    )
                elif source.get("medium") != "Memory":
                    sizes.append(size)
        limits = [
            quantity(((c.spec.get("resources") or {}).get("limits") or {}).get("ephemeral-storage"))
            for c in pod.containers
        ]
        if sizes and None in limits:
            yield f"{pod.title}: has emptyDirs and a container without an ephemeral-storage limit"
        elif sizes and sum(sizes) > sum(limits):
            yield f"{pod.title}: its emptyDirs may hold more than its ephemeral-storage limit"


CHECKS = [resources, scratch_space]
