"""A RabbitMQ node and a Docker host of our own.

Both keep everything in the folder they are given and may be stopped, held, killed and started
again; what they stored is still there then. The Docker host has a network namespace of its own, as
if it were another machine: it meddles with no other engine here, and its published ports answer at
its `address`. It has no way to the outside, and so none to a registry but one within.
"""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

from deploy.lab.daemon import Daemon
from deploy.lab.packages import RABBITMQ_SERVER, LabError, find

_CONTROL: Final = str(Path(RABBITMQ_SERVER).with_name("rabbitmqctl"))
_AMQP_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_COMMAND_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(address: str, port: int) -> bool:
    """Return whether somebody takes TCP connections there."""
    with suppress(OSError), socket.create_connection((address, port), 1.0):
        return True
    return False


def answers_ping(place: Path) -> bool:
    """Return whether an engine answers at this socket."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(2.0)
        link.connect(str(place))
        link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in link.recv(64)
    return False


def unmount_below(folder: Path) -> None:
    """Unmount everything that is mounted somewhere in the folder."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run([find("umount"), "-l", place], check=False, timeout=10)


class Broker:
    """A RabbitMQ node on loopback; with its management API where that is wanted."""

    def __init__(self, folder: Path, *, is_managed: bool = False) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self.api_port = free_port() if is_managed else 0
        (folder / "plugins").write_text("[rabbitmq_management].\n" if is_managed else "[].\n")
        if is_managed:
            (folder / "rabbitmq.conf").write_text(
                f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.api_port}\n"
            )
        names_port = str(free_port())
        environment = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": names_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"landlord-{uuid4().hex[:8]}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            # One process instead of a shell around it: our signals then reach the node itself.
            "RUNNING_UNDER_SYSTEMD": "1",
        }
        self._environment = environment
        # The node would start the name server by itself, and leave it behind.
        self._names = Daemon(
            "epmd",
            (find("epmd"), "-port", names_port, "-address", "127.0.0.1"),
            environment=environment,
            log=folder / "epmd.log",
            is_ready=lambda: listens("127.0.0.1", int(names_port)),
        )
        self.node = Daemon(
            "rabbitmq",
            (RABBITMQ_SERVER,),
            environment=environment,
            log=folder / "rabbitmq.log",
            is_ready=self._answers,
        )

    def start(self) -> None:
        """Start it and wait until it takes connections. Raises LabError."""
        self._names.start()
        self.node.start()

    def control(self, *words: str) -> str:
        """Return what `rabbitmqctl` prints. Raises LabError with what it complains about."""
        outcome = subprocess.run(
            [_CONTROL, "-q", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        if outcome.returncode != 0:
            raise LabError(f"rabbitmqctl {' '.join(words)}: {outcome.stdout}{outcome.stderr}")
        return outcome.stdout

    def close(self) -> None:
        """Stop everything that was started."""
        self.node.stop()
        self._names.stop()

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as link:
            link.sendall(_AMQP_HEADER)
            # Plugins may come up a moment after the broker itself.
            is_whole = not self.api_port or listens("127.0.0.1", self.api_port)
            return bool(link.recv(1)) and is_whole
        return False


class EngineHost(Protocol):
    """An engine as a client sees it: where it is asked, and where published ports answer."""

    @property
    def url(self) -> str: ...

    @property
    def address(self) -> str: ...


class DockerHost:
    """A Docker Engine on a host of its own, with further options of its own; needs root."""

    def __init__(self, folder: Path, *options: str) -> None:
        if os.geteuid() != 0:
            raise LabError("a Docker engine can only be started by root")
        folder.mkdir(parents=True)
        self._folder = folder
        self._socket = folder / "docker.sock"
        self.url = f"unix://{self._socket}"
        self._name = f"landlord-{uuid4().hex[:8]}"
        # 198.18.0.0/15 is set aside for benchmarks (RFC 2544): nobody's real network.
        block = ip_network("198.18.0.0/15").network_address + 4 * random.randrange(2**15)
        self._gateway, self.address = str(block + 1), str(block + 2)
        self.engine = Daemon(
            "dockerd",
            (
                *self.inside(find("dockerd")),
                *("--data-root", str(folder / "data"), "--exec-root", str(folder / "run")),
                *("--pidfile", str(folder / "docker.pid"), "-H", self.url, *options),
            ),
            environment={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(folder)},
            log=folder / "dockerd.log",
            is_ready=lambda: answers_ping(self._socket),
        )

    def inside(self, *command: str) -> tuple[str, ...]:
        """Return the command that runs the given one on this host's network."""
        # Not `ip netns exec`: that one hides the cgroup mounts.
        return (find("nsenter"), f"--net=/var/run/netns/{self._name}", *command)

    def listen(self) -> socket.socket:
        """Return a socket of this process that listens on this host's loopback, at a free port."""

        def make() -> socket.socket:
            # It moves the calling thread alone, which ends right after.
            with Path(f"/var/run/netns/{self._name}").open("rb") as network:
                if _libc.setns(network.fileno(), _CLONE_NEWNET) != 0:
                    raise LabError(os.strerror(ctypes.get_errno()))
            return socket.create_server(("127.0.0.1", 0))

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()

    def start(self) -> None:
        """Start it and wait until it answers. Raises LabError."""
        if not Path(f"/var/run/netns/{self._name}").exists():
            self._plug_in()
        self.engine.start()

    def kill(self) -> None:
        """End the engine at once, as if it had crashed; containers are left as they are."""
        self.engine.kill()
        # containerd dies with it, but not at once; and where no init reaps the dead, a new engine
        # would take the old number for a living containerd.
        self._kill_all(b"containerd\0--config\0%s" % str(self._folder).encode())
        (self._folder / "run" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def close(self) -> None:
        """Stop everything that was started, and leave no mount, process or link behind."""
        self.engine.stop()
        self._kill_all(f"{self._folder}/run".encode())
        unmount_below(self._folder)
        if Path(f"/var/run/netns/{self._name}").exists():
            _ip("netns", "del", self._name)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _plug_in(self) -> None:
        here, there = f"ll{self._name[-8:]}h", f"ll{self._name[-8:]}n"
        _ip("netns", "add", self._name)
        _ip("link", "add", here, "type", "veth", "peer", "name", there)
        _ip("link", "set", there, "netns", self._name)
        _ip("addr", "add", f"{self._gateway}/30", "dev", here)
        _ip("link", "set", here, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/30", "dev", there),
            ("link", "set", there, "up"),
        ):
            _ip("-n", self._name, *words)

    def _kill_all(self, mark: bytes) -> None:
        """Kill those of ours that have the mark in their command line, and see them end."""
        while pids := [pid for pid, line in _command_lines() if mark in line]:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield int(place.parent.name), place.read_bytes()


def _ip(*words: str) -> None:
    outcome = subprocess.run(
        [find("ip"), *words], capture_output=True, check=False, timeout=_COMMAND_SECONDS
    )
    if outcome.returncode != 0:
        raise LabError(f"ip {' '.join(words)}: {outcome.stderr.decode().strip()}")
