"""Which paths and volumes of the host a tenant may mount: deny by default, each tenant its own.

An entry of the operator's opens a host path and what lies below, or a volume by its name; with
`{tenant_id}` in it, to that tenant alone, and with `:ro` at its end for reading. A path is compared
as it is written, and again as the links in it lead, where they can be seen: `resolve` says where.
Whoever may write below a prefix may put a link there, so where links cannot be seen nothing below
a prefix that tenants write is mounted, but the prefix itself. That also holds for what the operator
opens or mounts below it. Between a look and the mount a tenant may still exchange a link: only a
prefix that is mounted whole leaves nothing to be exchanged.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

OWN: Final = "{tenant_id}"
_READ_ONLY: Final = ":ro"
_ENGINES: Final = tuple(
    f"{folder}/{name}"
    for folder in ("/run", "/var/run", "/var/lib")
    for name in ("docker", "containerd", "containers", "podman", "landlord")
)
_PRECIOUS: Final = (
    *("/", "/proc", "/sys", "/dev", "/etc", "/run", "/var/run", "/var/spool", *_ENGINES),
    *("/bin", "/boot", "/home", "/lib", "/lib64", "/opt", "/root", "/sbin", "/srv", "/usr", "/var"),
)
"""Host paths that an allowed prefix does not open, nor a tenant's id; only writing exactly them in
the policy does."""
_ALL_THE_SAME: Final = "compute.policy.shared_volumes: true"
_LET_OUT: Final = frozenset({"shared", "rshared"})
"""Would let mounts made in the container out to the host."""
_RELABEL: Final = frozenset({"z", "Z"})
"""Has the engine rewrite the files' security labels, also of what is only to be read."""

Resolve = Callable[[str], str | None]
"""Returns where a host path leads, links followed; None where that cannot be seen from here."""


def unseen(_: str) -> None:
    """Say of every path that its links cannot be seen: the engine is on another host."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One entry of the operator's list."""

    source: str
    is_read_only: bool
    filled_below: str | None = None
    """The folder from which on a tenant's id says what it is; None where none was filled in."""

    @property
    def is_path(self) -> bool:
        """Whether it is a path of the host, and not the name of a volume."""
        return self.source.startswith("/")

    @property
    def is_of_one(self) -> bool:
        """Whether it opens to each tenant another place."""
        return OWN in self.source

    def of(self, tenant_id: str) -> "Opening":
        """Return what it opens to this tenant."""
        if not self.is_of_one:
            return self
        above = posixpath.dirname(self.source.partition(OWN)[0] + "x")
        return Opening(self.source.replace(OWN, tenant_id), self.is_read_only, above)


def opening(entry: str) -> Opening:
    """Return what an entry says."""
    source = entry.removesuffix(_READ_ONLY)
    if source.startswith("/"):
        source = posixpath.normpath("/" + source.lstrip("/"))
    return Opening(source, is_read_only=entry.endswith(_READ_ONLY))


def _mounted(volume: str) -> Opening:
    """Return what a volume of the operator's, as it is written, gives every tenant."""
    source, _, rest = volume.partition(":")
    is_read_only = "ro" in rest.partition(":")[2].split(",")
    return replace(opening(source), is_read_only=is_read_only)


