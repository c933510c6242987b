"""The committed copies of the contract are what the code would write."""

import pytest

from deploy.renew_contract import FOLDER, documents


def test_there_is_a_copy_of_every_document_and_of_nothing_else() -> None:
    """`deploy/contract` has the documents that are served."""
    assert {path.name for path in FOLDER.iterdir()} == set(documents())


@pytest.mark.parametrize("name", documents())
def test_the_copy_is_what_the_code_generates(name: str) -> None:
    """Whoever reads the copy reads what the consumer serves by default."""
    text = (FOLDER / name).read_text(encoding="utf-8")

    assert text == documents()[name], "the contract has changed; run `make contract`"
