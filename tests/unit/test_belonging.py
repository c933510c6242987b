"""Which containers are a tenant's: by what the ledger recorded, never by labels alone."""

import pytest

from consumer.belonging import belongs, is_left_by_another, is_orphan
from consumer.model import ContainerId, Maker, Origin
from consumer.status import report
from tests.builders import make_container, make_status, make_tenant, standing_of

OURS, OTHER = ContainerId("ours"), ContainerId("other")


@pytest.mark.parametrize(
    ("container_id", "origin", "is_ours"),
    [
        pytest.param(OURS, Origin(serial=5), True, id="recorded"),
        pytest.param(OURS, Origin(serial=5, has_our_name=False), True, id="recorded, renamed"),
        pytest.param(OURS, Origin(Maker.ANOTHER), True, id="recorded, taken over"),
        pytest.param(OTHER, Origin(serial=5, has_our_name=False), False, id="a copy"),
        pytest.param(OTHER, Origin(serial=5), False, id="a copy under the original's name"),
        pytest.param(OTHER, Origin(serial=6), True, id="made, and not recorded yet"),
        pytest.param(OTHER, Origin(serial=6, has_our_name=False), False, id="a copy of that"),
        pytest.param(OTHER, Origin(Maker.ANOTHER, 6), False, id="another ledger's"),
        pytest.param(OTHER, Origin(Maker.UNKNOWN), False, id="without the ledger's label"),
    ],
)
def test_what_is_recorded_is_the_tenants(
    container_id: ContainerId, origin: Origin, *, is_ours: bool
) -> None:
    """An id that is recorded, or else our name with a serial above the last recorded one."""
    tenant = make_tenant(containers=(OURS,), made=5)

    assert belongs(tenant, container_id, origin) is is_ours
    assert belongs(standing_of(tenant), container_id, origin) is is_ours


@pytest.mark.parametrize(
    ("container_id", "origin", "is_ours"),
    [
        pytest.param(OURS, Origin(Maker.UNKNOWN), True, id="told of"),
        pytest.param(OTHER, Origin(Maker.UNKNOWN), True, id="half made"),
        pytest.param(OTHER, Origin(Maker.UNKNOWN, has_our_name=False), False, id="a copy"),
        pytest.param(OTHER, Origin(Maker.ANOTHER), False, id="another ledger's"),
    ],
)
def test_an_older_consumers_tenants_keep_their_containers(
    container_id: ContainerId, origin: Origin, *, is_ours: bool
) -> None:
    """It recorded no ids and wrote no ledger's label; its last status tells of the container."""
    told = make_status(container=report(make_container(container_id=OURS)))
    tenant = make_tenant(status=told, made=-1)

    assert belongs(tenant, container_id, origin) is is_ours
    assert belongs(standing_of(tenant), container_id, origin) is is_ours


@pytest.mark.parametrize(
    ("origin", "is_another", "is_own"),
    [
        pytest.param(Origin(), False, True, id="us"),
        pytest.param(Origin(Maker.ANOTHER), True, False, id="another ledger's"),
        pytest.param(Origin(Maker.UNKNOWN), True, False, id="an older consumer's"),
        pytest.param(Origin(has_our_name=False), False, False, id="a copy"),
        pytest.param(Origin(Maker.ANOTHER, has_our_name=False), False, False, id="their copy"),
    ],
)
def test_only_what_has_our_name_can_be_taken_in(
    origin: Origin, *, is_another: bool, is_own: bool
) -> None:
    """What we made of a tenant not known is an orphan; what another did can be taken over."""
    container = make_container(origin=origin)

    assert (is_left_by_another(container), is_orphan(container)) == (is_another, is_own)