def folders(entries: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of the host that have to be there: of each tenant's own, the one above."""
    paths = [opening(entry).source for entry in entries if entry.startswith("/")]
    return tuple(
        posixpath.dirname(path.partition(OWN)[0] + "x") if OWN in path else path for path in paths
    )


def shared_faults(entries: Sequence[str], mounted: Sequence[str] = ()) -> Iterator[str]:
    """Say of each entry how several tenants could come at the host, or at each other, by it.

    `mounted` are the volumes that the operator gives to every tenant.
    """
    paths = {entry: opening(entry) for entry in entries if entry.startswith("/")}
    writers = {entry: path for entry, path in paths.items() if not path.is_read_only}
    for volume in mounted:
        given = _mounted(volume)
        if given.is_path and not given.is_read_only:
            writers[volume] = given
    for entry, path in paths.items():
        if re.search(r"[{}]", path.source.replace(OWN, "")):
            yield f"{entry}: {OWN} is all that can be filled in"
        elif not path.is_of_one and not path.is_read_only:
            yield (
                f"{entry}: several tenants could write there, and one that leaves a link makes "
                f"the next one's mount lead anywhere on the host: write {entry}/{OWN} or "
                f"{entry}{_READ_ONLY}, or say {_ALL_THE_SAME}"
            )
        else:
            for other, writer in writers.items():
                if _meet(writer.source, path.source):
                    yield (
                        f"{entry}: another tenant may write there, or above ({other}), and a link "
                        "that it leaves leads whoever mounts this anywhere on the host: keep them "
                        f"apart, or say {_ALL_THE_SAME}"
                    )


def kept_faults(entries: Sequence[str], kept: Iterable[str]) -> Iterator[str]:
    """Say of each entry which of these places of ours some tenant's id would open."""
    for entry in entries:
        path = opening(entry)
        for place in kept if path.is_path else ():
            pairs = zip(path.source.split("/"), place.rstrip("/").split("/"), strict=False)
            if path.source == "/" or all(one == its or _could_be(one, its) for one, its in pairs):
                yield f"{entry}: {place} lies there, or above, which no tenant may come at"


def _meet(one: str, other: str) -> bool:
    """Whether for two tenants one of the paths can lie at the other, above, or below it."""
    for part, its in zip(one.split("/"), other.split("/"), strict=False):
        if part == its:
            if OWN in part:
                return False  # the tenants' own from here on
        elif not any(_could_be(*pair) for pair in ((part, its), (its, part))):
            return False
    return True


def _could_be(pattern: str, text: str) -> bool:
    """Whether some tenant's id makes the one of the other; of two patterns it is taken for so."""
    if OWN not in pattern:
        return False
    form = re.escape(pattern).replace(re.escape(OWN), "[A-Za-z0-9][A-Za-z0-9_.-]*")
    return OWN in text or re.fullmatch(form, text) is not None


@dataclass(frozen=True, slots=True)
class Volumes:
    """The rule, made of the operator's entries."""

    entries: tuple[str, ...]
    is_shared: bool = False
    """Whether the operator knows that tenants share what they write."""
    resolve: Resolve = unseen
    mounted: tuple[str, ...] = ()
    """The operator's own, which every tenant gets."""

    def fault(self, volume: str, tenant_id: str) -> str | None:
        """Return what is against the volume; None where it may be mounted."""
        source, _, rest = volume.partition(":")
        modes = frozenset(rest.partition(":")[2].split(","))
        if modes & _LET_OUT:
            return f"{min(modes & _LET_OUT)} would let mounts out to the host, got {volume!r}"
        opened = [entry for entry in self._allowed(tenant_id) if self._opens(entry, source)]
        if not opened:
            listing = ", ".join(self.entries) or "nothing"
            return f"compute.policy.volumes allows only {listing}, got {source!r}"
        if all(entry.is_read_only for entry in opened):
            if "ro" not in modes:
                return f"compute.policy.volumes has it with :ro alone, got {volume!r}"
            if modes & _RELABEL:
                return f"what is only to be read is not relabelled, got {volume!r}"
        return self.link_fault(volume, tenant_id)

    def link_fault(self, volume: str, tenant_id: str) -> str | None:
        """Return where what lies below another path that the tenant writes leads out of that.

        Whoever opened or gave it: the tenant may have put a link in its place.
        """
        source = volume.partition(":")[0]
        if not source.startswith("/"):
            return None
        path = opening(source).source
        given = (_mounted(text).of(tenant_id) for text in self.mounted)
        for above in (*self._allowed(tenant_id), *given):
            is_written = above.is_path and not above.is_read_only and above.source != path
            is_below = is_written and is_at_or_above(above.source, path)
            if is_below and not self._leads_within(path, above):
                rule = "lies below what the tenant writes, and may lead out of it by a link"
                return f"{rule}, got {source!r}"
        return None

    def _allowed(self, tenant_id: str) -> list[Opening]:
        return [opening(entry).of(tenant_id) for entry in self.entries]

    def _opens(self, entry: Opening, source: str) -> bool:
        if not source.startswith("/") or not entry.is_path:
            return source == entry.source
        if ".." in source.split("/"):
            return False
        path = posixpath.normpath("/" + source.lstrip("/"))
        if path == entry.source:
            return entry.filled_below is None or not _is_precious(path, entry.filled_below)
        return _lies_within(path, entry.source) and self._leads_within(path, entry)

    def _leads_within(self, path: str, entry: Opening) -> bool:
        """Whether a path below the entry is there still when its links are followed."""
        target, top = self.resolve(path), self.resolve(entry.source)
        if target is None or top is None:
            return entry.is_read_only or self.is_shared
        return target == top or _lies_within(target, top)


def _lies_within(path: str, prefix: str) -> bool:
    """Whether the prefix opens what lies below it; nothing that is precious."""
    return prefix != "/" and is_at_or_above(prefix, path) and not _is_precious(path, prefix)


def _is_precious(path: str, prefix: str) -> bool:
    """Whether the path, at or below the prefix, is one that only its own name opens."""
    if path.endswith("/docker.sock") or any(is_at_or_above(path, kept) for kept in _PRECIOUS):
        return True
    # Below a precious path only a prefix that itself lies in it opens the way.
    within = [kept for kept in _PRECIOUS[1:] if is_at_or_above(kept, path)]
    return not all(is_at_or_above(kept, prefix) for kept in within)


def is_at_or_above(upper: str, path: str) -> bool:
    """Whether the path is the upper one, or lies below it."""
    return upper == path or path.startswith(upper.rstrip("/") + "/")
