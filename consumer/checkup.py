"""What is seen of the surroundings amounts to: fine, worth a warning, or wrong and how to mend it.

Judgement only: whoever looks (`examination`, the adapters) hands over what was seen as plain
values. A cure is a command, or a setting, that a person can copy.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_MEGABYTE: Final = 1024 * 1024
_MOST_STRANGERS: Final = 5
_GIGABYTE: Final = 1024 * _MEGABYTE
_SKEW_WARNING_SECONDS: Final = 5.0
_SKEW_WRONG_SECONDS: Final = 60.0


class Outcome(StrEnum):
    """What a check comes to."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNTRIED = "untried"
    """Nothing can be said, because another thing is wrong that says so itself."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    message: str
    cure: str | None = None


def fine(name: str, message: str) -> Examined:
    """Return that it is as it should be."""
    return Examined(name, Outcome.OK, message)


def warning(name: str, message: str, cure: str | None = None) -> Examined:
    """Return that it works, and should not stay so."""
    return Examined(name, Outcome.WARNING, message, cure)


def wrong(name: str, message: str, cure: str | None = None) -> Examined:
    """Return that it will not work, and what mends it."""
    return Examined(name, Outcome.WRONG, message, cure)


def untried(name: str, message: str) -> Examined:
    """Return that nothing can be said of it."""
    return Examined(name, Outcome.UNTRIED, message)


# --- the engine's address -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSight:
    """What is there at the path of the engine's socket, for the user who looks."""

    path: str
    is_there: bool
    is_socket: bool
    is_permitted: bool
    group_id: int
    group: str
    user: str
    is_in_container: bool
    """Whether we run in a container, where the socket has to be mounted."""


def judge_address(name: str, url: str, origin: str, sight: SocketSight | None) -> Examined:
    """Judge where the engine is said to be; `origin` names the setting that said so."""
    place = f"{url} (from {origin})"
    if sight is None:
        return fine(name, place)
    if not sight.is_there:
        return wrong(name, f"{place} is not there", _cure_of_missing(sight))
    if not sight.is_socket:
        return wrong(name, f"{place} is no socket", f"ls -l {shlex.quote(sight.path)}")
    if not sight.is_permitted:
        told = f"{place}: permission denied for user {sight.user}"
        return wrong(name, f"{told}; its group is {sight.group}", _cure_of_denied(sight))
    return fine(name, f"{place}, permitted")


def _cure_of_missing(sight: SocketSight) -> str:
    if sight.is_in_container:
        return f"docker run -v /var/run/docker.sock:{shlex.quote(sight.path)} ..."
    return "systemctl start docker"


def _cure_of_denied(sight: SocketSight) -> str:
    if sight.is_in_container:
        return f"docker run --group-add {sight.group_id} ..."
    if sight.group_id == 0:
        # To be in root's group is more than the socket alone.
        return f"chgrp docker {shlex.quote(sight.path)} && usermod -aG docker {sight.user}"
    return f"usermod -aG {shlex.quote(sight.group)} {shlex.quote(sight.user)}   # then log in anew"


# --- the engine ---------------------------------------------------------------------------------


def judge_network(
    name: str,
    network: str,
    driver: str,
    *,
    trouble: str | None,
    openness: str | None,
    is_there: bool,
) -> Examined:
    """Judge the tenants' network that is there, or can be made.

    `openness` is why tenants on it reach each other, where they are not to.
    """
    if trouble is not None:
        return wrong(
            name,
            f"network {network!r} {trouble}",
            f"docker network rm {shlex.quote(network)}   # it is made anew; or choose another name",
        )
    if openness is not None:
        told = f"tenants reach each other: network {network!r} {openness}"
        return warning(name, told, _cure_of_openness(network, driver))
    if not is_there:
        return fine(name, f"network {network!r} is not there yet; it will be made ({driver})")
    return fine(name, f"network {network!r} is there")


def _cure_of_openness(network: str, driver: str) -> str:
    known = "or, if you know, compute.docker.isolate_tenants: false"
    if network in ("bridge", "default", "host"):
        return f"set compute.docker.network_name: tenants   # {known}"
    if driver != "bridge":
        return f"set compute.docker.network_driver: bridge   # {known}"
    return f"docker network rm {shlex.quote(network)}   # it is made anew as wanted; {known}"


