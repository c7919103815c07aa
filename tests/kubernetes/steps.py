"""The steps, cheap ones first. Each is a function whose name says what holds; each asserts that its
disturbance happened before the job ended."""

import json
import tempfile
import time

import fullness
import paths
import preemption
import storage
import tls
import upgrades
import volume
from jobs import BUCKET, JOB_SECONDS, NAME, SkipStep, kill, run_outside, twin_deployment
from kubectl import (
    ROLE,
    apply,
    expect,
    get,
    kubectl,
    names,
    pods,
    ready_pods,
    schedulable_nodes,
    uids,
    wait_until,
)
from manifests import container_of, find

STEPS = []
CPU_KINDS = {"DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def step(function):
    STEPS.append(function)
    return function


@step
def an_undisturbed_job_has_the_bytes_of_a_local_run(suite):
    suite.workers()
    suite.begin("undisturbed").finish()


@step
def a_finished_job_is_found_complete_when_it_is_begun_again(suite):
    job = suite.begin("undisturbed")
    job.finish()
    expect(pods("coordinator"), "no coordinator ran")


@step
def all_workers_and_coordinators_are_killed_at_once(suite):
    suite.workers()
    job = suite.begin("killed")
    job.wait_for_share(0.2)
    killed = kill("coordinator", "encoder", "decoder")
    job.expect_running()
    expect(killed >= 4, f"only {killed} pods were killed")
    job.finish()


@step
def coordinators_are_killed_three_times(suite):
    suite.workers()
    job = suite.begin("headless")
    seen = set()
    for share in (0.1, 0.3, 0.5):
        job.wait_for_share(share)
        seen |= uids(pods("coordinator"))
        kill("coordinator")
        job.expect_running()
    expect(len(seen) >= 4, f"only {len(seen)} coordinators were seen")
    job.finish()


@step
def a_job_is_suspended_and_resumed(suite):
    suite.workers()
    job = suite.begin("suspended")
    job.wait_for_share(0.2)
    kubectl("patch", "job", NAME, "--patch", json.dumps({"spec": {"suspend": True}}))
    wait_until("no coordinator runs", lambda: not pods("coordinator"), 90)
    before = job.settled_count()
    job.expect_running()
    kubectl("patch", "job", NAME, "--patch", json.dumps({"spec": {"suspend": False}}))
    job.finish()
    expect(before < len(job.wanted), "it was complete while it was suspended")


@step
def workers_are_scaled_to_none_and_back(suite):
    suite.workers()
    job = suite.begin("scaled")
    job.wait_for_share(0.2)
    kubectl("scale", "deployment", "baton-encoder", "baton-decoder", "--replicas=0")
    wait_until("no worker is left", lambda: not pods("encoder", "decoder"), 180)
    job.expect_running()
    kubectl("scale", "deployment", "baton-encoder", "--replicas=1")
    kubectl("scale", "deployment", "baton-decoder", "--replicas=2")
    job.finish()


@step
def both_deployments_are_rolled(suite):
    suite.workers()
    job = suite.begin("rolled")
    job.wait_for_share(0.1)
    before = uids(pods("encoder", "decoder"))
    kubectl("rollout", "restart", "deployment", "baton-encoder", "baton-decoder")
    job.expect_running()
    job.finish()
    wait_until("all workers are new", lambda: not before & uids(pods("encoder", "decoder")), 300)


@step
def storage_stands_still_for_45_seconds(suite):
    suite.workers()
    job = suite.begin("frozen")
    job.wait_for_share(0.2)
    storage.freeze()
    try:
        expect(not storage.answers(), "the server still answers")
        time.sleep(45)
        expect(not storage.answers(), "the server answered before it was let go")
    finally:
        storage.thaw()
    wait_until("the server answers", storage.answers, 60)
    job.expect_running()
    job.finish()


@step
def two_jobs_at_once_share_the_workers(suite):
    suite.workers()
    first = suite.begin("first")
    second = suite.begin("second", name="baton-coordinator-second")
    second.wait_for_share(0.1)
    first.expect_running()
    first.finish()
    second.finish()
    kubectl("delete", "job", second.name)


@step
def decoders_of_two_kinds_of_cpu_share_a_job(suite):
    items = suite.render("kinds")
    suite.workers(decoders=1, items=items)
    apply([twin_deployment(items, "decoder", "older", **CPU_KINDS)])
    try:
        wait_until("decoders of both kinds are ready", lambda: len(ready_pods("decoder")) == 2, 300)
        both = names(pods("decoder"))
        suite.begin("kinds", items=items).finish()
        for pod in both:
            log = kubectl("logs", pod, "--container", "decoder")
            expect("shard is committed" in log, f"{pod} committed nothing")
    finally:
        kubectl("delete", "deployment", "baton-decoder-older", "--wait=true")


@step
def policies_open_and_shut_the_paths_between_pods(suite):
    suite.workers(encoders=2, decoders=2)
    job = suite.begin("paths")
    job.wait_for_share(0.1)
    found = paths.members()
    storage.freeze()  # so that the job waits while paths are tried
    try:
        number = paths.check(found)
    finally:
        storage.thaw()
    job.expect_running()
    job.finish()
    print(f"    {number} paths")


@step
def processes_speak_mutual_tls_and_take_renewed_certificates(suite):
    with tempfile.TemporaryDirectory() as scratch:
        authority = tls.Authority(scratch)
        first = authority.issue()
        apply(first)
        items = suite.render("tls", components=["tls"])
        suite.workers(items=items)
        expect_refusal_without_certificates(suite)
        job = suite.begin("tls", items=items)
        job.wait_for_share(0.1)
        before = uids(pods("encoder", "decoder"))
        second = authority.issue()
        expect(first != second, "the certificates are the same")
        apply(second)
        kubectl("rollout", "restart", "deployment", "baton-encoder", "baton-decoder")
        job.expect_running()
        job.finish()
        wait_until("all workers are new", lambda: not before & uids(pods("encoder", "decoder")), 300)
        suite.begin("tls-renewed", components=["tls"]).finish()
    suite.workers()


def expect_refusal_without_certificates(suite):
    """A coordinator that speaks plain text gets no work done."""
    job = suite.begin("plain", items=suite.render("plain"))
    told = "if the service there uses TLS"
    wait_until("the coordinator is told to use TLS", lambda: told in job.logs(200), 120)
    expect(job.committed() == 0, "workers took shards from a coordinator without a certificate")


@step
def decoders_are_scaled_by_the_cpus_that_they_use(suite):
    suite.workers(decoders=1)
    scaler = find(suite.render("none"), "HorizontalPodAutoscaler", "baton-decoder")
    scaler["spec"]["maxReplicas"] = 3
    # A small model on a busy machine gets little of a CPU.
    scaler["spec"]["metrics"][0]["resource"]["target"]["averageValue"] = "50m"
    scaler["spec"]["behavior"]["scaleUp"]["policies"][0]["periodSeconds"] = 15
    apply([scaler])
    try:
        before, num_jobs = names(pods("decoder")), 0
        # Figures of use come every quarter of a minute or so, which may be longer than a job.
        while not names(ready_pods("decoder")) - before:
            expect(num_jobs < 10, "ten jobs did not bring a second decoder")
            suite.begin(f"autoscaled-{num_jobs}").finish()
            num_jobs += 1
        new = names(ready_pods("decoder")) - before
        suite.begin("autoscaled").finish()
        work = [pod for pod in new if "shard is committed" in kubectl("logs", pod, "--container", "decoder")]
        expect(work, f"none of the new decoders {new} committed a shard")
        print(f"    {len(new)} more decoders after {num_jobs} jobs")
    finally:
        kubectl("delete", "horizontalpodautoscaler", "baton-decoder")


@step
def the_bundle_comes_from_a_volume(suite):
    path = suite.options.bundle_on_nodes
    if not path:
        raise SkipStep("--bundle-on-nodes says where the nodes have it")
    apply(volume.claim(path))
    items = suite.render("volume", components=["bundle-volume"])
    suite.workers(items=items)
    for pod in pods("encoder", "decoder"):
        expect("initContainers" not in pod["spec"], "a pod still copies the bundle")
    suite.begin("volume", items=items).finish()
    suite.workers()


@step
def a_wrong_job_file_fails_the_job_at_once(suite):
    def edit(job):
        container_of(job, "coordinator")["args"].append("--max-error-rate=7")

    started = time.monotonic()
    suite.begin("wrong", edit=edit)

    def reason():
        for entry in get("job", NAME)["status"].get("conditions", []):
            if entry["type"] == "Failed" and entry["status"] == "True":
                return entry["reason"]
        return None

    found = wait_until("the Job has failed", reason, 120)
    expect(found == "PodFailurePolicy", f"the Job failed by {found}")
    print(f"    after {time.monotonic() - started:.0f} s")


@step
def a_node_is_drained(suite):
    suite.workers(encoders=2, decoders=2)
    node = node_without_storage()
    job = suite.begin("drained")
    job.wait_for_share(0.1)
    here = [pod for pod in pods("encoder", "decoder", "coordinator") if pod["spec"].get("nodeName") == node]
    expect(here, f"no pod of Baton is on {node}")
    try:
        selector = f"{ROLE} in (encoder,decoder,coordinator)"
        kubectl(
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            f"--pod-selector={selector}",
            "--timeout=300s",
        )
        left = [
            pod for pod in pods("encoder", "decoder", "coordinator") if pod["spec"].get("nodeName") == node
        ]
        expect(not names(left) & names(here), f"{node} still has {names(left)}")
        print(f"    {len(here)} pods left {node}")
        job.finish()
    finally:
        kubectl("uncordon", node)


@step
def the_second_night_takes_only_what_is_new(suite):
    suite.workers()
    arrived = f"{BUCKET}/{suite.run}/arrived"
    nights = "nights"
    inputs = [f"s3://{arrived}/**/*.jsonl"]
    items = suite.render(nights, overlay="nightly", inputs=inputs)
    config = find(items, "ConfigMap", "baton-job")
    config["data"]["job.toml"] = "".join(
        line for line in config["data"]["job.toml"].splitlines(True) if not line.startswith("output")
    )
    cron = find(items, "CronJob", "baton-nightly")
    cron["spec"]["suspend"] = True
    container = container_of(cron, "coordinator")
    container["args"] = [
        argument.replace("s3://corpora/nightly", f"s3://{BUCKET}/{suite.run}/{nights}")
        for argument in container["args"]
    ]
    apply([item for item in items if item["kind"] == "ConfigMap"] + [cron])
    for number in (1, 2):
        data = suite.more_records(number)
        storage.put(f"{arrived}/day-{number}.jsonl", data)
        name = f"baton-nightly-{number}"
        kubectl("delete", "job", name, "--ignore-not-found", "--wait=true")
        kubectl("create", "job", "--from=cronjob/baton-nightly", name)
        night = suite.running(name, f"{nights}/{name}", data)
        night.finish()
        taken = [entry["uri"].rpartition("/")[2] for entry in night.record()["inputs"]]
        expect(taken == [f"day-{number}.jsonl"], f"night {number} took {taken}")
    kubectl("delete", "cronjob", "baton-nightly")


@step
def a_node_is_cut_off_for_90_seconds(suite):
    cut_off(suite, "cut", lambda job: time.sleep(90))


@step
def a_node_is_lost_for_good_and_others_finish_its_partition(suite):
    def until_success(job):
        job.wait_for_success(JOB_SECONDS)
        job.expect_equal_bytes()
        state = get("job", NAME)["status"]
        print(f"    _SUCCESS while the node is away; the Job has {state.get('succeeded', 0)} of 2 indices")

    cut_off(suite, "lost", until_success)


def cut_off(suite, output, meanwhile):
    """Cuts off the node of one coordinator and some workers while a job runs."""
    if not suite.options.cut:
        raise SkipStep("--cut and --mend say how")
    suite.workers(encoders=2, decoders=2)
    node = node_without_storage()
    move_names_away(node)

    def edit(job):
        job["spec"]["template"]["spec"]["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {ROLE: "coordinator"}},
            }
        ]

    job = suite.begin(output, edit=edit)
    job.wait_for_share(0.1)
    here = [pod for pod in pods("coordinator") if pod["spec"].get("nodeName") == node]
    expect(here, f"no coordinator is on {node}")
    run_outside(suite.options.cut, node)
    try:
        wait_until(f"{node} is not ready", lambda: not node_is_ready(node), 120)
        job.expect_running()
        meanwhile(job)
    finally:
        run_outside(suite.options.mend, node)
        wait_until(f"{node} is ready", lambda: node_is_ready(node), 120)
    job.finish()


