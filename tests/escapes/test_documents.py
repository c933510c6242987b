"""The table of ways out, without an engine: refused in one sentence, or let in as it came."""

from dataclasses import replace

import pytest

from consumer.document import SpecDefaults
from consumer.errors import Fault, InvalidMessage
from consumer.model import Reason
from consumer.policy import Admission, Policy
from tests.builders import make_delivery
from tests.escapes.table import (
    DEFAULTS,
    DENIED,
    HOSTILE_YAML,
    INVALID,
    NEAR,
    NEAR_REGISTRIES,
    PASSES,
    POLICY,
    Passes,
    Refused,
    forcing,
    with_image,
)


@pytest.mark.parametrize("refused", DENIED.values(), ids=DENIED)
def test_the_policy_denies_it_in_one_sentence(refused: Refused) -> None:
    """What reaches for the host, its engine or a neighbour is denied, by its field."""
    (fault,) = refusal(refused.body, Reason.POLICY_DENIED)

    assert fault.field == refused.field
    assert refused.words in fault.rule


@pytest.mark.parametrize("registry", NEAR_REGISTRIES)
def test_a_registry_that_nobody_named_is_not_asked(registry: str) -> None:
    """The engine would fetch from where the tenant itself may not reach."""
    policy = replace(POLICY, images=("*",))

    (fault,) = refusal(with_image(f"{registry}/app:1"), Reason.POLICY_DENIED, policy=policy)

    assert fault.field == "containers[0].image"
    assert NEAR in fault.rule


@pytest.mark.parametrize("refused", INVALID.values(), ids=INVALID)
def test_the_document_is_refused_in_one_sentence(refused: Refused) -> None:
    """What no document may say is refused at its field, however much of it there is."""
    (fault,) = refusal(refused.body, Reason.INVALID_EVENT)

    assert fault.field == refused.field
    assert refused.words in fault.rule


@pytest.mark.parametrize(("body", "words"), HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml_is_refused_in_one_sentence(body: bytes, words: str) -> None:
    """Nothing of YAML's that grows, runs or surprises is taken."""
    (fault,) = refusal(body, Reason.INVALID_EVENT, content_type="application/yaml")

    assert words in fault.rule


@pytest.mark.parametrize("passes", PASSES.values(), ids=PASSES)
def test_what_is_harmless_is_let_in(passes: Passes) -> None:
    """What it comes to is shown on the engine."""
    defaults, policy = forcing() if passes.forced else (DEFAULTS, POLICY)

    event = Admission(defaults=defaults, policy=policy).admit(make_delivery(1, body=passes.body))

    assert event.spec is not None


def refusal(
    body: bytes,
    reason: Reason,
    *,
    content_type: str | None = None,
    policy: Policy = POLICY,
    defaults: SpecDefaults = DEFAULTS,
) -> tuple[Fault, ...]:
    """Return the faults for which the event is refused; none of them is long."""
    with pytest.raises(InvalidMessage) as refused:
        Admission(defaults=defaults, policy=policy).admit(
            make_delivery(1, body=body, content_type=content_type)
        )
    assert refused.value.reason == reason
    assert max(len(str(fault)) for fault in refused.value.faults) < 300
    return refused.value.faults
