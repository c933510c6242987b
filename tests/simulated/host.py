"""The state of a simulated Docker Engine: containers, images, networks, volumes, events.

Knows the Engine API's documents and no HTTP; what the API would refuse is raised as `Refusal`, with
its status and the engine's words. What a container's life consists of is in `tests.fakes.life`,
shared with the engine in memory. Nothing is run: a container does what its command is known to do
(see `Program`), and what happens behind the consumer's back is done by a test's hand.

Everything that a request needs is found without a walk over all containers, so that ten thousand of
them cost whoever asks no more than one.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import uuid4

from consumer.image_reference import parse_image
from consumer.model import (
    BoundPort,
    Container,
    ContainerId,
    ContainerStatus,
    Health,
    RestartPolicy,
    Role,
    TenantId,
    Transport,
)
from tests.fakes import life

Document = dict[str, object]

API_VERSION: Final = "1.41"
_BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _SERVER_ERROR = 400, 403, 404, 409, 500
_NEVER: Final = "0001-01-01T00:00:00Z"
_TICK: Final = timedelta(milliseconds=1)
_KEPT_EVENTS: Final = 256
"""As many as the real engine remembers."""
_RUNNING: Final = frozenset(
    {ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.RESTARTING}
)
_SHELLS: Final = frozenset({"/bin/sh", "sh"})
_BUILT_IN_NETWORKS: Final = ("bridge", "host", "none")
_TERMINATED, _KILLED, _NOT_THERE = 143, 137, 127


class Refusal(Exception):
    """The engine says no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Listener(Protocol):
    """Takes the engine's events, each a line of JSON; an empty one is the end."""

    def put_nowait(self, line: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Program:
    """What a container's command is known to do."""

    is_there: bool = True
    is_deaf: bool = False
    """Whether it takes no notice of SIGTERM."""
    exit_code: int = _TERMINATED
    """What it ends with on SIGTERM."""

    @classmethod
    def of(cls, asked: Mapping[str, object]) -> "Program":
        """Read it from a create document; an image's own command is a plain server."""
        words = [*_texts(asked.get("Entrypoint")), *_texts(asked.get("Cmd"))]
        if not words:
            return cls()
        if words[0] not in _SHELLS:
            return cls(is_there=False)
        script = " ".join(words[1:])
        if "trap '' TERM" in script:
            return cls(is_deaf=True)
        return cls(exit_code=0) if "trap 'exit 0' TERM" in script else cls()


@dataclass(slots=True)
class Held:
    """One container: how it looks, and what was asked for when it was created."""

    seen: Container
    config: Document
    host_config: Document
    labels: Mapping[str, str]
    program: Program
    archives: dict[str, bytes] = field(default_factory=dict)
    """By path, what was put into it, and what lies there to be read."""
    said: bytes = b""
    line: bytes | None = None
    """Its line of the list; made anew after a change."""


class SimulatedHost:
    """An engine and what it holds. `latencies` are seconds by operation, for whoever serves it."""

    def __init__(self, *, latencies: Mapping[str, float] | None = None) -> None:
        self.latencies = dict(latencies or {})
        self.requests: Counter[str] = Counter()
        """How often it was asked, by operation."""
        self.missing_images: set[str] = set()
        """Images that no registry has; every other one can be pulled."""
        self.volumes: dict[str, Document] = {}
        self.networks: dict[str, Document] = {
            name: _network_document({"Name": name, "Driver": name}) for name in _BUILT_IN_NETWORKS
        }
        self._images: set[str] = set()
        self._held: dict[str, Held] = {}
        self._by_name: dict[str, str] = {}
        self._by_label: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._bound: dict[tuple[int, str], str] = {}
        self._history: deque[tuple[float, Mapping[str, str], bytes]] = deque(maxlen=_KEPT_EVENTS)
        self._listeners: list[tuple[Listener, tuple[str, ...]]] = []
        self._created_at = datetime.now(UTC)

    # --- what it tells of itself

    def version(self) -> Document:
        """Return what `docker version` shows of the server."""
        return {"Version": "20.10.24+simulated", "ApiVersion": API_VERSION, "MinAPIVersion": "1.12"}

    def info(self) -> Document:
        """Return what `docker info` shows."""
        return {
            "ID": "simulated",
            "ServerVersion": "20.10.24+simulated",
            "Driver": "none",
            "NCPU": 64,
            "MemTotal": 256 * 2**30,
            "Plugins": {"Log": ["json-file", "local", "none"], "Network": ["bridge"]},
            "Containers": len(self._held),
        }

    # --- images

    def add_image(self, image: str) -> None:
        """Have the image there."""
        self._images.add(str(parse_image(image)))

    def inspect_image(self, image: str) -> Document:
        """Return what is known of an image. Raises Refusal."""
        if not self._has_image(image):
            raise Refusal(_NOT_FOUND, f"No such image: {image}")
        return {"Id": _image_id(image), "RepoTags": [image], "Config": {}}

    def pull(self, image: str) -> Iterable[Document]:
        """Return the progress of a pull; a failure is told within, as the engine does."""
        if str(parse_image(image)) in {str(parse_image(name)) for name in self.missing_images}:
            raise Refusal(_NOT_FOUND, f"manifest for {image} not found: manifest unknown")
        self.add_image(image)
        return ({"status": f"Pulling from {image}"}, {"status": f"Status: Downloaded {image}"})

    def _has_image(self, image: str) -> bool:
        return str(parse_image(image)) in self._images

    # --- looking at containers

    def list_lines(self, filters: Mapping[str, list[str]]) -> bytes:
        """Return the list as JSON, newest first."""
        lines = [self._line(held) for held in self._matching(filters.get("label", []))]
        lines.reverse()
        return b"[%s]" % b",".join(lines)

    def _matching(self, labels: list[str]) -> Iterator[Held]:
        narrow = [label for label in labels if "=" in label]
        found: Collection[str] = self._held
        if narrow:
            found = min((self._by_label.get(label, {}) for label in narrow), key=len)
        for container_id in found:
            held = self._held[container_id]
            if _has_labels(held.labels, labels):
                yield held

    def inspect(self, name: str) -> Document:
        """Return everything about the container of this id or name. Raises Refusal."""
        return _inspected(self._find(name))

    def _find(self, name: str) -> Held:
        held = self._held.get(self._by_name.get(name, name))
        if held is None:
            raise Refusal(_NOT_FOUND, f"No such container: {name}")
        return held

    def _line(self, held: Held) -> bytes:
        if held.line is None:
            held.line = json.dumps(_listed(held)).encode()
        return held.line

    # --- containers' lives

    def create(self, name: str, asked: Document) -> Document:
        """Make a container. Raises Refusal."""
        image = str(asked.get("Image"))
        if not self._has_image(image):
            raise Refusal(_NOT_FOUND, f"No such image: {image}")
        self._check_name(name)
        self._created_at = self._after(self._created_at)
        container_id = ContainerId(hashlib.sha256(uuid4().bytes).hexdigest())
        config = {key: value for key, value in asked.items() if key != "HostConfig"}
        labels = {key: str(value) for key, value in _mapping(asked.get("Labels")).items()}
        policy = _mapping(_mapping(asked.get("HostConfig")).get("RestartPolicy"))
        seen = Container(
            container_id=container_id,
            name=name,
            tenant_id=TenantId(""),  # the labels say it, to whom they mean something
            role=Role.CURRENT,
            fingerprint="",
            image=image,
            image_id=_image_id(image),
            status=ContainerStatus.CREATED,
            created_at=self._created_at,
            restart_policy=RestartPolicy(
                str(policy.get("Name") or "no"), _integer(policy.get("MaximumRetryCount"))
            ),
            ports=_exposed(config),
        )
        held = Held(seen, config, _mapping(asked.get("HostConfig")), labels, Program.of(asked))
        held.archives = dict.fromkeys(_mapping(config.get("Volumes")), b"")
        self._held[container_id] = held
        self._by_name[name] = container_id
        for label in labels.items():
            self._by_label["=".join(label)][container_id] = None
        self._emit(held, "create")
        return {"Id": container_id, "Warnings": []}

    def start(self, name: str) -> bool:
        """Start the container; False when it runs already. Raises Refusal."""
        held = self._find(name)
        if held.seen.status is ContainerStatus.PAUSED:
            raise Refusal(
                _CONFLICT, "cannot start a paused container, try unpause instead: already paused"
            )
        if held.seen.status in _RUNNING:
            return False
        self._check_start(held)
        self._come_up(replace(held.seen, restart_count=0), held)
        return True

    def _check_start(self, held: Held) -> None:
        if not held.program.is_there:
            word = (_texts(held.config.get("Entrypoint")) or _texts(held.config.get("Cmd")))[0]
            words = f'exec: "{word}": stat {word}: no such file or directory: unknown'
            self._keep(held, replace(held.seen, exit_code=_NOT_THERE, error=words))
            raise Refusal(_BAD_REQUEST, words)
        network = str(held.host_config.get("NetworkMode") or "bridge")
        if network not in self.networks and not network.startswith("container:"):
            raise Refusal(_NOT_FOUND, f"network {network} not found")
        for place in _wanted(held):
            if place in self._bound:
                words = f"Bind for 0.0.0.0:{place[0]} failed: port is already allocated"
                raise Refusal(
                    _SERVER_ERROR,
                    "driver failed programming external connectivity on endpoint "
                    f"{held.seen.name}: {words}",
                )

    def _come_up(self, seen: Container, held: Held) -> None:
        for place in _wanted(held):
            self._bound[place] = seen.container_id
        started = life.started(
            replace(seen, error=""),
            ports=_bindings(held),
            has_check=bool(held.config.get("Healthcheck")),
            at=self._after(seen.finished_at or seen.started_at),
        )
        self._keep(held, started, "start")

    def grace_seconds(self, name: str, asked: float | None) -> float:
        """Return how long a stop of the container takes before it is killed. Raises Refusal."""
        held = self._find(name)
        is_deaf = held.program.is_deaf or held.seen.status is ContainerStatus.PAUSED
        if not is_deaf or held.seen.status not in _RUNNING:
            return 0.0
        return float(_integer(held.config.get("StopTimeout")) or 10) if asked is None else asked

    def stop(self, name: str) -> bool:
        """Stop the container; False when it does not run. Raises Refusal."""
        held = self._find(name)
        if held.seen.status not in _RUNNING:
            return False
        is_deaf = held.program.is_deaf or held.seen.status is ContainerStatus.PAUSED
        self._end(held, _KILLED if is_deaf else held.program.exit_code, "kill", "die", "stop")
        return True

    def kill(self, name: str) -> None:
        """Kill the container. Raises Refusal."""
        held = self._find(name)
        if held.seen.status not in _RUNNING:
            words = f"Cannot kill container: {name}: Container {name} is not running"
            raise Refusal(_CONFLICT, words)
        self._end(held, _KILLED, "kill", "die")

    def signal(self, name: str) -> None:
        """Send the container its stop signal, which ends it if it heeds it. Raises Refusal."""
        held = self._find(name)
        if held.seen.status not in _RUNNING:
            words = f"Cannot kill container: {name}: Container {name} is not running"
            raise Refusal(_CONFLICT, words)
        if not held.program.is_deaf:
            self._end(held, held.program.exit_code, "kill", "die")

    def is_running(self, name: str) -> bool:
        """Say whether the container runs. Raises Refusal."""
        return self._find(name).seen.status in _RUNNING

    def _end(self, held: Held, code: int, *actions: str) -> None:
        self._unbind(held)
        stopped = life.stopped(held.seen, code, ports=_exposed(held.config), at=_now())
        self._keep(held, stopped, *actions)

    def pause(self, name: str) -> None:
        """Pause the container. Raises Refusal."""
        held = self._find(name)
        if held.seen.status is not ContainerStatus.RUNNING:
            raise Refusal(_CONFLICT, f"Container {name} is not running")
        self._keep(held, replace(held.seen, status=ContainerStatus.PAUSED), "pause")

    def unpause(self, name: str) -> None:
        """Let a paused container go on. Raises Refusal."""
        held = self._find(name)
        if held.seen.status is not ContainerStatus.PAUSED:
            raise Refusal(_SERVER_ERROR, f"Container {name} is not paused")
        self._keep(held, replace(held.seen, status=ContainerStatus.RUNNING), "unpause")

    def rename(self, name: str, wanted: str) -> None:
        """Give the container another name. Raises Refusal."""
        held = self._find(name)
        if wanted == held.seen.name:
            raise Refusal(
                _BAD_REQUEST, "Renaming a container with the same name as its current name"
            )
        self._check_name(wanted)
        del self._by_name[held.seen.name]
        self._by_name[wanted] = held.seen.container_id
        self._keep(held, replace(held.seen, name=wanted), "rename")

    def update(self, name: str, changes: Document) -> None:
        """Change limits and restart policy. Raises Refusal."""
        held = self._find(name)
        held.host_config = {**held.host_config, **changes}
        policy = _mapping(changes.get("RestartPolicy"))
        wanted = RestartPolicy(
            str(policy.get("Name") or "no"), _integer(policy.get("MaximumRetryCount"))
        )
        self._keep(held, replace(held.seen, restart_policy=wanted), "update")

    def remove(self, name: str, *, is_forced: bool) -> None:
        """Remove the container. Raises Refusal."""
        held = self._find(name)
        if held.seen.status in _RUNNING:
            if not is_forced:
                words = f"You cannot remove a running container {held.seen.container_id}."
                raise Refusal(_CONFLICT, f"{words} Stop the container before attempting removal")
            self._end(held, _KILLED, "kill", "die")
        del self._held[held.seen.container_id]
        del self._by_name[held.seen.name]
        for label in held.labels.items():
            self._by_label["=".join(label)].pop(held.seen.container_id, None)
        self._emit(held, "destroy")

    # --- what is in containers

    def read_archive(self, name: str, path: str) -> bytes:
        """Return what lies at the path, as tar. Raises Refusal."""
        held = self._find(name)
        if path not in held.archives:
            words = f"Could not find the file {path} in container {name}"
            raise Refusal(_NOT_FOUND, words)
        return held.archives[path]

    def put_archive(self, name: str, path: str, archive: bytes) -> None:
        """Unpack a tar archive at the path, which has to be there. Raises Refusal."""
        self.read_archive(name, path)
        self._find(name).archives[path] = archive

    def log(self, name: str) -> bytes:
        """Return what the container wrote, in one frame of the engine's stream. Raises Refusal."""
        said = self._find(name).said
        return b"\x01\0\0\0" + len(said).to_bytes(4, "big") + said if said else b""

    # --- a hand behind the consumer's back

    def exit(self, name: str, code: int, *, is_oom: bool = False) -> None:
        """End the container's process by itself; its restart policy says what then."""
        held = self._find(name)
        if is_oom:
            self._emit(held, "oom")
        ended = life.ended(held.seen, code, is_oom=is_oom, at=_now())
        if ended.status is ContainerStatus.EXITED:
            self._unbind(held)
            ended = replace(ended, ports=_exposed(held.config))
        self._keep(held, ended, "die")

    def come_up(self, name: str) -> None:
        """End the engine's own backoff: a restarting container runs again."""
        held = self._find(name)
        self._come_up(held.seen, held)

    def say(self, name: str, words: str) -> None:
        """Have the container write something."""
        self._find(name).said = words.encode()

    def set_health(self, name: str, health: Health) -> None:
        """Have the container's health check come to this."""
        held = self._find(name)
        self._keep(held, replace(held.seen, health=health), f"health_status: {health.value}")

    # --- networks and volumes

    def create_network(self, asked: Document) -> Document:
        """Make a network. Raises Refusal."""
        name = str(asked.get("Name"))
        if name in self.networks:
            raise Refusal(_CONFLICT, f"network with name {name} already exists")
        self.networks[name] = _network_document(asked)
        return {"Id": self.networks[name]["Id"], "Warning": ""}

    def find_network(self, name: str) -> Document:
        """Return the network of this name or id. Raises Refusal."""
        named = (line for line in self.networks.values() if name in (line["Name"], line["Id"]))
        found = next(named, None)
        if found is None:
            raise Refusal(_NOT_FOUND, f"network {name} not found")
        return found

    def remove_network(self, name: str) -> None:
        """Remove the network. Raises Refusal."""
        found = str(self.find_network(name)["Name"])
        if found in _BUILT_IN_NETWORKS:
            raise Refusal(_FORBIDDEN, f"{found} is a pre-defined network and cannot be removed")
        del self.networks[found]

    def create_volume(self, asked: Document) -> Document:
        """Return the volume of this name, made unless it is there."""
        name = str(asked.get("Name") or uuid4().hex)
        made = {"Name": name, "Driver": "local", "Labels": asked.get("Labels"), "Scope": "local"}
        return self.volumes.setdefault(name, made)

    def inspect_volume(self, name: str) -> Document:
        """Return the volume. Raises Refusal."""
        if name not in self.volumes:
            raise Refusal(_NOT_FOUND, f"get {name}: no such volume")
        return self.volumes[name]

    def remove_volume(self, name: str) -> None:
        """Remove the volume. Raises Refusal."""
        self.inspect_volume(name)
        del self.volumes[name]

    # --- events

    @contextmanager
    def listening(
        self, listener: Listener, labels: Iterable[str], since: float | None
    ) -> Iterator[None]:
        """Give the listener every event of containers with these labels, what was since first."""
        wanted = tuple(labels)
        for at, attributes, line in self._history:
            if since is not None and at >= since and _has_labels(attributes, wanted):
                listener.put_nowait(line)
        entry = (listener, wanted)
        self._listeners.append(entry)
        try:
            yield
        finally:
            self._listeners.remove(entry)

    def end_events(self) -> None:
        """End every stream of events, as an engine does that goes away."""
        for listener, _ in self._listeners:
            listener.put_nowait(b"")

    def _emit(self, held: Held, action: str) -> None:
        now = time.time()
        seen = held.seen
        attributes = {**held.labels, "image": seen.image, "name": seen.name}
        document = {
            "status": action,
            "id": seen.container_id,
            "from": seen.image,
            "Type": "container",
            "Action": action,
            "Actor": {"ID": seen.container_id, "Attributes": attributes},
            "scope": "local",
            "time": int(now),
            "timeNano": int(now * 1e9),
        }
        line = json.dumps(document).encode() + b"\n"
        self._history.append((now, held.labels, line))
        for listener, labels in self._listeners:
            if _has_labels(held.labels, labels):
                listener.put_nowait(line)

    # --- inside

    def _keep(self, held: Held, seen: Container, *actions: str) -> None:
        held.seen = seen
        held.line = None
        for action in actions:
            self._emit(held, action)

    @staticmethod
    def _after(at: datetime | None) -> datetime:
        """Return the time, later than that by what the consumer can tell apart."""
        return _now() if at is None else max(_now(), at + _TICK)

    def _check_name(self, name: str) -> None:
        if name in self._by_name:
            holder = self._by_name[name]
            raise Refusal(
                _CONFLICT,
                f'Conflict. The container name "/{name}" is already in use by container '
                f'"{holder}". You have to remove (or rename) that container to be able to reuse '
                "that name.",
            )

    def _unbind(self, held: Held) -> None:
        for place in _wanted(held):
            if self._bound.get(place) == held.seen.container_id:
                del self._bound[place]


# --- documents --------------------------------------------------------------------------------


def _inspected(held: Held) -> Document:
    seen = held.seen
    state: Document = {
        "Status": seen.status.value,
        "Running": seen.status in _RUNNING,
        "Paused": seen.status is ContainerStatus.PAUSED,
        "Restarting": seen.status is ContainerStatus.RESTARTING,
        "OOMKilled": seen.oom_killed,
        "Dead": seen.status is ContainerStatus.DEAD,
        "ExitCode": seen.exit_code or 0,
        "Error": seen.error,
        "StartedAt": _stamp(seen.started_at),
        "FinishedAt": _stamp(seen.finished_at),
    }
    if seen.health is not Health.NONE:
        state["Health"] = {"Status": seen.health.value, "FailingStreak": 0, "Log": []}
    return {
        "Id": seen.container_id,
        "Created": _stamp(seen.created_at),
        "State": state,
        "Image": seen.image_id,
        "Name": f"/{seen.name}",
        "RestartCount": seen.restart_count,
        "HostConfig": held.host_config,
        "Config": held.config,
        "NetworkSettings": {"Ports": _shown_ports(seen)},
    }


def _shown_ports(seen: Container) -> Document:
    shown: dict[str, list[Document] | None] = {}
    for port in seen.ports if seen.status in _RUNNING else ():
        bindings = shown.setdefault(f"{port.container_port}/{port.protocol.value}", None)
        if port.host_port is not None:
            binding: Document = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
            key = f"{port.container_port}/{port.protocol.value}"
            shown[key] = [*(bindings or []), binding]
    return dict(shown)


def _listed(held: Held) -> Document:
    seen = held.seen
    health = {Health.STARTING: " (health: starting)", Health.NONE: ""}.get(
        seen.health, f" ({seen.health.value})"
    )
    network = str(held.host_config.get("NetworkMode") or "bridge")
    ports = [_listed_port(port) for port in seen.ports] if seen.status in _RUNNING else []
    return {
        "Id": seen.container_id,
        "Names": [f"/{seen.name}"],
        "Image": seen.image,
        "ImageID": seen.image_id,
        "Command": " ".join(_texts(held.config.get("Entrypoint"))) or "/start.sh",
        "Created": int(seen.created_at.timestamp()),
        "Ports": ports,
        "Labels": held.labels,
        "State": seen.status.value,
        "Status": f"Up 5 minutes{health}" if seen.status in _RUNNING else seen.status.value,
        "HostConfig": {"NetworkMode": network},
        # Nobody reads it here; the real engine sends as much, and it has to be parsed.
        "NetworkSettings": {
            "Networks": {
                network: {
                    "IPAMConfig": None,
                    "Links": None,
                    "Aliases": None,
                    "NetworkID": _digest(network),
                    "EndpointID": seen.container_id,
                    "Gateway": "172.17.0.1",
                    "IPAddress": "172.17.0.2",
                    "IPPrefixLen": 16,
                    "IPv6Gateway": "",
                    "GlobalIPv6Address": "",
                    "GlobalIPv6PrefixLen": 0,
                    "MacAddress": "02:42:ac:11:00:02",
                    "DriverOpts": None,
                }
            }
        },
        "Mounts": [],
    }


def _listed_port(port: BoundPort) -> Document:
    line: Document = {"PrivatePort": port.container_port, "Type": port.protocol.value}
    if port.host_port is not None:
        line |= {"IP": port.host_ip, "PublicPort": port.host_port}
    return line


def _network_document(asked: Document) -> Document:
    name = str(asked.get("Name"))
    return {
        "Name": name,
        "Id": _digest(name),
        "Created": _stamp(datetime.now(UTC)),
        "Driver": asked.get("Driver") or "bridge",
        "Attachable": bool(asked.get("Attachable")),
        "Labels": asked.get("Labels") or {},
        "Options": asked.get("Options") or {},
    }


def _exposed(config: Mapping[str, object]) -> life.Ports:
    return tuple(BoundPort(*_port(key)) for key in _mapping(config.get("ExposedPorts")))


def _bindings(held: Held) -> life.Ports:
    """Return what a start binds: what is exposed, and of that what was asked to be published."""
    asked = _mapping(held.host_config.get("PortBindings"))
    ports = []
    for key in _mapping(held.config.get("ExposedPorts")):
        bindings = asked.get(key)
        for binding in bindings if isinstance(bindings, list) and bindings else [{}]:
            host_port = _integer_of(_mapping(binding).get("HostPort"))
            host_ip = str(_mapping(binding).get("HostIp") or "0.0.0.0") if host_port else None
            ports.append(BoundPort(*_port(key), host_ip, host_port or None))
    return tuple(ports)


def _wanted(held: Held) -> list[tuple[int, str]]:
    return [
        (port.host_port, port.protocol.value)
        for port in _bindings(held)
        if port.host_port is not None
    ]


def _port(key: str) -> tuple[int, Transport]:
    number, _, protocol = key.partition("/")
    return int(number), Transport(protocol or "tcp")


def _has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    for label in wanted:
        key, equals, value = label.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _now() -> datetime:
    return datetime.now(UTC)


def _stamp(at: datetime | None) -> str:
    return _NEVER if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _image_id(image: str) -> str:
    return f"sha256:{_digest(str(parse_image(image)))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _mapping(value: object) -> Document:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else []


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _integer_of(value: object) -> int:
    return int(value) if isinstance(value, str) and value.isdigit() else 0