def judge_driver(
    name: str, driver: str, known: frozenset[str], *, is_swarm: bool
) -> Examined | None:
    """Return why a network of this driver cannot be made; None when it can."""
    if driver not in known:
        return wrong(
            name,
            f"the engine has no network driver {driver!r}, but {', '.join(sorted(known))}",
            "set compute.docker.network_driver to one of them",
        )
    if driver == "overlay" and not is_swarm:
        return wrong(
            name, "an overlay network needs a swarm, and the engine is in none", "docker swarm init"
        )
    return None


def judge_clock(name: str, skew_seconds: float) -> Examined:
    """Judge how far our clock is from the engine's."""
    told = f"{abs(skew_seconds):.1f} s {'behind' if skew_seconds < 0 else 'ahead of'} the engine's"
    cure = "timedatectl set-ntp true   # here, and on the engine's host"
    if abs(skew_seconds) >= _SKEW_WRONG_SECONDS:
        return wrong(name, told, cure)
    if abs(skew_seconds) >= _SKEW_WARNING_SECONDS:
        return warning(name, told, cure)
    return fine(name, told)


# --- files --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceLimits:
    """Below these, free bytes of a disk are a warning, or wrong."""

    warning: int
    wrong: int


LEDGER_SPACE: Final = SpaceLimits(warning=500 * _MEGABYTE, wrong=20 * _MEGABYTE)
ENGINE_SPACE: Final = SpaceLimits(warning=2 * _GIGABYTE, wrong=200 * _MEGABYTE)


def judge_space(name: str, path: str, free_bytes: int, limits: SpaceLimits, cure: str) -> Examined:
    """Judge the free space of a disk."""
    told = f"{free_bytes // _MEGABYTE} MB are free at {path}"
    if free_bytes < limits.wrong:
        return wrong(name, told, cure)
    if free_bytes < limits.warning:
        return warning(name, told, cure)
    return fine(name, told)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSight:
    """What is there at a path that should be a folder, for the user who looks."""

    path: str
    is_folder: bool
    is_readable: bool
    is_open_to_all: bool
    user: str


def judge_secrets(name: str, sight: FolderSight | None) -> Examined:
    """Judge the folder of the tenants' secrets."""
    if sight is None:
        return fine(name, "compute.docker.secrets_dir is not set: no tenant has any")
    path, user = shlex.quote(sight.path), shlex.quote(sight.user)
    if not sight.is_folder:
        return wrong(name, f"{sight.path} is no folder", f"install -d -m 700 -o {user} {path}")
    if not sight.is_readable:
        told = f"{sight.path} cannot be read by user {sight.user}"
        return wrong(name, told, f"chown -R {user} {path}")
    if sight.is_open_to_all:
        return warning(name, f"{sight.path} can be read by every user here", f"chmod o-rwx {path}")
    return fine(name, f"{sight.path} can be read")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSight:
    """Who may use a file of ours."""

    path: str
    is_read_by_all: bool
    is_written_by_all: bool


def judge_file(name: str, what: str, sight: FileSight, *, has_secrets: bool) -> Examined | None:
    """Judge who may use a file; None where nothing is dangerous."""
    cure = f"chmod o-rwx {shlex.quote(sight.path)}"
    if sight.is_written_by_all:
        told = f"{what} {sight.path} can be written by every user here, who then owns the consumer"
        return warning(name, told, cure)
    if sight.is_read_by_all and has_secrets:
        told = f"{what} {sight.path} holds secrets, and can be read by every user here"
        return warning(name, told, cure)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSight:
    """What is there of the ledger, for the user who looks."""

    path: str
    folder: str
    """That of the file; where it is missing, the nearest one above that is there."""
    is_there: bool
    is_writable: bool
    is_owned: bool
    """Whether a consumer works with it at the moment."""
    fault: str | None
    """What is the matter with its content."""
    is_newer: bool
    user: str


