"""Each field and each key of the policy refuses what it should: the table in `tests/fields.py`."""

import json

import pytest

from consumer.errors import Fault, InvalidMessage
from consumer.policy import Admission, Policy
from tests.builders import make_delivery
from tests.fields import (
    DEFAULTS,
    DOCUMENTS,
    OPEN,
    POLICY_DENIED,
    REFUSED,
    Denied,
    Refused,
    changed,
)


def faults(document: object, policy: Policy = OPEN) -> tuple[Fault, ...]:
    """Return what is said against the document."""
    admission = Admission(defaults=DEFAULTS, policy=policy)
    with pytest.raises(InvalidMessage) as refusal:
        admission.admit(make_delivery(1, body=json.dumps(document).encode()))
    return refusal.value.faults


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_the_documents_that_are_shown_are_admitted(document: object) -> None:
    """What the refusals below differ from is taken."""
    admission = Admission(defaults=DEFAULTS, policy=OPEN)

    assert admission.admit(make_delivery(1, body=json.dumps(document).encode())).spec is not None


@pytest.mark.parametrize(("path", "refused"), REFUSED.items(), ids=REFUSED)
def test_each_field_refuses_what_it_cannot_be(path: str, refused: Refused) -> None:
    """One wrong value gives one fault, at its path."""
    (fault,) = faults(changed(path, refused.value))

    assert fault.field == (refused.at or path.replace("*", "nofile"))
    assert refused.words in fault.rule


@pytest.mark.parametrize("denied", POLICY_DENIED.values(), ids=POLICY_DENIED)
def test_each_key_of_the_policy_denies_the_next_thing(denied: Denied) -> None:
    """A step beyond what the operator allows is one fault, which names the key."""
    (fault,) = faults(changed(denied.path, denied.value), denied.policy)

    assert fault.field in (denied.path, f"{denied.path}[0]", "containers[0].ports")
    assert denied.words in fault.rule
