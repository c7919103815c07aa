"""Tests of scripts/k8s_check.py: the manifests are right, and mistakes in objects, pods and flags are found.

A mistake is made in a rendered overlay, one a test, and the check must name it.
"""

import copy
import tempfile
import unittest
from pathlib import Path

from broken_manifests import ROOT, WithBrokenManifests
from k8s import binaries, render
from k8s.manifests import Manifests
from k8s.quantities import quantity
from k8s.schemas import schema_errors

HELP = """Usage: baton-encoder [OPTIONS] [JOB.toml]

Arguments:
  [JOB.toml]
          Job file in TOML

Options:
      --bundle <DIR>
          Directory of the bundle [env: BATON_BUNDLE=]
      --log-format <FORMAT>
          How logs are written [env: BATON_LOG_FORMAT=] [default: human]

          [possible values: human, json]
      --mode <MODE>
          Who writes

          Possible values:
          - hybrid: Both models
          - slm:    The small one
      --check
          A switch
  -h, --help
          Print help

Exit codes:
  0    all is well
  2    wrong usage
"""


class Sound(WithBrokenManifests):
    def test_every_overlay_passes_schemas_and_checks(self):
        for directory in render.kustomizations(ROOT):
            self.items = render.render(directory)
            self.assertEqual(self.errors(), [], directory)
            self.assertEqual([error for item in self.items for error in schema_errors(item)], [], directory)

    def test_the_nightly_cron_job_has_the_spec_of_the_job_and_no_job_is_applied(self):
        job = self.object("Job", "baton-coordinator")["spec"]
        self.use("nightly")
        self.assertEqual([item for item in self.items if item["kind"] == "Job"], [])
        nightly = self.object("CronJob", "baton-nightly")["spec"]["jobTemplate"]["spec"]
        self.assertEqual(nightly["podFailurePolicy"], job["podFailurePolicy"])
        self.assertEqual(
            nightly["template"]["spec"]["securityContext"], job["template"]["spec"]["securityContext"]
        )


class Schemas(WithBrokenManifests):
    def test_an_unknown_field_is_found(self):
        self.pod()["serviceAcountName"] = "baton-decoder"
        found = [error for item in self.items for error in schema_errors(item)]
        self.assertEqual(len(found), 1, found)
        self.assertRegex(found[0], "serviceAcountName")

    def test_a_wrong_type_is_found(self):
        self.deployment()["revisionHistoryLimit"] = "3"
        self.assertRegex(
            str([error for item in self.items for error in schema_errors(item)]),
            "revisionHistoryLimit: '3' is not of type",
        )

    def test_an_api_version_that_is_gone_is_found(self):
        autoscaler = self.object("HorizontalPodAutoscaler", "baton-decoder")
        autoscaler["apiVersion"] = "autoscaling/v2beta2"
        self.assertRegex(
            str(list(schema_errors(autoscaler))), "has no kind HorizontalPodAutoscaler in autoscaling/v2beta2"
        )

    def test_a_field_that_an_operator_does_not_know_is_found(self):
        self.use("keda")
        scaled = self.object("ScaledObject", "baton-decoder")
        scaled["spec"]["minReplicas"] = 0
        self.assertRegex(str(list(schema_errors(scaled))), "minReplicas")


