"""A root filesystem made of this machine's Debian packages: a base for images, without a registry.

It has the files of the packages that are named and of all that they depend on, and what every
Debian has; nothing is downloaded and no package's script is run.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from deploy.lab.packages import LabError

_ALWAYS: Final = ("base-files", "base-passwd", "bash", "dash", "coreutils", "grep", "sed", "mawk")
_LEFT_OUT: Final = re.compile(r"/usr/share/(doc|man|info|locale|lintian|icons)/")
"""What no program needs."""
_MERGED: Final = ("bin", "sbin", "lib", "lib64")
"""Links to what is below /usr, which dpkg does not know of."""
_MADE: Final = (
    *("/etc/passwd", "/etc/group"),
    *("/etc/ssl", "/etc/ssl/certs", "/etc/ssl/certs/ca-certificates.crt"),
)
"""What packages' scripts make; newer pips do nothing at all without a bundle of authorities."""
_QUERY: Final = r"${Package}\t${db:Status-Abbrev}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
_PACK_SECONDS: Final = 180.0


def root_archive(packages: Iterable[str]) -> bytes:
    """Return it as a tar archive. Raises LabError when a package is not installed."""
    files = sorted(_files(_with_dependencies((*_ALWAYS, *packages))))
    packed = subprocess.run(
        ["tar", "-c", "--no-recursion", "--null", "-T", "-"],
        input=b"".join(f".{path}\0".encode() for path in files),
        cwd="/",
        capture_output=True,
        check=False,
        timeout=_PACK_SECONDS,
    )
    if packed.returncode != 0:
        raise LabError(f"tar: {packed.stderr.decode().strip()}")
    return packed.stdout


def _with_dependencies(packages: Iterable[str]) -> set[str]:
    needs: dict[str, list[str]] = {}
    provided: dict[str, str] = {}
    for line in _run("dpkg-query", "-W", "-f", _QUERY).splitlines():
        name, state, depends, provides = line.split("\t")
        if state.strip() == "ii":
            needs[name] = _names(depends)
            provided |= dict.fromkeys(_names(provides), name)
    wanted, found = list(packages), set[str]()
    for name in packages:
        if name not in needs:
            raise LabError(f"Debian package {name} is not installed")
    while wanted:
        name = wanted.pop()
        name = name if name in needs else provided.get(name, name)
        # Of alternatives those that are not installed are passed over.
        if name in needs and name not in found:
            found.add(name)
            wanted += needs[name]
    return found


def _names(field: str) -> list[str]:
    """Return the packages that a relation names, all alternatives, without versions."""
    return [re.split(r"[\s:(]", word.strip())[0] for word in re.split(r"[,|]", field)]


def _files(packages: Iterable[str]) -> Iterator[str]:
    """Name every file and folder once; links of `update-alternatives` as well."""
    listed = _run("dpkg-query", "-L", *packages).splitlines()
    paths = {_real(path) for path in listed if path.startswith("/") and path != "/."}
    paths |= {f"/{name}" for name in _MERGED} | set(_MADE)
    for folder in (Path("/usr/bin"), Path("/usr/sbin"), Path("/etc/alternatives")):
        paths |= {
            str(link)
            for link in folder.iterdir()
            if link.is_symlink() and str(link.resolve()) in paths
        }
    return (path for path in paths if not _LEFT_OUT.match(path) and os.path.lexists(path))


def _real(path: str) -> str:
    return str(Path(path).parent.resolve() / Path(path).name)


def _run(*command: str) -> str:
    outcome = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_PACK_SECONDS
    )
    if outcome.returncode != 0:
        raise LabError(f"{command[0]}: {outcome.stderr.strip()}")
    return outcome.stdout
