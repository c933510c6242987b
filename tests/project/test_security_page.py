"""deploy/SECURITY.md: every promise has those it is against, and tests that exist."""

import re
from pathlib import Path
from typing import Final

from tests.project.headings import section

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "deploy" / "SECURITY.md").read_text(encoding="utf-8")
PARTS: Final = (
    "Who is trusted with what",
    "What we promise",
    "What the operator must do",
    "How to report",
)


def rows(title: str) -> list[list[str]]:
    """Return the cells of each row of the section's table, without its head."""
    (table,) = re.findall(r"(?m)^\|[- |]+\|\n((?:\|.*\n)+)", section(PAGE, title))
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]


def test_every_promise_names_tests_that_exist() -> None:
    """A path and a name; what is promised and against whom is never left out."""
    promises = rows("What we promise")
    named = [re.findall(r"`(tests/[^`:]+)::(\w+)`", tests) for _, _, tests in promises]

    assert promises
    assert all(what and whom for what, whom, _ in promises)
    assert all(named)
    assert [
        f"{path}::{name}"
        for tests in named
        for path, name in tests
        if not (ROOT / path).is_file()
        or f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ] == []


def test_the_page_has_its_parts() -> None:
    """Who is trusted, what is promised, what is left to the operator, how to report."""
    assert all(section(PAGE, part).strip() for part in PARTS)


def test_the_figure_of_the_unit_is_the_one_it_is_held_to() -> None:
    """`tests/integration/test_systemd.py` fails above it."""
    test = (ROOT / "tests" / "integration" / "test_systemd.py").read_text(encoding="utf-8")
    (tenths,) = re.findall(r'(?m)^EXPOSURE = "(\d+)"$', test)
    (told,) = re.findall(r"(\d\.\d) of 10", PAGE)

    assert told == f"{int(tenths) / 10:.1f}"
