"""Every alert says what it is and what to do, is tested both ways, and asks for what there is."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from consumer.cli import cli
from consumer.metrics import METRICS
from tests.project.headings import anchors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
TESTED = [
    case
    for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    for case in test["alert_rule_test"]
]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_is_and_what_to_run(name: str) -> None:
    """It has a severity, a summary, a command to run next, and a place to read on that exists."""
    alert = ALERTS[name]
    told = alert["annotations"]
    page, _, anchor = told["runbook_url"].partition("#")

    assert alert["labels"]["severity"] in ("critical", "warning")
    assert "$labels.instance" in told["summary"]
    assert re.search(r"`[^`]+`", told["description"])
    assert anchor in anchors(ROOT / page)


def test_the_commands_that_are_named_exist() -> None:
    """What an alert tells to run is a command of ours, if it is called so."""
    told = "\n".join(alert["annotations"]["description"] for alert in ALERTS.values())
    existing = typer.main.get_command(cli)

    named = set(re.findall(r"`landlord-consumer ([a-z-]+)", told))

    assert {"check", "tenants", "dead-letters"} <= named <= set(getattr(existing, "commands", ()))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_seen_to_come_and_to_stay_away(name: str) -> None:
    """The tests for promtool have both cases of it."""
    cases = [case["exp_alerts"] for case in TESTED if case["alertname"] == name]

    assert [] in cases
    assert any(cases)


def test_the_rules_ask_for_metrics_that_exist() -> None:
    """Each name of ours in an expression is one of the metrics, or recorded by a rule."""
    known = {doc.name for doc in METRICS}
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for rule in RULES
        for name in re.findall(r"\blandlord[a-z0-9_:]+", re.sub(r'"[^"]*"', "", rule["expr"]))
    }

    assert asked - RECORDED <= known
