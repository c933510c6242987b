"""What the consumer imports is what it declares: nothing by chance, nothing in vain."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


EXTRA = "opentelemetry"
"""A package of many distributions, imported only when traces are asked for."""


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


def project() -> dict[str, Any]:
    """Return what the project says of itself."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["project"])


def names(requirements: list[str]) -> set[str]:
    """Return the distributions that are required."""
    return {re.split(r"[<>=]", line)[0].lower() for line in requirements}


def test_the_declared_dependencies_are_those_that_are_imported() -> None:
    """Every library that is imported is declared, and every one that is declared is imported."""
    declared = names(project()["dependencies"])

    providers = packages_distributions()
    imported = {providers[package][0].lower() for package in imported_packages() - {EXTRA}}

    assert {re.sub(r"[-_.]+", "-", name) for name in imported} == declared


def test_the_extra_brings_what_is_imported_for_it() -> None:
    """Each distribution of the extra has a part of the package, and the package is imported."""
    extra = names(project()["optional-dependencies"][EXTRA])

    assert EXTRA in imported_packages()
    assert extra <= {name.lower() for name in packages_distributions()[EXTRA]}


def test_nobody_imports_the_extra_who_does_not_ask_for_it() -> None:
    """The command line and all the consumer's parts come without it."""
    script = f"import consumer.cli, sys; print([m for m in sys.modules if m.startswith('{EXTRA}')])"

    outcome = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert outcome.stdout == "[]\n"
