"""The semantic checks. Each takes `Manifests` and yields one line for each error, which begins with the
object."""

from . import enums, network, objects, pods, resources, scaling, workloads

ALL = (
    objects.CHECKS
    + enums.CHECKS
    + pods.CHECKS
    + resources.CHECKS
    + network.CHECKS
    + workloads.CHECKS
    + scaling.CHECKS
)


def semantic_errors(manifests):
    """All errors that any check finds, in a fixed order."""
    for check in ALL:
        yield from check(manifests)
