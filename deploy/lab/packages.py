"""Debian packages: which of those needed are missing, and installing them.

Says what it installs and asks first on a terminal. The services that come with the packages are
kept from starting: whoever needs a server brings one up of his own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

RABBITMQ_SERVER: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"
ENGINE: Final = ("dockerd", "docker", "containerd", "iptables", "ip", "nsenter", "busybox")
BROKER: Final = (RABBITMQ_SERVER, "epmd")
BROWSER: Final = ("chromium", "chromedriver")
_ENSUREPIP: Final = "/usr/lib/python3.11/ensurepip"
TESTS: Final = (
    *(*ENGINE, *BROKER, *BROWSER),
    *("docker-registry", "docker-compose", "prometheus", "promtool", "podman", "openssl"),
    *("amqp-publish", "curl", "faketime", "systemd-analyze"),
    _ENSUREPIP,
)

_PACKAGES: Final = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "containerd": "containerd",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "busybox": "busybox-static",
    RABBITMQ_SERVER: "rabbitmq-server",
    "epmd": "erlang-base",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "curl": "curl",
    "amqp-publish": "amqp-tools",
    "docker-registry": "docker-registry",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "podman": "podman",
    "docker-compose": "docker-compose",
    "openssl": "openssl",
    "systemd-analyze": "systemd",
    _ENSUREPIP: "python3-venv",
    "faketime": "faketime",
}
"""Which package brings a program, or a folder."""
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_INSTALL_SECONDS: Final = 900.0


class LabError(Exception):
    """The lab cannot be had; the message says what a person can do about it."""


def find(program: str) -> str:
    """Return the program's path. Raises LabError when it is not there."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise LabError(f"{program} is not there (Debian package {_PACKAGES.get(program, program)})")
    return path


def ensure(programs: Iterable[str]) -> None:
    """Install the packages of the programs that are missing. Raises LabError when that fails."""
    missing = {_PACKAGES[name] for name in programs if not _is_there(name)}
    if not missing:
        return
    names = sorted(missing)
    command = f"apt-get install --no-install-recommends {' '.join(names)}"
    if os.geteuid() != 0:
        raise LabError(f"missing Debian packages; as root, run: {command}")
    print(f"==> installing Debian packages: {', '.join(names)}", flush=True)
    if sys.stdin.isatty() and input("    go on? [Y/n] ").strip().lower() in ("n", "no"):
        raise LabError(f"nothing was installed; the command is: {command}")
    with _no_services_started():
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *names)


def _is_there(name: str) -> bool:
    return shutil.which(name, path=_PATH) is not None or Path(name).is_dir()


def _apt(*words: str) -> None:
    outcome = subprocess.run(
        ["apt-get", "-q", *words],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=_INSTALL_SECONDS,
    )
    if outcome.returncode != 0:
        said = outcome.stdout.decode(errors="replace")
        raise LabError(f"apt-get {words[0]} failed:\n{said[-4000:]}")


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep packages from starting their services, as Debian's policy-rc.d(8) provides for."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def main() -> int:
    """Install what the tests need; return the exit code."""
    try:
        ensure(TESTS)
    except LabError as error:
        print(f"make test: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