def judge_ledger(name: str, sight: LedgerSight) -> Examined:
    """Judge the ledger that is there, or will be made."""
    path, folder = shlex.quote(sight.path), shlex.quote(sight.folder)
    if not sight.is_writable:
        what = sight.path if sight.is_there else sight.folder
        told = f"{what} cannot be written by user {sight.user}"
        cure = f"chown -R {shlex.quote(sight.user)} {folder}   # and no read-only mount"
        return wrong(name, told, cure)
    if sight.fault is not None and sight.is_newer:
        return wrong(name, sight.fault)
    if sight.fault is not None:
        return wrong(
            name,
            f"{sight.path} is damaged: {sight.fault}",
            f"mv {path} {path}.damaged   # put a backup there; or landlord-consumer take-over",
        )
    if sight.is_owned:
        told = f"another consumer owns the ledger {sight.path}; a second one stands by"
        return warning(name, told)
    if not sight.is_there:
        return fine(name, f"{sight.path} is not there yet; it will be made")
    return fine(name, f"{sight.path} is sound, and writable")


def judge_strangers(
    name: str, *, ours: int, left_of: Sequence[str], copies: Sequence[str]
) -> list[Examined]:
    """Judge what carries our labels: of which tenants another ledger's, which are only copies."""
    judged = [fine(name, f"{ours} with our labels were made by this ledger's consumer")]
    if left_of:
        told = (
            f"{len(left_of)} were made by another ledger's consumer, and are left alone: of "
            f"{_some(left_of)}"
        )
        cure = "landlord-consumer take-over   # if that ledger is lost"
        judged.append(warning(name, told, cure))
    if copies:
        told = f"{len(copies)} have our labels and were not made by us; they are left alone"
        cure = f"docker inspect {_some(copies)}   # whose are they?"
        judged.append(warning(name, told, cure))
    return judged


def _some(words: Sequence[str]) -> str:
    return " ".join((*words[:_MOST_STRANGERS], *(["..."] if len(words) > _MOST_STRANGERS else [])))


# --- the policy ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySight:
    """The operator's rules, as far as they can be at odds with themselves or with the engine."""

    images: tuple[str, ...] | None
    volumes: tuple[str, ...]
    missing_volumes: tuple[str, ...]
    """Prefixes of paths that are not there; none when the engine's host is another."""
    is_engine_here: bool
    """Whether links in the paths can be followed from here."""
    privileged: bool
    host_ports: tuple[tuple[int, int], ...]
    unknown_runtimes: tuple[str, ...]
    above_host: tuple[str, ...]
    """What asks for more than the engine's host has, in words."""


def judge_policy(name: str, sight: PolicySight) -> list[Examined]:
    """Judge the policy; one line for each thing that is odd."""
    found = [*_judge_images(name, sight.images), *_judge_volumes(name, sight)]
    if sight.privileged:
        told = "compute.policy.privileged lets every tenant have the host"
        found.append(warning(name, told, "set compute.policy.privileged: false"))
    if not sight.host_ports:
        found.append(warning(name, "compute.policy.host_ports is empty: no port is published"))
    for runtime in sight.unknown_runtimes:
        told = f"compute.policy.runtimes: the engine has no runtime {runtime!r}"
        found.append(warning(name, told, "docker info --format '{{.Runtimes}}'"))
    found += [warning(name, words, "lower it, or take a larger host") for words in sight.above_host]
    return found or [fine(name, "nothing in it is odd")]


_MOST_NAMED: Final = 20


def judge_recorded(name: str, denied: Sequence[str], *, on_tightened: str) -> list[Examined]:
    """Judge the recorded tenants that the policy is against, each told with what it breaks."""
    if not denied:
        return [fine(name, "the policy is against none of them")]
    becomes = "goes on" if on_tightened == "keep" else "is stopped"
    rule = f"what runs of it {becomes} (compute.policy.on_tightened), and is never started again"
    cure = "landlord-consumer publish updated FILE   # a document that fits; or widen the policy"
    found = [warning(name, f"{words}; {rule}", cure) for words in denied[:_MOST_NAMED]]
    left = len(denied) - len(found)
    return [*found, *([warning(name, f"and {left} more")] if left else [])]


def _judge_images(name: str, patterns: Sequence[str] | None) -> list[Examined]:
    key = "compute.policy.images"
    if patterns is None:
        return []
    if not any(pattern.strip() for pattern in patterns):
        return [
            wrong(
                name,
                f"{key} has no pattern: every tenant is denied",
                f'set {key}: ["nginx:*", ...], or leave it out to allow all',
            )
        ]
    return [
        warning(name, f"{key} has a pattern that matches nothing: {pattern!r}", f"correct {key}")
        for pattern in patterns
        if not pattern.strip() or pattern != pattern.strip()
    ]


