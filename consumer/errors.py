"""What can go wrong, as one short hierarchy.

An error says two things that the rest of the code acts upon: whether it is transient (the same try
may succeed later without anybody changing anything) and, where a tenant is concerned, its reason
code from the contract. Both are decided once, in the adapter that met the foreign error, from
status codes and exception types. Nobody else looks into an error's text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from typing_extensions import override


class ConsumerError(Exception):
    """Root of every error that this project raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule of a document or of the settings.

    `field` is the path of the field (`containers[0].ports[1].protocol`; empty for the whole
    document), `rule` says in words what was found and what would be right. Never holds an
    environment value.
    """

    field: str
    rule: str

    @override
    def __str__(self) -> str:
        return f"{self.field}: {self.rule}" if self.field else self.rule


_MOST_FAULTS: Final = 100
_LONGEST_FIELD: Final = 256
_LONGEST_RULE: Final = 512


def _in_bounds(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Return the faults as they are told: of a hostile document there may be as many as it likes.

    A status event holds fewer; the log and the ledger are to hold no more either.
    """
    told = [
        Fault(_cut(fault.field, _LONGEST_FIELD), _cut(fault.rule, _LONGEST_RULE))
        for fault in faults[:_MOST_FAULTS]
    ]
    if len(faults) > _MOST_FAULTS:
        told.append(Fault("", f"and {len(faults) - _MOST_FAULTS} more faults"))
    return tuple(told)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


class InvalidMessage(ConsumerError):
    """A delivery that can never become an intention; it is dead-lettered.

    `reason` is `invalid_event`, `policy_denied` or `provider_not_supported`. `faults` are kept as
    far as anybody reads: so many, so long. `tenant_id` and `event_id` are what could still be read
    of the message, so that the tenant can be told.
    """

    def __init__(
        self,
        reason: str,
        faults: tuple[Fault, ...],
        *,
        tenant_id: str | None = None,
        event_id: str | None = None,
    ) -> None:
        self.faults = _in_bounds(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))
        self.reason = reason
        self.tenant_id = tenant_id
        self.event_id = event_id


class EngineError(ConsumerError):
    """The engine refused or failed a request about one tenant.

    The message begins with the contract's phrase where there is one and keeps the engine's own
    words.
    """

    def __init__(self, reason: str, message: str, *, is_transient: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_transient = is_transient


class EngineUnavailable(EngineError):
    """The engine could not be asked, or its answer was lost: unknown, not negative."""

    def __init__(self, message: str) -> None:
        super().__init__("engine_unavailable", message, is_transient=True)


class LeaseHeld(EngineUnavailable):
    """Another consumer holds the lease of our instance on the engine: it is not ours to ask."""

    def __init__(self, place: str) -> None:
        super().__init__(f"another consumer holds the lease of this instance ({place})")


class LedgerError(ConsumerError):
    """The ledger did not commit (disk full, unreachable); nothing of the transaction holds."""


class LedgerUnanswered(LedgerError):
    """The ledger did not answer within the deadline; whether it commits yet is unknown.

    If it does, then before anything that is asked for later.
    """


class LedgerFault(LedgerError):
    """Our own code failed over what it was to write: a fault of ours, and nothing of it holds."""


class LedgerInUse(LedgerError):
    """Another consumer owns this ledger."""


class BrokerError(ConsumerError):
    """The broker did not confirm; whether the message arrived is unknown."""


class LoginRefused(BrokerError):
    """The broker does not know this user with this password."""


class VhostRefused(BrokerError):
    """The virtual host is not there, or not for this user."""


class MessageRefused(BrokerError):
    """The broker is there and did not take this message; others may pass."""


class TopologyMismatch(BrokerError):
    """A name exists on the broker with other arguments than ours: an operator has to act."""


class TaskEnded(ConsumerError):
    """A task that never ends by itself has ended: the process cannot go on without it."""


class SettingsError(ConsumerError):
    """The settings do not fit; `faults` has one entry for each."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults
