"""Tests of scripts/k8s_check.py: mistakes in traffic, workloads and scaling are found.

A mistake is made in a rendered overlay, one a test, and the check must name it.
"""

import unittest

from broken_manifests import WithBrokenManifests, find, rendered


class Network(WithBrokenManifests):
    def policy(self, name):
        return self.object("NetworkPolicy", f"baton-{name}")["spec"]

    def test_a_service_that_selects_nothing(self):
        self.object("Service", "baton-decoder")["spec"]["selector"]["app.kubernetes.io/component"] = "decodr"
        self.assert_found("Service/baton-decoder: selects no pod")

    def test_a_service_whose_target_port_nobody_has(self):
        self.object("Service", "baton-decoder")["spec"]["ports"][0]["targetPort"] = "grcp"
        self.assert_found("Service/baton-decoder: targetPort grcp is no port of Deployment/baton-decoder")

    def test_a_headless_service_that_pretends_to_forward(self):
        self.object("Service", "baton-decoder")["spec"]["ports"][0]["port"] = 80
        self.assert_found("headless, so clients dial 80, but Deployment/baton-decoder listens on 7002")
        self.assert_found("--decoders dials port 7002 of baton-decoder, which the Service does not have")

    def test_an_endpoint_that_is_no_service(self):
        self.replace_argument("coordinator", "--encoders=", "--encoders=dns://encoder.baton.svc:7001")
        self.assert_found("--encoders names encoder.baton.svc, and there is no such Service in baton")

    def test_a_policy_that_selects_nothing(self):
        self.policy("encoder")["podSelector"]["matchLabels"]["app.kubernetes.io/component"] = "encoders"
        self.assert_found("NetworkPolicy/baton-encoder: podSelector matches no pod")

    def test_a_policy_with_a_peer_that_matches_nothing(self):
        self.policy("encoder")["egress"][0]["to"][0]["podSelector"]["matchLabels"][
            "app.kubernetes.io/name"
        ] = "batton"
        self.assert_found("NetworkPolicy/baton-encoder: a peer in egress matches no pod")

    def test_a_policy_with_a_port_nobody_has(self):
        self.policy("decoder")["ingress"][0]["ports"][0]["port"] = 7001
        self.assert_found("NetworkPolicy/baton-decoder: port 7001 in ingress is declared by no pod")
        self.assert_found("coordinator cannot reach decoder on port 7002")

    def test_rules_of_a_direction_that_is_not_enforced(self):
        self.policy("encoder")["policyTypes"] = ["Ingress"]
        self.assert_found("NetworkPolicy/baton-encoder: has egress rules, but policyTypes leaves them out")

    def test_an_exception_outside_its_block(self):
        self.policy("storage")["egress"][0]["to"][0]["ipBlock"] = {
            "cidr": "10.0.0.0/8",
            "except": ["169.254.0.0/16"],
        }
        self.assert_found("the exception 169.254.0.0/16 is not inside 10.0.0.0/8")

    def test_a_flow_that_is_shut_out(self):
        self.items.remove(self.object("NetworkPolicy", "baton-encoder"))
        self.assert_found("coordinator cannot reach encoder on port 7001")
        self.assert_found("encoder cannot reach decoder on port 7002")

    def test_a_flow_that_should_be_shut_out(self):
        metadata = {"name": "open", "namespace": "baton"}
        spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
        self.items.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": metadata,
                "spec": spec,
            }
        )
        self.assert_found("NetworkPolicy: encoder can reach coordinator on port 9464")

    def test_storage_for_those_that_need_it_and_no_other(self):
        self.policy("storage")["podSelector"]["matchExpressions"][0]["values"] = ["coordinator", "encoder"]
        self.assert_found("decoder cannot reach storage")
        self.assert_found("encoder can reach storage")

    def test_a_nodes_credentials_within_reach(self):
        self.policy("storage")["egress"][0]["to"][0]["ipBlock"].pop("except")
        self.assert_found("decoder can reach the node's metadata")

    def test_no_names_to_be_had(self):
        self.items.remove(self.object("NetworkPolicy", "baton-dns"))
        self.assert_found("coordinator cannot reach the cluster's name servers")


