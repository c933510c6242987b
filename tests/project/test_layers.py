"""The layers of the design hold: who imports whom, and which library has which door."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ASKS_THE_TIME = re.compile(
    r"datetime\.(now|utcnow|today)\(|time\.(time|time_ns|monotonic|clock_gettime)\("
)


def test_every_module_imports_only_what_its_layer_allows() -> None:
    """Every import contract of pyproject.toml is kept, and every module has a layer."""
    command = Path(sys.executable).with_name("lint-imports")

    outcome = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_one_module_asks_what_time_it_is() -> None:
    """Everybody else is given a clock, so that a test can set it; spans have their library's."""
    asking = [
        str(module.relative_to(ROOT))
        for module in sorted(ROOT.glob("consumer/**/*.py"))
        if _ASKS_THE_TIME.search(module.read_text(encoding="utf-8"))
    ]

    assert asking == ["consumer/adapters/open_telemetry.py", "consumer/clock.py"]
