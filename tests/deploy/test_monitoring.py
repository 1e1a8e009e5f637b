"""Alert rules, dashboard and runbooks: every metric is one we show, every alert has its page, promtool agrees."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.conftest import ROOT

from ssmd.cli.app import app
from ssmd.telemetry.component_metrics import TABLE, names_of

MONITORING = ROOT / "deploy" / "monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks"
Tool = Callable[[str], str]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
KNOWN = {"ssmd_gateway_request_seconds_bucket", "ssmd_gateway_requests_total", *names_of("")} | {
    name for component in TABLE for name in names_of(component)
}
"""The gateway's own two are in `gateway.telemetry`."""
_METRIC = re.compile(r"\b(?:ssmd|process)_[a-z0-9_]+\b")
_STRING = re.compile(r'"[^"]*"')


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]


def checked(tool: Tool, *arguments: str | Path) -> str:
    done = subprocess.run([tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs_tool("promtool")
def test_promtool_takes_the_rules_and_they_do_what_they_should(tool: Tool) -> None:
    assert f"{len(RULES)} rules found" in checked(tool, "check", "rules", MONITORING / "alerts.yaml")
    assert "SUCCESS" in checked(tool, "test", "rules", MONITORING / "alerts_test.yaml")


@pytest.mark.needs_tool("promtool")
def test_promtool_takes_the_configuration(tool: Tool, tmp_path: Path) -> None:
    text = (MONITORING / "prometheus.yaml").read_text()
    (tmp_path / "alerts.yaml").write_bytes((MONITORING / "alerts.yaml").read_bytes())
    # Debian's promtool is built without Kubernetes; all but the way of finding pods is checked.
    (tmp_path / "prometheus.yaml").write_text(text.replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: []"))
    checked(tool, "check", "config", tmp_path / "prometheus.yaml")
    assert yaml.safe_load(text)["scrape_configs"][0]["kubernetes_sd_configs"] == [{"role": "pod"}]


def test_every_metric_in_rules_is_one_we_show_and_labels_are_not_mistaken() -> None:
    for rule in RULES:
        used = set(_METRIC.findall(_STRING.sub("", rule["expr"])))
        assert used <= KNOWN, f"{rule.get('alert', rule.get('record'))}: {used - KNOWN}"


def test_every_alert_says_how_bad_it_is_and_where_to_read_on() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        page = (ROOT / rule["annotations"]["runbook"]).read_text()
        assert f"`{rule['alert']}`" in page, f"{rule['annotations']['runbook']} does not name {rule['alert']}"
    named = {rule["annotations"]["runbook"] for rule in ALERTS}
    assert named == {path.relative_to(ROOT).as_posix() for path in RUNBOOKS.glob("*.md")}, "a page without an alert"


def test_every_alert_is_tested() -> None:
    """There is a case in which it fires, and one (silent) in which it does not."""
    tests = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["promql_expr_test"] if "ALERTS" in case["expr"]]
    fires = {
        name for case in cases for sample in case["exp_samples"] for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert {rule["alert"] for rule in ALERTS} == fires
    silent = [case["expr"] for case in cases if not case["exp_samples"]]
    assert silent.count('ALERTS{alertstate="firing"}') >= 2, "a planned pause, and an environment in which all is well"


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_has_its_three_parts_and_only_commands_that_there_are(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "How to look", "How to mend"]
    commands = re.findall(r"^    ssmd (.+)$", text, re.MULTILINE) + re.findall(r"`ssmd ([^`]+)`", text)
    assert commands
    for command in commands:
        words = re.split(r"\s[|#]\s|\s{2,}", command)[0].split()
        known: Any = typer.main.get_command(app)
        while hasattr(known, "get_command") and words:
            found = known.get_command(None, words.pop(0))
            assert found is not None, f"{page.name}: ssmd {command}"
            known = found
        options = {name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options, f"{page.name}: ssmd {command}"
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).is_file(), f"{page.name} links to {target}"


@pytest.mark.needs_tool("promtool")
def test_every_expression_of_the_dashboard_is_promql_of_metrics_we_show(tool: Tool, tmp_path: Path) -> None:
    found = list(expressions())
    assert len(found) >= 20
    rules = []
    for number, (where, expression) in enumerate(found):
        used = set(_METRIC.findall(_STRING.sub("", expression)))
        assert used, where
        assert {name for name in used if name.startswith("ssmd")} <= KNOWN, f"{where}: {used - KNOWN}"
        query = re.sub(r"^label_values\((.+), \w+\)$", r"\1", expression).replace("$__rate_interval", "5m")
        rules.append({"record": f"dashboard:expression{number}", "expr": query})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in checked(tool, "check", "rules", tmp_path / "rules.yaml")


def test_the_dashboards_panels_are_told_apart_and_lie_beside_one_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