def _judge_volumes(name: str, sight: PolicySight) -> list[Examined]:
    key = "compute.policy.volumes"
    found = [
        warning(name, f"{key}: {path} is not there", f"install -d {shlex.quote(path)}")
        for path in sight.missing_volumes
    ]
    if not sight.is_engine_here and any(path.startswith("/") for path in sight.volumes):
        told = (
            f"{key}: links are not seen on another host: of what tenants write, only whole prefixes"
        )
        found.append(warning(name, f"{told} are mounted"))
    if "/" in sight.volumes:
        found.append(warning(name, f"{key}: / lets every tenant have the host", f"narrow {key}"))
    return found


# --- the broker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """Whom the broker knows us as, and the names that we need there."""

    user: str
    vhost: str
    names: tuple[str, ...]

    def cure_of_rights(self) -> str:
        """Return the command that gives the rights to these names and to no others."""
        escaped = "|".join(name.replace(".", r"\.") for name in self.names)
        pattern = shlex.quote(f"^({escaped})$")
        who = f"{shlex.quote(self.vhost)} {shlex.quote(self.user)}"
        return f"rabbitmqctl set_permissions -p {who} {pattern} {pattern} {pattern}"

    def cure_of_login(self) -> str:
        """Return the command that sets the password."""
        return f"rabbitmqctl change_password {shlex.quote(self.user)} PASSWORD   # or add_user"

    def cure_of_vhost(self) -> str:
        """Return the commands that make the virtual host and let us in."""
        return f"rabbitmqctl add_vhost {shlex.quote(self.vhost)}; {self.cure_of_rights()}"


def judge_rights(name: str, denied: Sequence[str], user: BrokerUser) -> Examined:
    """Judge what the broker does not let us do."""
    if denied:
        told = f"user {user.user!r} may not {', '.join(denied)} (virtual host {user.vhost!r})"
        return wrong(name, told, user.cure_of_rights())
    return fine(name, f"user {user.user!r} may do all that is needed")


def judge_names(
    name: str,
    *,
    missing: Sequence[str],
    unseen: Sequence[str],
    mismatched: Sequence[tuple[str, str]],
    user: BrokerUser,
    is_declaring: bool,
) -> list[Examined]:
    """Judge exchanges and queues; `mismatched` has a name's kind with what is the matter."""
    found = [wrong(name, words, _cure_of_mismatch(kind, user)) for kind, words in mismatched]
    listed = ", ".join(missing)
    if missing and not is_declaring:
        told = f"missing on the broker, and broker.declare is false: {listed}"
        found.append(wrong(name, told, "set broker.declare: true, or declare them"))
    elif missing:
        found.append(fine(name, f"not there yet, and made at the start: {listed}"))
    if unseen:
        told = f"user {user.user!r} may not ask whether these are there: {', '.join(unseen)}"
        found.append(fine(name, f"{told}; they are taken to be"))
    return found or [fine(name, "every exchange and queue is there as wanted")]


def judge_dead_letters(name: str, *, trouble: str | None, count: int | None) -> Examined:
    """Judge what was refused; `trouble` is what the consumer says of it, if it runs."""
    cure = "landlord-consumer dead-letters list   # then replay or drop them"
    if trouble is not None:
        return wrong(name, trouble, f"{cure}, or raise the limit of their queue")
    if count is None:
        return untried(name, "their queue cannot be asked")
    return warning(name, f"{count} lie in their queue", cure) if count else fine(name, "none")


def _cure_of_mismatch(kind: str, user: BrokerUser) -> str:
    place = f"-p {shlex.quote(user.vhost)}"
    if kind.startswith("queue "):
        queue = shlex.quote(kind.removeprefix("queue "))
        # Not with --if-empty: a quorum queue is left there by it, and nothing is said (3.10).
        return (
            f"rabbitmqctl delete_queue {place} {queue}   # once it is empty; made anew at a start"
        )
    exchange = shlex.quote(kind.removeprefix("exchange "))
    return (
        f"rabbitmqadmin -V {shlex.quote(user.vhost)} delete exchange name={exchange}"
        "   # made anew at the start; or choose another name"
    )
