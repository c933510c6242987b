"""Looks at the files of this host that a check is about; changes none of them.

What is seen is that of the user who looks: a check tells of the consumer only when it runs as the
consumer's user. Blocking: callers use a thread.
"""

import grp
import os
import pwd
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from consumer.checkup import FileSight, FolderSight, SocketSight

_CONTAINER_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))


def user_name() -> str:
    """Return who we are; the number where it has no name, as is usual in a container."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def may_write(path: str) -> bool:
    """Return whether we may write the file, or make files in the folder."""
    return _may(path, os.W_OK | (os.X_OK if Path(path).is_dir() else os.R_OK))


def _may(path: str, mode: int) -> bool:
    # As whoever we act as, which is not always who started us.
    return os.access(path, mode, effective_ids=True)


def look_at_socket(path: str) -> SocketSight:
    """Return what is at the path of the engine's socket."""
    try:
        status = Path(path).stat()
    except PermissionError:
        # A folder on the way is closed to us, and what it holds is not to be seen.
        group_id = nearest_folder(path).stat().st_gid
        return _socket_sight(path, is_there=True, is_socket=True, group_id=group_id)
    except OSError:
        return _socket_sight(path, is_there=False, is_socket=False, group_id=0)
    is_socket = stat.S_ISSOCK(status.st_mode)
    return _socket_sight(path, is_there=True, is_socket=is_socket, group_id=status.st_gid)


def _socket_sight(path: str, *, is_there: bool, is_socket: bool, group_id: int) -> SocketSight:
    return SocketSight(
        path=path,
        is_there=is_there,
        is_socket=is_socket,
        is_permitted=is_there and _may(path, os.R_OK | os.W_OK),
        group_id=group_id,
        group=_group_name(group_id),
        user=user_name(),
        is_in_container=any(mark.exists() for mark in _CONTAINER_MARKS),
    )


def _group_name(group_id: int) -> str:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return str(group_id)


def look_at_folder(path: str) -> FolderSight:
    """Return what is at a path that should be a folder."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        mode = 0
    return FolderSight(
        path=path,
        is_folder=stat.S_ISDIR(mode),
        is_readable=_may(path, os.R_OK | os.X_OK),
        is_open_to_all=bool(mode & stat.S_IROTH),
        user=user_name(),
    )


def look_at_file(path: str) -> FileSight | None:
    """Return who may use the file; None where it is none, or cannot be seen."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return FileSight(
        path=path,
        is_read_by_all=bool(status.st_mode & stat.S_IROTH),
        is_written_by_all=bool(status.st_mode & stat.S_IWOTH),
    )


def nearest_folder(path: str) -> Path:
    """Return the folder of the path; where it is missing, the nearest one above that is there."""
    folder = Path(path).absolute().parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_bytes(path: str) -> int | None:
    """Return how much can still be written there; None when it cannot be seen from here."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def follow_links(path: str) -> str | None:
    """Return where a path of this host leads, links followed; None where that cannot be seen.

    What is not there yet leads nowhere else than it reads, and a link to what is not there is not
    to be relied upon.
    """
    parts = path.split("/")
    there = 1
    try:
        # From the top: what is not there costs one look, however deep a document says it is.
        while there < len(parts) and _is_there("/".join(parts[: there + 1])):
            there += 1
        seen = "/".join(parts[:there]) or "/"
        os.stat(seen)  # noqa: PTH116 - as above; refuses more links than the kernel would follow
        target = os.path.realpath(seen, strict=True)
    except OSError:
        return None
    return os.path.join(target, *parts[there:])  # noqa: PTH118 - as above


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def follow_links_below(tops: tuple[str, ...]) -> Callable[[str], str | None]:
    """Return `follow_links` for what lies below these folders, where they can be seen from here.

    In a container they may be none of the host's: nothing is known then of what lies below.
    """

    def follow(path: str) -> str | None:
        within = [top for top in tops if path == top or path.startswith(f"{top.rstrip('/')}/")]
        return follow_links(path) if all(map(os.path.isdir, within)) else None

    return follow


def missing_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the absolute paths that are not there."""
    return tuple(path for path in paths if path.startswith("/") and not Path(path).exists())