class Objects(WithBrokenManifests):
    def test_a_name_that_is_no_host_name(self):
        self.object("Service", "baton-decoder")["metadata"]["name"] = "baton_decoder"
        self.assert_found("Service/baton_decoder: not a name")

    def test_the_same_object_twice(self):
        self.items.append(copy.deepcopy(self.object("Service", "baton-decoder")))
        self.assert_found("Service/baton-decoder: appears twice")

    def test_a_label_value_with_a_space(self):
        self.object("Service", "baton-decoder")["metadata"]["labels"]["team"] = "bulk text"
        self.assert_found("label team: 'bulk text' is not allowed")

    def test_another_namespace(self):
        self.object("NetworkPolicy", "baton-dns")["metadata"]["namespace"] = "batton"
        self.assert_found("NetworkPolicy/baton-dns: namespace batton is not among those made here")

    def test_a_namespace_on_an_object_that_has_none(self):
        self.object("Namespace", "baton")["metadata"]["namespace"] = "baton"
        self.assert_found("Namespace/baton: lives in no namespace")

    def test_a_config_map_that_does_not_exist(self):
        self.container()["envFrom"][0]["configMapRef"]["name"] = "baton-stores"
        self.assert_found("Deployment/baton-decoder: ConfigMap baton-stores does not exist")

    def test_a_secret_that_nobody_declared(self):
        self.container()["envFrom"][1]["secretRef"] = {"name": "keys"}
        self.assert_found("Secret keys does not exist, nor is it in outside.yaml")

    def test_a_service_account_that_does_not_exist(self):
        self.pod()["serviceAccountName"] = "decoder"
        self.assert_found("service account decoder does not exist")

    def test_a_job_file_that_is_not_in_its_config_map(self):
        self.container("coordinator")["args"][0] = "/etc/baton/jobs.toml"
        self.assert_found("Job/baton-coordinator: ConfigMap baton-job-.* has no key jobs.toml")

    def test_a_certificate_file_that_is_not_in_its_secret(self):
        self.use("secure")
        self.container()["env"][0]["value"] = "/etc/baton-tls/server.crt"
        self.assert_found("Secret baton-decoder-tls has no key server.crt")


class Enums(WithBrokenManifests):
    def test_words_outside_the_vocabulary(self):
        self.object("NetworkPolicy", "baton-dns")["spec"]["policyTypes"] = ["egress"]
        self.container()["imagePullPolicy"] = "Allways"
        self.pod()["tolerations"] = [{"key": "gpu", "operator": "Exist"}]
        self.deployment()["strategy"]["type"] = "Rolling"
        errors = "\n".join(self.errors())
        for word in ("'egress'", "'Allways'", "'Exist'", "'Rolling'"):
            self.assertRegex(errors, f"is {word}, not one of")

    def test_a_pod_security_level_that_does_not_exist(self):
        self.object("Namespace", "baton")["metadata"]["labels"][
            "pod-security.kubernetes.io/enforce"
        ] = "strict"
        self.assert_found("enforce is 'strict', which is no level")


