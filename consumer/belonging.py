"""Which containers are a tenant's: those that this ledger's consumer made, or took over.

Labels prove nothing: `docker commit` copies them, and whoever may set labels can write them. What
counts is what the ledger recorded: a container's id, or, for one whose making was cut short before
its id was recorded, a serial above the last recorded one, under a name that only one can have.
Anything else with our labels is a stranger: it is left alone, told of once, and costs no tenant
anything. What another ledger's consumer made is taken over only when a person says so.
"""

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar, assert_never

from consumer.model import Container, ContainerId, Maker, Origin, Sighting

_Seen = TypeVar("_Seen", Container, Sighting)

MOST_RECORDED: Final = 16
"""Ids of a tenant's containers; more only where somebody removes them by hand, again and again."""
CURE_OF_LOST_LEDGER: Final = "if that ledger is lost, run `landlord-consumer take-over`"


class Records(Protocol):
    """What the ledger recorded of a tenant's containers: `Tenant`, or `Standing`."""

    @property
    def containers(self) -> tuple[ContainerId, ...]: ...

    @property
    def made(self) -> int: ...

    @property
    def told_container(self) -> ContainerId | None: ...


def belongs(records: Records, container_id: ContainerId, origin: Origin) -> bool:
    """Whether the container is the tenant's, and not only labelled as if it were."""
    if container_id in records.containers or container_id == records.told_container:
        return True
    if not origin.has_our_name:
        return False
    match origin.maker:
        case Maker.US:
            # Made, and the process ended before that was recorded. A copy of one that is recorded
            # has its serial.
            return origin.serial > records.made
        case Maker.UNKNOWN:
            return records.made < 0  # by an older consumer, which recorded none either
        case Maker.ANOTHER:
            return False
        case _:
            assert_never(origin.maker)


def ours_among(records: Records, seen: Sequence[_Seen]) -> tuple[_Seen, ...]:
    """Return those that are the tenant's."""
    return tuple(it for it in seen if belongs(records, it.container_id, it.origin))


def may_concern(records: Records, seen: Sighting) -> bool:
    """Whether it is the tenant's, or is in the way of what is, by its name."""
    return seen.origin.has_our_name or belongs(records, seen.container_id, seen.origin)


def is_left_by_another(seen: Container | Sighting) -> bool:
    """Whether another ledger's consumer made it for a tenant of this name: it can be taken over."""
    return seen.origin.has_our_name and seen.origin.maker is not Maker.US


def is_orphan(seen: Container | Sighting) -> bool:
    """Whether we made it, of a tenant that the ledger does not know: a restored copy's, perhaps."""
    return seen.origin.has_our_name and seen.origin.maker is Maker.US
