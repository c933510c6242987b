"""The commands for dead letters refuse what is not clear, before they go near a broker."""

import pytest
from typer.testing import CliRunner

from consumer.cli import cli


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("drop", "--yes"), "say which"),
        (("drop", "--all", "--id", "1", "--yes"), "say which"),
        (("replay", "--all", "--reason", "policy_denied", "--yes"), "say which"),
        (("replay", "--all"), "give --yes"),
        (("drop", "--id", "1"), "give --yes"),
        (("show",), "either an id or --position"),
        (("show", "1", "--position", "1"), "either an id or --position"),
        (("replay", "--all", "--yes", "--rate", "-1"), "rate"),
    ],
)
def test_what_is_not_clear_is_wrong_use(words: tuple[str, ...], told: str) -> None:
    """Neither nothing nor a contradiction is taken for all, and nobody is asked who cannot answer.

    Exit code 2.
    """
    done = CliRunner().invoke(cli, ["dead-letters", *words])

    assert done.exit_code == 2
    assert told in done.output
