"""What the consumer imports is what it declares: nothing by chance, nothing in vain."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported_packages() -> set[str]:
    """Return the top-level packages that modules of the consumer import, but for its own."""
    packages = set()
    for module in (ROOT / "consumer").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                packages |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                packages.add(node.module.partition(".")[0])
    return packages - set(sys.stdlib_module_names) - {"consumer"}


def test_the_declared_dependencies_are_those_that_are_imported() -> None:
    """Every library that is imported is declared, and every one that is declared is imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=]", line)[0].lower() for line in project["dependencies"]}

    providers = packages_distributions()
    imported = {providers[package][0].lower() for package in imported_packages()}

    assert {re.sub(r"[-_.]+", "-", name) for name in imported} == declared
