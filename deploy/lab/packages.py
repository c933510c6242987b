"""Debian packages: which of those needed are missing, and installing them.

From Debian 12 on; what is different since 13 goes by the release. Says what it installs and asks
first on a terminal. The services that come with the packages are kept from starting: whoever needs
a server brings one up of his own.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

RABBITMQ_SERVER: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"
ENGINE: Final = ("dockerd", "docker", "containerd", "iptables", "ip", "nsenter", "busybox")
BROKER: Final = (RABBITMQ_SERVER, "epmd")
BROWSER: Final = ("chromium", "chromedriver")
_ENSUREPIP: Final = "ensurepip"
TESTS: Final = (
    *(*ENGINE, *BROKER, *BROWSER),
    *("docker-registry", "docker-compose", "prometheus", "promtool", "podman", "openssl"),
    *("amqp-publish", "curl", "faketime", "systemd-analyze"),
    _ENSUREPIP,
)
_BESIDE_PODMAN_5: Final = ("nft", "/usr/lib/podman/aardvark-dns")
"""What it makes networks with, and lists among its recommendations alone."""

_PACKAGES: Final = {
    "dockerd": "docker.io",
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
    "nft": "nftables",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}
"""Which package brings a program or a file; the client of Docker has moved."""
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_INSTALL_SECONDS: Final = 900.0
_OLDEST: Final = 12
_UNRELEASED: Final = "999"


class LabError(Exception):
    """The lab cannot be had; the message says what a person can do about it."""


def find(program: str) -> str:
    """Return the program's path. Raises LabError when it is not there."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise LabError(f"{program} is not there (Debian package {package_of(program)})")
    return path


def package_of(program: str, *, release: int | None = None) -> str:
    """Return the Debian package that brings it, in this release when none is named."""
    if program == "docker":
        # Up to Debian 12 the engine's package had it.
        is_apart = (debian_release() if release is None else release) >= 13
        return "docker-cli" if is_apart else "docker.io"
    return _PACKAGES.get(program, program)


def of_tests(release: int) -> tuple[str, ...]:
    """Return the programs that the tests need."""
    return (*TESTS, *(_BESIDE_PODMAN_5 if release >= 13 else ()))


def debian_release(told: Mapping[str, str] | None = None) -> int:
    """Return the number of this Debian; one that is not out yet has none, and is after all.

    What is made of Debian is taken for the oldest one that is known here.
    """
    told = platform.freedesktop_os_release() if told is None else told
    if told.get("ID") != "debian":
        return _OLDEST
    return int(told.get("VERSION_ID", _UNRELEASED).partition(".")[0])


def ensure(programs: Iterable[str]) -> None:
    """Install the packages of the programs that are missing. Raises LabError when that fails."""
    missing = {package_of(name) for name in programs if not _is_there(name)}
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
    if name == _ENSUREPIP:
        # Debian's own Python is the one that images are made of; its name has the version.
        version = Path("/usr/bin/python3").resolve().name
        return Path(f"/usr/lib/{version}/ensurepip").is_dir()
    return shutil.which(name, path=_PATH) is not None


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
        ensure(of_tests(debian_release()))
    except LabError as error:
        print(f"make test: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
