"""The layers of the design hold: who imports whom, and which library has which door."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_imports_only_what_its_layer_allows() -> None:
    """Every import contract of pyproject.toml is kept, and every module has a layer."""
    command = Path(sys.executable).with_name("lint-imports")

    outcome = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
