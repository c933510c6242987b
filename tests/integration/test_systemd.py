"""The systemd unit, by systemd's own tool."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.settings import Settings
from deploy.lab.packages import find

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "landlord-consumer.service"
EXPOSURE = "13"
"""Tenths of systemd's own measure, 0 to 10; what is left is mostly network and the socket."""


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "--man=no", "--recursive-errors=no"),
        ("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}"),
    ],
    ids=["verify", "security"],
)
def test_systemd_finds_no_fault(words: tuple[str, ...], tmp_path: Path) -> None:
    """Every key is known, the program is there, and little of the host is open to it."""
    unit = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/landlord/bin", str(Path(sys.executable).parent)))

    outcome = subprocess.run(
        [find("systemd-analyze"), *words, str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (outcome.returncode, outcome.stderr) == (0, ""), outcome.stdout


def test_it_is_given_the_time_to_publish_what_is_left() -> None:
    """No SIGKILL before the drain's deadline, and some time for the rest of the way out."""
    (seconds,) = re.findall(r"(?m)^TimeoutStopSec=(\d+)s$", UNIT.read_text(encoding="utf-8"))

    assert int(seconds) >= Settings().shutdown.drain_seconds + 15
