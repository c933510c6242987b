"""The scrape configuration and the alerts, by Prometheus' own tool."""

import subprocess
from pathlib import Path

import pytest

from deploy.lab.packages import find

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=["config", "rules", "alerts"],
)
def test_promtool_finds_no_fault(words: tuple[str, ...]) -> None:
    """The configuration can be loaded, the rules are valid, each alert comes and stays away."""
    outcome = subprocess.run(
        [find("promtool"), *words],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
