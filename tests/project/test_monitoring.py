"""Alerts and dashboard: every alert says what to do and is tested; every metric is shown."""

import json
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


# --- the dashboard ----------------------------------------------------------------------------


GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "landlord.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> str:
    """Return all that the panels ask, one below the other."""
    return "\n".join(target["expr"] for panel in PANELS for target in panel["targets"])


def test_the_dashboard_shows_every_metric() -> None:
    """Whatever is measured can be seen, and nothing is asked that is not measured."""
    asked = set(re.findall(r"\blandlord_[a-z_]+", expressions().replace("landlord-consumer", "")))

    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} == {
        doc.name for doc in METRICS
    }


def test_the_panels_lie_beside_each_other() -> None:
    """Each has an id and a place of its own, within Grafana's 24 columns."""
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_panel_asks_the_chosen_source_for_the_chosen_consumers() -> None:
    """Source and consumers are variables, so that one dashboard serves several of both."""
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    sources = {panel["datasource"]["uid"] for panel in PANELS}

    assert (variables, sources) == ({"datasource", "instance"}, {"${datasource}"})
    assert all("$instance" in line for line in expressions().splitlines())


def test_grafana_is_told_where_source_and_dashboard_are() -> None:
    """The provisioning names the Prometheus that scrapes, at the pace of its configuration."""
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/landlord.yml").read_text())
    scraping = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]

    (told,) = source["datasources"]
    assert (told["type"], told["url"]) == ("prometheus", "http://prometheus:9090")
    assert told["jsonData"]["timeInterval"] == scraping["scrape_interval"]
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
