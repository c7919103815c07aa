"""Checks each pod's rights, mounts, probes and end."""

import re

_UNSAFE_POD_FIELDS = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
_PROCESSES = ("coordinator", "encoder", "decoder")
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def security(manifests):
    """No root, no privileges, nothing writable but volumes, no token for the API server."""
    for pod in manifests.pods:
        for field in _UNSAFE_POD_FIELDS:
            if pod.spec.get(field):
                yield f"{pod.title}: {field} is set"
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield (
                f"{pod.title}: automountServiceAccountToken is not false, and no process of Baton needs the "
                "token"
            )
        for volume in pod.spec.get("volumes") or []:
            if "hostPath" in volume:
                yield f"{pod.title}: volume {volume['name']} is a hostPath"
        pod_context = pod.spec.get("securityContext") or {}
        for container in pod.all_containers():
            context = {**pod_context, **(container.spec.get("securityContext") or {})}
            if context.get("runAsNonRoot") is not True:
                yield f"{container.title}: runAsNonRoot is not true"
            user = context.get("runAsUser")
            if not isinstance(user, int) or user == 0:
                yield (
                    f"{container.title}: runAsUser is {user}; the kubelet can only check a number other "
                    "than 0"
                )
            if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
                yield f"{container.title}: seccompProfile is not RuntimeDefault"
            if context.get("readOnlyRootFilesystem") is not True:
                yield f"{container.title}: readOnlyRootFilesystem is not true"
            if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
                yield f"{container.title}: allowPrivilegeEscalation is not false, or privileged is set"
            capabilities = context.get("capabilities") or {}
            if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
                yield f"{container.title}: capabilities are not all dropped"


def images(manifests):
    """Every image has a tag that does not move, or a digest."""
    for pod in manifests.pods:
        for container in pod.all_containers():
            image = container.spec.get("image", "")
            name, _, digest = image.partition("@")
            tag = name.rpartition("/")[2].partition(":")[2]
            if not digest and tag in ("", "latest"):
                yield f"{container.title}: image {image!r} has no tag, or one that moves"


def mounts(manifests):
    """Mounts and volumes belong together, and none lies inside a mount where the kubelet cannot make its
    directory."""
    for pod in manifests.pods:
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or []}
        used = set()
        for container in pod.all_containers():
            paths = {}
            for mount in container.spec.get("volumeMounts") or []:
                path = mount["mountPath"].rstrip("/")
                used.add(mount["name"])
                if mount["name"] not in volumes:
                    yield f"{container.title}: mounts {mount['name']}, which is no volume of the pod"
                if path in paths:
                    yield f"{container.title}: mounts two volumes at {path}"
                paths[path] = volumes.get(mount["name"], {})
            for path in paths:
                for outer, volume in paths.items():
                    if path.startswith(outer + "/") and ("configMap" in volume or "secret" in volume):
                        yield (
                            f"{container.title}: {path} lies inside {outer}, a volume in which nothing can "
                            "be made"
                        )
            if not container.is_init and "/tmp" not in paths:
                yield f"{container.title}: nothing is mounted at /tmp, and the root is read only"
        for name in sorted(set(volumes) - used):
            yield f"{pod.title}: volume {name} is not mounted"


def container_ports(manifests):
    """Port names are short and used once, and every --...listen flag has its port declared."""
    for pod in manifests.pods:
        seen = set()
        for container in pod.containers:
            declared = container.spec.get("ports") or []
            for port in declared:
                name, number = port.get("name"), port["containerPort"]
                if not 1 <= number <= 65535:
                    yield f"{container.title}: port {number} is not between 1 and 65535"
                if name is not None and (
                    len(name) > 15 or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name.isdigit()
                ):
                    yield (
                        f"{container.title}: port name {name!r} is not allowed (15 lower case letters, "
                        "digits, dashes)"
                    )
                for identity in ([name] if name else []) + [(number, port.get("protocol", "TCP"))]:
                    if identity in seen:
                        yield f"{container.title}: port {identity} is declared twice"
                    seen.add(identity)
            numbers = {port["containerPort"] for port in declared}
            for flag, value in container.flags().items():
                if flag.endswith("listen") and value:
                    port = int(value.rpartition(":")[2])
                    if port not in numbers:
                        yield f"{container.title}: {flag}={value}, but port {port} is not declared"


def probes(manifests):
    """Long-running containers are probed, on ports that exist, and alive does not mean ready."""
    for pod in manifests.pods:
        for container in pod.containers:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.spec.get(kind)
                if probe is None:
                    yield f"{container.title}: has no {kind}"
                    continue
                action = probe.get("httpGet") or probe.get("tcpSocket") or probe.get("grpc") or {}
                if "port" in action and action["port"] not in container.ports():
                    yield (
                        f"{container.title}: {kind} asks port {action['port']}, which the container does "
                        "not declare"
                    )
                if probe.get("timeoutSeconds", 1) > probe.get("periodSeconds", 10):
                    yield f"{container.title}: {kind} waits longer than its period"
            path = (container.spec.get("livenessProbe") or {}).get("httpGet", {}).get("path")
            if path not in (None, "/livez"):
                yield (
                    f"{container.title}: livenessProbe asks {path}: only /livez does not depend on load and "
                    "peers"
                )


def grace_periods(manifests):
    """The kubelet waits longer than the process takes to drain."""
    for pod in manifests.pods:
        allowed = pod.spec.get("terminationGracePeriodSeconds", 30)
        for container in pod.containers:
            if container.name not in _PROCESSES:
                continue  # not one of Baton's
            drain = container.flags().get("--grace-period-s")
            if drain is None:
                yield f"{container.title}: sets no --grace-period-s"
            elif int(drain) + 10 > allowed:
                yield (
                    f"{container.title}: --grace-period-s={drain} and ten seconds to end do not fit "
                    f"terminationGracePeriodSeconds {allowed}"
                )


def variables(manifests):
    """Arguments refer to variables that exist; another $(NAME) would reach the process as it is written."""
    for pod in manifests.pods:
        given = (
            {"JOB_COMPLETION_INDEX"} if (pod.job_spec() or {}).get("completionMode") == "Indexed" else set()
        )
        for container in pod.all_containers():
            known = given | set(container.environment())
            for argument in (container.spec.get("command") or []) + (container.spec.get("args") or []):
                for name in _REFERENCE.findall(str(argument).replace("$$(", "")):
                    if name not in known:
                        yield f"{container.title}: {argument} refers to {name}, which is not set"


CHECKS = [security, images, mounts, container_ports, probes, grace_periods, variables]