class Pods(WithBrokenManifests):
    def test_each_privilege(self):
        for change, message in (
            (lambda: self.pod()["securityContext"].pop("runAsNonRoot"), "runAsNonRoot is not true"),
            (lambda: self.pod()["securityContext"].pop("runAsUser"), "runAsUser is None"),
            (lambda: self.pod()["securityContext"].update(runAsUser=0), "runAsUser is 0"),
            (
                lambda: self.pod()["securityContext"].pop("seccompProfile"),
                "seccompProfile is not RuntimeDefault",
            ),
            (
                lambda: self.container()["securityContext"].pop("readOnlyRootFilesystem"),
                "readOnlyRootFilesystem",
            ),
            (
                lambda: self.container()["securityContext"].pop("allowPrivilegeEscalation"),
                "allowPrivilegeEscalation",
            ),
            (lambda: self.container()["securityContext"].update(privileged=True), "privileged"),
            (lambda: self.container()["securityContext"].update(capabilities={"drop": []}), "capabilities"),
            (lambda: self.pod().update(hostNetwork=True), "hostNetwork is set"),
            (
                lambda: self.pod().pop("automountServiceAccountToken"),
                "automountServiceAccountToken is not false",
            ),
            (
                lambda: self.pod()["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
                "volume h is a hostPath",
            ),
        ):
            with self.subTest(message):
                self.use("cpu")
                change()
                self.assert_found(f"Deployment/baton-decoder.*{message}")

    def test_an_init_container_is_held_to_the_same(self):
        self.pod()["initContainers"][0].pop("securityContext")
        self.assert_found("Deployment/baton-decoder container bundle: capabilities are not all dropped")

    def test_an_image_whose_tag_moves(self):
        for image in ("registry:5000/decoder", "registry/decoder:latest"):
            self.container()["image"] = image
            self.assert_found(f"image '{image}' has no tag")
        self.container()["image"] = "registry/decoder@sha256:" + "0" * 64
        self.assertEqual(self.errors(), [])

    def test_mounts_and_volumes_that_do_not_belong_together(self):
        self.container()["volumeMounts"][0]["name"] = "bundel"
        self.assert_found("mounts bundel, which is no volume of the pod")
        self.use("cpu")
        self.pod()["volumes"].append({"name": "spare", "emptyDir": {"sizeLimit": "1Mi"}})
        self.assert_found("volume spare is not mounted")

    def test_a_mount_inside_a_config_map(self):
        self.use("secure")
        for mount in self.container("coordinator")["volumeMounts"]:
            if mount["name"] == "tls":
                mount["mountPath"] = "/etc/baton/tls"
        self.assert_found("/etc/baton/tls lies inside /etc/baton")

    def test_nowhere_to_write(self):
        self.container()["volumeMounts"] = [m for m in self.container()["volumeMounts"] if m["name"] != "tmp"]
        self.assert_found("nothing is mounted at /tmp")

    def test_a_port_out_of_range_a_long_name_and_one_declared_twice(self):
        self.container()["ports"].append({"name": "the-metrics-port-of-it", "containerPort": 94640})
        self.container()["ports"].append({"name": "http", "containerPort": 9464})
        errors = "\n".join(self.errors())
        self.assertRegex(errors, "port 94640 is not between 1 and 65535")
        self.assertRegex(errors, "port name 'the-metrics-port-of-it' is not allowed")
        self.assertRegex(errors, "port http is declared twice")

    def test_a_listen_flag_whose_port_is_not_declared(self):
        self.replace_argument("decoder", "--listen=", "--listen=0.0.0.0:7003")
        self.assert_found("--listen=0.0.0.0:7003, but port 7003 is not declared")

    def test_a_probe_of_a_port_that_is_not_there(self):
        self.container()["readinessProbe"]["httpGet"]["port"] = "metrics"
        self.assert_found("readinessProbe asks port metrics, which the container does not declare")

    def test_a_container_without_a_probe(self):
        del self.container("encoder")["startupProbe"]
        self.assert_found("Deployment/baton-encoder container encoder: has no startupProbe")

    def test_a_probe_that_waits_longer_than_its_period(self):
        self.container()["livenessProbe"]["timeoutSeconds"] = 60
        self.assert_found("livenessProbe waits longer than its period")

    def test_liveness_that_depends_on_load(self):
        self.container()["livenessProbe"]["httpGet"]["path"] = "/readyz"
        self.assert_found("livenessProbe asks /readyz")

    def test_a_drain_that_is_cut_short(self):
        del self.pod()["terminationGracePeriodSeconds"]
        self.assert_found(
            "--grace-period-s=120 and ten seconds to end do not fit terminationGracePeriodSeconds 30"
        )
        self.use("cpu")
        self.replace_argument("decoder", "--grace-period-s=", None)
        self.assert_found("sets no --grace-period-s")

    def test_a_variable_that_is_not_set(self):
        self.container("coordinator")["args"].append("--output=$(BATON_NIGHT)")
        self.assert_found(r"refers to BATON_NIGHT, which is not set")


class Resources(WithBrokenManifests):
    def resources(self):
        return self.container()["resources"]

    def test_quantities(self):
        expected = {
            "500m": 0.5,
            "2": 2,
            3: 3,
            "1.5Gi": 1.5 * 2**30,
            "1e3": 1000,
            "1E": 10**18,
            ".5": 0.5,
            "1k": 1000,
        }
        self.assertEqual({text: quantity(text) for text in expected}, expected)
        self.assertEqual(
            [quantity(text) for text in ("2GB", "500 m", "", None, True, "1gi", "0x10")], [None] * 7
        )

    def test_a_bad_quantity(self):
        self.resources()["limits"]["memory"] = "2GB"
        self.assert_found("memory limit '2GB' is no quantity")

    def test_a_memory_limit_in_thousandths_of_a_byte(self):
        self.resources()["requests"]["memory"] = "512m"
        self.assert_found("memory request '512m' is less than 1Mi: a wrong unit")

    def test_a_request_over_its_limit(self):
        self.resources()["requests"]["cpu"] = "2500m"
        self.assert_found("cpu request 2500m is over its limit 2")

    def test_a_gpu_in_requests_alone(self):
        self.resources()["requests"]["nvidia.com/gpu"] = "1"
        self.assert_found("nvidia.com/gpu stands in requests alone")

    def test_half_a_gpu_and_two_different_ones(self):
        self.resources()["requests"]["nvidia.com/gpu"] = "1"
        self.resources()["limits"]["nvidia.com/gpu"] = "500m"
        errors = "\n".join(self.errors())
        self.assertRegex(errors, "nvidia.com/gpu limit '500m' is not whole")
        self.assertRegex(errors, "nvidia.com/gpu request 1 differs from its limit 500m")

    def test_a_missing_limit(self):
        del self.resources()["limits"]["memory"]
        self.assert_found("has no memory limit")

    def test_scratch_space_that_evicts_its_own_pod(self):
        self.resources()["limits"]["ephemeral-storage"] = "1Gi"
        self.assert_found("its emptyDirs may hold more than its ephemeral-storage limit")
        self.use("cpu")
        self.pod()["volumes"][0]["emptyDir"] = {}
        self.assert_found("emptyDir bundle has no sizeLimit")


class Binaries(WithBrokenManifests):
    def setUp(self):
        super().setUp()
        self.binary = binaries.Binary(HELP)

    def flag_errors(self, role, arguments):
        self.container(role)["args"] = arguments
        return "\n".join(binaries.flag_errors(Manifests(self.items), {role: self.binary}))

    def test_help_is_read(self):
        self.assertEqual(self.binary.flags, {"--bundle", "--log-format", "--mode", "--check", "--help"})
        self.assertEqual(self.binary.variables, {"BATON_BUNDLE", "BATON_LOG_FORMAT"})
        self.assertEqual(self.binary.words, {"--log-format": {"human", "json"}, "--mode": {"hybrid", "slm"}})
        self.assertEqual(self.binary.exit_codes, {0, 2})
        self.assertTrue(self.binary.takes_file)

    def test_flags_that_the_binary_does_not_have(self):
        self.assertEqual(self.flag_errors("encoder", ["--bundle=/bundle", "--check"]), "")
        self.assertRegex(self.flag_errors("encoder", ["--bundel=/bundle"]), "the binary has no flag --bundel")
        self.assertRegex(self.flag_errors("encoder", ["--bundle"]), "--bundle needs a value")
        self.assertRegex(
            self.flag_errors("encoder", ["--log-format=text"]), "--log-format=text is not one of human, json"
        )

    def test_a_variable_that_the_binary_does_not_read(self):
        self.container("encoder")["env"] = [{"name": "BATON_BUNDEL", "value": "/bundle"}]
        self.assertRegex(self.flag_errors("encoder", []), "the binary reads no variable BATON_BUNDEL")

    def test_a_file_for_a_binary_that_takes_none(self):
        self.binary.takes_file = False
        self.assertRegex(self.flag_errors("encoder", ["job.toml"]), "argument job.toml is no flag")

    def test_an_exit_code_that_the_binary_does_not_have(self):
        self.assertRegex(self.flag_errors("coordinator", []), "a failure rule is about exit code 130")

    def start_errors(self, role, script):
        with tempfile.TemporaryDirectory() as directory:
            binary = Path(directory) / "binary"
            binary.write_text("#!/bin/sh\n" + script)
            binary.chmod(0o755)
            return "\n".join(binaries.start_errors(Manifests(self.items), {role: binary}))

    def test_values_that_the_binary_does_not_take(self):
        self.assertRegex(
            self.start_errors("encoder", "echo no such flag >&2; exit 2"),
            "does not take its arguments: no such flag",
        )
        complains_of_the_bundle = 'echo "$@: no bundle.json" >&2; exit 1'
        self.assertEqual(self.start_errors("encoder", complains_of_the_bundle), "")

    def test_a_job_file_that_the_binary_does_not_take(self):
        wants_inputs = 'grep -q "^inputs" "$1" && echo no bundle.json >&2; exit 1'
        self.assertEqual(self.start_errors("coordinator", wants_inputs), "")
        job = next(item for item in self.items if item["kind"] == "ConfigMap" and "job.toml" in item["data"])
        job["data"]["job.toml"] = job["data"]["job.toml"].replace("inputs", "input")
        self.assertRegex(
            self.start_errors("coordinator", wants_inputs),
            "Job/baton-coordinator container coordinator: the binary",
        )

    def test_a_metric_that_no_process_has(self):
        self.use("keda")
        known = {"baton_coordinator_waiting_shards", "baton_coordinator_shards_in_flight"}
        errors = list(binaries.metric_errors(Manifests(self.items), known))
        self.assertEqual(
            errors,
            [
                "ScaledObject/baton-decoder: asks for the metric baton_decoder_waiting_tokens, which no "
                "process has"
            ],
        )


if __name__ == "__main__":
    unittest.main()
