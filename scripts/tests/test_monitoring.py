"""Dashboard, alerts and the page of metrics name metrics that a process of Baton has, and all of them."""

import json
import re
import unittest

import broken_manifests  # noqa: F401 (makes the packages below importable)
from k8s import tools  # noqa: F401 (likewise)

import yaml  # noqa: E402

ROOT = tools.REPOSITORY
METRIC = re.compile(r"\b(?:baton|process)_[a-z0-9_]+")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def registered():
    """The metrics that the sources register, under the names that Prometheus has them."""
    sources = [path.read_text().split("#[cfg(test)]")[0] for path in ROOT.glob("*/src/**/*.rs")]
    calls = r'\.(?:counter|labelled_counter|gauge|reading|histogram)\(\s*"(\w+)"'
    return {name for source in sources for name in re.findall(calls, source)} | {"baton_build_info"}


def metrics_of(expressions):
    return {SUFFIX.sub("", name) for text in expressions for name in METRIC.findall(text)}


class Monitoring(unittest.TestCase):
    def setUp(self):
        self.known = registered()

    def test_the_source_registers_metrics_of_every_role(self):
        for name in ("coordinator_leases_total", "encoder_prompt_tokens_total", "decoder_slots_in_use"):
            self.assertIn(f"baton_{name}", self.known)

    def test_the_dashboard_asks_for_metrics_that_exist_and_leaves_none_out(self):
        dashboard = json.loads((ROOT / "monitoring" / "dashboard.json").read_text())
        targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
        asked = metrics_of(target["expr"] for target in targets)
        self.assertEqual(asked - self.known, set())
        # The share of accepted drafts says more than the passes it took.
        self.assertEqual(self.known - asked - {"baton_decoder_llm_passes_total"}, set())

    def test_no_two_panels_share_an_id_or_a_place(self):
        panels = json.loads((ROOT / "monitoring" / "dashboard.json").read_text())["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        places = [
            (x, y)
            for place in (panel["gridPos"] for panel in panels)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        self.assertEqual(len(set(places)), len(places))

    def test_alerts_ask_for_metrics_that_exist_and_are_explained_to_operators(self):
        rules = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())["groups"][0]["rules"]
        self.assertEqual(metrics_of(rule["expr"] for rule in rules) - self.known, set())
        guide = (ROOT / "docs" / "how-to" / "operate.md").read_text()
        for rule in rules:
            self.assertIn(f"`{rule['alert']}`", guide)

    def test_the_page_of_metrics_names_all_of_them_and_no_other(self):
        page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
        self.assertEqual(metrics_of([page]), self.known)


if __name__ == "__main__":
    unittest.main()
