"""The README and the pages below deploy/ tell the truth: what they name is there in the code."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer.main

from consumer.cli import cli
from consumer.document import SpecDefaults
from consumer.messages import Delivery, decode_status, decode_tenant_event, encode_status
from consumer.metrics import METRICS
from consumer.model import REASONS, EventKind, State
from consumer.settings import CONFIG_VARIABLE, PREFIX, describe, load
from tests.project.headings import anchors, section, snippets

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "deploy").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def typed(page: Path) -> list[str]:
    """Return what the page sets as something to type."""
    return snippets(page.read_text(encoding="utf-8"))


def rows(title: str) -> list[str]:
    """Return the rows of the section's last table, without its head."""
    tables = re.findall(r"(?m)^\|[- |]+\|\n((?:\|.*\n)+)", section(README, title))
    return str(tables[-1]).splitlines()


def example(language: str, place: int = 0) -> str:
    """Return a code block of the language."""
    return str(re.findall(rf"(?ms)^```{language}\n(.*?)^```", README)[place])


def names(cells: str) -> list[str]:
    """Return the code spans of a cell."""
    return re.findall(r"`([^`]+)`", cells)


def test_the_settings_table_is_what_the_settings_say_of_themselves() -> None:
    """Every setting has its row, with default and meaning, in the order of declaration."""
    expected = [f"| `{doc.key}` | `{doc.default}` | {doc.meaning} |" for doc in describe()]

    assert rows("Settings") == expected, "paste these rows:\n" + "\n".join(expected)


def test_the_metrics_table_is_what_the_metrics_say_of_themselves() -> None:
    """Every metric has its row, with kind, labels and meaning, in the order of the contract."""
    expected = []
    for doc in METRICS:
        labels = ", ".join(f"`{label}`" for label in doc.labels) or "–"  # noqa: RUF001 - a dash
        expected.append(f"| `{doc.name}` | {doc.kind} | {labels} | {doc.meaning} |")

    assert rows("Metrics") == expected, "paste these rows:\n" + "\n".join(expected)


def test_the_failure_table_has_every_reason_once() -> None:
    """Every reason of a failure has a row, and none is told that does not exist."""
    told = [names(row.split("|")[1])[0] for row in rows("Failures")]

    assert sorted(told) == sorted(reason.value for reason in REASONS[State.FAILED])


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED])
def test_the_status_table_has_every_other_reason(state: State) -> None:
    """Every reason of a state that is no failure has a row with that state."""
    told = [
        names(row.split("|")[2])[0]
        for row in rows("Status events")
        if state.value in names(row.split("|")[1])
    ]

    assert sorted(told) == sorted(reason.value for reason in REASONS[state])


def test_the_event_table_has_every_tenant_event() -> None:
    """Every tenant event of the code is in the table, and no other."""
    told = [name for row in rows("Tenant events") for name in names(row.split("|")[1])]

    assert told == [kind.value for kind in EventKind]


def test_every_promise_names_tests_that_exist() -> None:
    """Each promise has its row, with the test that would catch its breach: a path and a name."""
    promises = re.findall(r"(?m)^(\d+\. )\*\*(.+?)\.?\*\*", section(README, "The straight line"))
    cells = [row.split("|")[1:3] for row in rows("The straight line")]
    named = [name.partition("::") for _, tests in cells for name in names(tests)]

    lost = [
        f"{path}::{name}"
        for path, _, name in named
        if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ]

    assert [promise.strip() for promise, _ in cells] == [f"{n}{title}" for n, title in promises]
    assert all(names(tests) for _, tests in cells)
    assert lost == []


@every_page
def test_every_command_that_is_named_exists(page: Path) -> None:
    """`landlord-consumer X` is written only for commands, and in the README for each of them."""
    told = {
        word for text in typed(page) for word in re.findall(r"landlord-consumer ([a-z]\S*)", text)
    }

    existing = set(getattr(typer.main.get_command(cli), "commands", ()))

    assert told <= existing
    assert told == existing or page != PAGES[0]


@every_page
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    """`make X` is written only for targets of the Makefile."""
    told = {word for text in typed(page) for word in re.findall(r"\bmake ([a-z]+)", text)}

    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )

    assert told <= targets
    assert {"demo", "test"} <= told or page != PAGES[0]


@every_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    """What is written like a setting, or as its variable, is one, or a group of them."""
    keys = [doc.key for doc in describe()]
    groups = {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}
    known = {*keys, *groups}
    roots = "|".join({key.partition(".")[0] for key in keys if "." in key})

    told = set()
    for text in typed(page):
        told |= set(re.findall(rf"^(?:{roots})(?:\.[a-z_]+)+", text))
        variables = set(re.findall(rf"\b{PREFIX}[A-Z_]+", text)) - {CONFIG_VARIABLE, PREFIX}
        told |= {name.removeprefix(PREFIX).lower().replace("__", ".") for name in variables}

    assert told - known == set()
    assert told or page != PAGES[0]


@every_page
def test_every_metric_that_is_named_exists(page: Path) -> None:
    """What is written like a metric of ours is one."""
    told = {word for text in typed(page) for word in re.findall(r"^landlord_\w+", text)}

    assert told <= {doc.name for doc in METRICS}


def test_the_configuration_example_is_accepted(tmp_path: Path) -> None:
    """The config.yaml of the README loads without a fault, and without a warning."""
    file = tmp_path / "config.yaml"
    file.write_text(example("yaml"), encoding="utf-8")

    settings = load(file, {})

    assert settings.compute.docker.network_name == "tenants"
    assert settings.warnings() == []


def test_the_tenant_document_example_is_accepted() -> None:
    """The README's tenant document, comment and all, is a valid tenant event."""
    delivery = Delivery(
        body=example("json").encode(),
        tag=1,
        session=1,
        received_at=datetime(2026, 11, 24, tzinfo=UTC),
        routing_key="tenant.created",
        headers={},
        properties={},
    )

    event = decode_tenant_event(delivery, SpecDefaults())

    assert event.spec is not None
    assert event.spec.ports[0].host_port == 8080


def test_the_status_event_example_has_exactly_the_fields_of_a_status_event() -> None:
    """Decoding and encoding the README's status event changes nothing."""
    text = example("json", 1)

    again = encode_status(decode_status(text))

    assert json.loads(again) == json.loads(text)


@every_page
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    """Files that are linked exist, and so do the headings."""
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))

    lost = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" not in link and not (
            target.is_file() and (not anchor or anchor in anchors(target))
        ):
            lost.append(link)

    assert links
    assert lost == []


def test_every_page_below_deploy_is_linked_from_the_readme() -> None:
    """Nothing is written that nobody finds."""
    links = set(re.findall(r"\]\(([^)#]+)", README))

    assert {str(page.relative_to(ROOT)) for page in PAGES[1:]} <= links
