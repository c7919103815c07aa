"""The guide docs/how-to/try-on-kubernetes.md, typed as it stands, and its S3 server for the other steps."""

import storage
from jobs import NAME, RunningJob
from kubectl import apply, kubectl, pods, wait_until
from manifests import REPOSITORY, container_of, find, set_environment, without
from reference import job_file

OVERLAY = REPOSITORY / "k8s/overlays/try"
RECORDS_PER_SHARD = 16


def overlays_try_ends_by_itself_as_its_guide_says(suite):
    kubectl("delete", "namespace", "baton", "--ignore-not-found", "--wait=true")
    kubectl("apply", "-k", str(OVERLAY))
    kubectl("wait", "--for=condition=complete", "--timeout=10m", f"job/{NAME}")
    wanted = suite.reference.digests((OVERLAY / "corpus.jsonl").read_bytes(), RECORDS_PER_SHARD)
    RunningJob(suite, NAME, "translated", wanted).finish()
    first = "http://127.0.0.1:8888/buckets/corpora/translated/part-000000.jsonl"
    row = kubectl("exec", "deploy/baton-storage", "-c", "s3", "--", "weed", "filer.cat", first)
    print("    " + row.splitlines()[0])


# The room for all jobs of a run. It lies in the memory that the server's container may take.
DATA_SIZE = "256Mi"


def provide_storage(suite):
    """The server of overlays/try with two differences. The pod's containers see each other's processes, so
    that the server can be stopped; its data has a file system of its own, so that it can be filled. The keys
    are in the Secret that the manifests name."""
    text = job_file(["s3://corpora/en"], "s3://corpora/translated", RECORDS_PER_SHARD)
    items = suite.overlays.render_as_it_is("try", text)
    server = find(items, "Deployment", "baton-storage")
    pod = server["spec"]["template"]["spec"]
    pod["shareProcessNamespace"] = True
    data = next(volume for volume in pod["volumes"] if volume["name"] == "data")
    data["emptyDir"] = {"medium": "Memory", "sizeLimit": DATA_SIZE}
    # Its index of names would not recover from a full file system without a new start.
    set_environment(container_of(server, "s3"), WEED_LEVELDB2_DIR="/tmp/names")
    keys = find(items, "Secret", "baton-s3")
    keys["metadata"]["name"] = "baton-s3"
    apply([item for item in items if item["kind"] == "Namespace"])
    workers = [find(items, "Deployment", f"baton-{role}") for role in ("encoder", "decoder")]
    apply([item for item in without(items, "Namespace", "Job") if item not in workers])
    kubectl("rollout", "status", "deployment/baton-storage", "--timeout=5m")
    wait_until("only the new server is left", lambda: len(pods("storage")) == 1, 60)
    wait_until("the server answers", storage.answers, 60)