def node_is_ready(node):
    conditions = get("node", node)["status"]["conditions"]
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def node_without_storage():
    """A node for workers that a step may take away."""
    home = pods("storage")[0]["spec"]["nodeName"]
    others = [node for node in schedulable_nodes() if node != home]
    if not others:
        raise SkipStep("it needs two nodes")
    return others[0]


def move_names_away(node):
    """Lets the cluster's name servers run elsewhere: a small cluster has one, and to lose it is another
    disturbance."""
    found = get("pods", "--namespace", "kube-system", "--selector", "k8s-app=kube-dns")["items"]
    here = [pod for pod in found if pod["spec"].get("nodeName") == node]
    if not here:
        return
    kubectl("cordon", node)
    try:
        for name in names(here):
            kubectl("delete", "pod", name, "--namespace", "kube-system")
        kubectl(
            "rollout", "status", "deployment", "--namespace", "kube-system", "--selector", "k8s-app=kube-dns"
        )
    finally:
        kubectl("uncordon", node)


STEPS += [
    fullness.storage_is_full_for_a_minute,
    preemption.all_pods_of_baton_are_preempted_at_once,
    upgrades.workers_are_upgraded_before_coordinators_and_versions_never_mix,
    upgrades.coordinators_are_upgraded_before_workers_and_versions_never_mix,
]