class Workloads(WithBrokenManifests):
    def job(self):
        return self.object("Job", "baton-coordinator")["spec"]

    def test_a_selector_that_misses_its_own_pods(self):
        self.deployment()["template"]["metadata"]["labels"]["app.kubernetes.io/component"] = "decode"
        self.assert_found("Deployment/baton-decoder: selector does not match its own pods' labels")

    def test_a_selector_that_takes_another_deployments_pods(self):
        self.deployment()["selector"]["matchLabels"] = {"app.kubernetes.io/name": "baton"}
        self.assert_found(
            "Deployment/baton-decoder: selector matches the pods of Deployment/baton-encoder as well"
        )

    def test_a_spread_of_other_pods(self):
        self.pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"][
            "app.kubernetes.io/component"
        ] = "encoder"
        self.assert_found("a topologySpreadConstraint does not select the pods it is written for")

    def test_restart_policies_that_the_api_server_refuses(self):
        self.pod()["restartPolicy"] = "Never"
        self.assert_found("Deployment/baton-decoder: restartPolicy Never is for jobs only")
        for policy, message in (
            ("Always", "of a job is Never or OnFailure"),
            ("OnFailure", "needs restartPolicy Never"),
        ):
            self.pod("coordinator")["restartPolicy"] = policy
            self.assert_found(message)

    def test_a_job_whose_fields_contradict_each_other(self):
        self.job()["completionMode"] = "NonIndexed"
        self.job()["podReplacementPolicy"] = "TerminatingOrFailed"
        self.job()["parallelism"] = 3
        errors = "\n".join(self.errors())
        self.assertRegex(errors, "backoffLimitPerIndex needs completionMode Indexed")
        self.assertRegex(errors, "podFailurePolicy allows only podReplacementPolicy Failed")
        self.assertRegex(errors, "parallelism 3 is more than completions 2")
        self.assertRegex(errors, "refers to JOB_COMPLETION_INDEX, which is not set")

    def test_a_failure_rule_about_another_container(self):
        self.job()["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"] = "baton"
        self.assert_found("a failure rule names container baton, which does not exist")

    def test_a_failure_rule_with_codes_out_of_order(self):
        self.job()["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] = [130, 2]
        self.assert_found(r"exit codes \[130, 2\] must be in order")

    def test_partitions_that_do_not_cover_the_corpus(self):
        self.job()["completions"] = 3
        self.assert_found("--partition=.*/2 does not fit completions 3")

    def test_several_coordinators_without_partitions(self):
        self.replace_argument("coordinator", "--partition=", None)
        self.assert_found("2 completions, but no --partition")

    def test_schedules(self):
        self.use("nightly")
        nightly = self.object("CronJob", "baton-nightly")["spec"]
        for schedule in ("0 25 * * *", "0 2 * *", "@nightly at two", "*/0 * * * *", "5-1 * * * *"):
            nightly["schedule"] = schedule
            self.assert_found("schedule .* is not five cron fields")
        nightly["schedule"] = "*/15 1-5,22 * * 1-5"
        self.assertEqual(self.errors(), [])
        nightly["timeZone"] = "Local"
        self.assert_found("timeZone 'Local' is no name of a time zone")


class Scaling(WithBrokenManifests):
    def autoscaler(self):
        return self.object("HorizontalPodAutoscaler", "baton-decoder")["spec"]

    def budget(self):
        return self.object("PodDisruptionBudget", "baton-decoder")["spec"]

    def test_an_autoscaler_of_nothing(self):
        self.autoscaler()["scaleTargetRef"]["name"] = "decoder"
        self.assert_found("scales Deployment/decoder, which does not exist")

    def test_an_autoscaler_and_a_fixed_number(self):
        self.deployment()["replicas"] = 4
        self.assert_found("Deployment/baton-decoder sets replicas, so that each apply undoes the scaling")

    def test_two_autoscalers_of_one_deployment(self):
        self.use("keda")
        self.items.append(find(rendered("cpu"), "HorizontalPodAutoscaler", "baton-decoder"))
        self.assert_found(
            "Deployment/baton-decoder is scaled by ScaledObject/baton-decoder as well|is scaled by "
            "HorizontalPod.* as well"
        )

    def test_an_empty_range(self):
        self.autoscaler().update(minReplicas=4, maxReplicas=2)
        self.assert_found("4 to 2 replicas is no range")

    def test_a_target_without_its_value(self):
        self.autoscaler()["metrics"][0]["resource"]["target"] = {"type": "Utilization", "averageValue": "1"}
        self.assert_found("target of type Utilization has no value that fits")

    def test_a_share_of_a_request_that_is_not_made(self):
        metric = self.object("HorizontalPodAutoscaler", "baton-decoder")["spec"]["metrics"][0]
        metric["resource"]["target"] = {"type": "Utilization", "averageUtilization": 45}
        del self.container()["resources"]["requests"]["cpu"]
        self.assert_found("has no cpu request, of which a share could be used")

    def test_a_threshold_that_is_no_string(self):
        self.use("keda")
        self.object("ScaledObject", "baton-decoder")["spec"]["triggers"][0]["metadata"]["threshold"] = 8
        self.assert_found("threshold 8 is not a number in a string")

    def test_a_deployment_that_nothing_wakes(self):
        self.use("keda")
        del self.object("ScaledObject", "baton-decoder")["spec"]["triggers"][0]
        self.assert_found("scales to zero, but only its own pods' metrics could wake it")

    def test_budgets(self):
        for change, message in (
            ({"selector": {"matchLabels": {"app": "decoder"}}}, "selects no pod"),
            ({"maxUnavailable": 0}, "allows no eviction at all"),
            ({"minAvailable": 1}, "has either minAvailable or maxUnavailable"),
            (
                {"selector": {"matchLabels": {"app.kubernetes.io/component": "coordinator"}}},
                "selects pods of a job",
            ),
        ):
            self.use("cpu")
            self.budget().update(change)
            self.assert_found(f"PodDisruptionBudget/baton-decoder: {message}")


if __name__ == "__main__":
    unittest.main()
