"""A volume with the bundle, which every node has at the same path, and the claim of
k8s/components/bundle-volume."""

from kubectl import NAMESPACE


def claim(path):
    """The volume and the claim that is bound to it."""
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "baton-bundle"},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "baton-suite",
            "hostPath": {"path": path, "type": "Directory"},
        },
    }
    claim_of_it = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "baton-bundle", "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "baton-suite",
            "volumeName": "baton-bundle",
            "resources": {"requests": size},
        },
    }
    return [volume, claim_of_it]
