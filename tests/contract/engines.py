"""Engines under test, each with a hand that does what happens behind the consumer's back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol
from uuid import uuid4

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineError
from consumer.model import (
    Container,
    ContainerStatus,
    Reason,
    Resources,
    Role,
    TenantSpec,
)
from consumer.ports import Engine
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import EngineHost
from tests.builders import TENANT_ID, make_spec
from tests.conftest import WEB
from tests.fakes.engine import FakeEngine
from tests.simulated.host import SimulatedHost
from tests.simulated.server import serving

EXIT_CODE: Final = 7
"""What the containers of `script` end with on SIGUSR1."""
_SCRIPT: Final = (
    f"trap 'exit {EXIT_CODE}' USR1; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"
)
_GLUTTON: Final = "x=a; while :; do x=$x$x$x$x; done"
_MISSING: Final = "landlord-test/never-there:1"
_UNSTARTABLE: Final = "landlord-test/unstartable:1"
_LOOK_SECONDS: Final = 0.05
_PATIENCE_SECONDS: Final = 15.0


def shell_spec(script: str = _SCRIPT, **changes: object) -> TenantSpec:
    """Return a spec whose container runs this script."""
    fields: dict[str, object] = {
        "image": WEB,
        "command": ("/bin/sh", "-c", script),
        "resources": Resources(cpu=500, memory=64),
        "stop_grace_seconds": 1,
    }
    return make_spec(**(fields | changes))


class EngineUnderTest(Protocol):
    """An engine, and what a person or a process can do to its containers."""

    @property
    def engine(self) -> Engine: ...

    @property
    def away(self) -> Engine:
        """One that cannot be asked."""
        ...

    @property
    def unstartable(self) -> TenantSpec:
        """A spec whose program is not there."""
        ...

    def put_secret(self, name: str) -> None:
        """Have a secret of the tenant's there."""
        ...

    def remove_secret(self, name: str) -> None: ...

    def exit(self, container: Container) -> None:
        """Have the process end by itself, with EXIT_CODE."""
        ...

    def exhaust_memory(self, container: Container) -> None:
        """Have a container of `glutton` meet its limit."""
        ...

    def pause(self, container: Container) -> None: ...

    def stop(self, container: Container) -> None: ...

    def remove(self, container: Container) -> None: ...

    def restart_by_policy(self, container: Container) -> None:
        """Have the process end, and the restart policy bring it up again."""
        ...


def missing_image() -> TenantSpec:
    """Return a spec whose image is nowhere, and is not to be pulled."""
    return shell_spec(image=_MISSING, pull_policy="never")


def glutton() -> TenantSpec:
    """Return a spec whose container wants more memory than it may have."""
    return shell_spec(_GLUTTON, resources=Resources(500, 16), restart_policy=RESTART_NEVER)


RESTART_NEVER: Final = replace(make_spec().restart_policy, name="no")


@dataclass(frozen=True, slots=True)
class FakeUnderTest:
    """The engine in memory."""

    engine: FakeEngine

    @property
    def away(self) -> Engine:
        away = FakeEngine(now=_now)
        away.is_away = True
        return away

    @property
    def unstartable(self) -> TenantSpec:
        message = "failed to start container: no such file or directory"
        error = EngineError(Reason.START_FAILED, message, is_transient=False)
        self.engine.broken_images[_UNSTARTABLE] = error
        return shell_spec(image=_UNSTARTABLE)

    def put_secret(self, name: str) -> None:
        self.engine.secrets.add(name)

    def remove_secret(self, name: str) -> None:
        self.engine.secrets.remove(name)

    def exit(self, container: Container) -> None:
        self.engine.exit(container, EXIT_CODE)

    def exhaust_memory(self, container: Container) -> None:
        self.engine.exit(container, 137, is_oom=True)

    def pause(self, container: Container) -> None:
        self.engine.pause_by_hand(container)

    def stop(self, container: Container) -> None:
        self.engine.stop_by_hand(container)

    def remove(self, container: Container) -> None:
        self.engine.remove_by_hand(container)

    def restart_by_policy(self, container: Container) -> None:
        self.engine.come_up(self.engine.exit(container, EXIT_CODE))


@dataclass(frozen=True, slots=True)
class DockerUnderTest:
    """A Docker Engine."""

    engine: DockerEngine
    away: DockerEngine
    cli: DockerCli
    secrets_dir: Path

    @property
    def unstartable(self) -> TenantSpec:
        return shell_spec(command=("/no/such/program",))

    def put_secret(self, name: str) -> None:
        _put_secret(self.secrets_dir, name)

    def remove_secret(self, name: str) -> None:
        _remove_secret(self.secrets_dir, name)

    def exit(self, container: Container) -> None:
        pid = self.cli.inspect(container.container_id, ".State.Pid")
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGUSR1)

    def exhaust_memory(self, container: Container) -> None:
        """It does so by itself."""

    def pause(self, container: Container) -> None:
        self.cli.run("pause", container.container_id)

    def stop(self, container: Container) -> None:
        self.cli.run("stop", container.container_id)

    def remove(self, container: Container) -> None:
        self.cli.run("rm", "-f", container.container_id)

    def restart_by_policy(self, container: Container) -> None:
        self.exit(container)


@dataclass(frozen=True, slots=True)
class SimulatedUnderTest:
    """A simulated engine behind a socket, asked by the adapter that asks Docker."""

    engine: DockerEngine
    away: DockerEngine
    host: SimulatedHost
    secrets_dir: Path

    @property
    def unstartable(self) -> TenantSpec:
        return shell_spec(command=("/no/such/program",))

    def put_secret(self, name: str) -> None:
        _put_secret(self.secrets_dir, name)

    def remove_secret(self, name: str) -> None:
        _remove_secret(self.secrets_dir, name)

    def exit(self, container: Container) -> None:
        self.host.exit(container.container_id, EXIT_CODE)

    def exhaust_memory(self, container: Container) -> None:
        self.host.exit(container.container_id, 137, is_oom=True)

    def pause(self, container: Container) -> None:
        self.host.pause(container.container_id)

    def stop(self, container: Container) -> None:
        self.host.stop(container.container_id)

    def remove(self, container: Container) -> None:
        self.host.remove(container.container_id, is_forced=True)

    def restart_by_policy(self, container: Container) -> None:
        self.exit(container)
        self.host.come_up(container.container_id)


def _put_secret(folder: Path, name: str) -> None:
    path = folder / TENANT_ID / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("content")


def _remove_secret(folder: Path, name: str) -> None:
    (folder / TENANT_ID / name).unlink()


def _now() -> datetime:
    return datetime.now(UTC)


def fake_under_test() -> FakeUnderTest:
    """Return an engine in memory that holds no images but those that are prepared."""
    engine = FakeEngine(now=_now)
    engine.missing_images.add(_MISSING)
    return FakeUnderTest(engine)


@asynccontextmanager
async def docker_under_test(host: EngineHost, secrets_dir: Path) -> AsyncIterator[DockerUnderTest]:
    """Give an adapter with a prefix of its own; take away what it made."""
    naming = Naming(f"ll-{uuid4().hex[:8]}")
    cli = DockerCli(host.url)
    engine = DockerEngine(endpoint=Endpoint(url=host.url), naming=naming, secrets_dir=secrets_dir)
    away = DockerEngine(endpoint=Endpoint(url="unix:///nowhere/docker.sock"), naming=naming)
    try:
        async with engine.opened(), away.opened():
            yield DockerUnderTest(engine, away, cli, secrets_dir)
    finally:
        cli.remove_containers(f"{naming.prefix}.owner={naming.prefix}")


@asynccontextmanager
async def simulated_under_test(secrets_dir: Path) -> AsyncIterator[SimulatedUnderTest]:
    """Give an adapter on a simulated engine of its own, which has the image that tests start."""
    naming = Naming(f"ll-{uuid4().hex[:8]}")
    host = SimulatedHost()
    host.add_image(WEB)
    away = DockerEngine(endpoint=Endpoint(url="unix:///nowhere/docker.sock"), naming=naming)
    # The path of a socket is short.
    with TemporaryDirectory(prefix="ll-") as folder:
        async with serving(host, Path(folder) / "engine.sock") as url:
            endpoint = Endpoint(url=url)
            engine = DockerEngine(endpoint=endpoint, naming=naming, secrets_dir=secrets_dir)
            async with engine.opened(), away.opened():
                yield SimulatedUnderTest(engine, away, host, secrets_dir)


async def create(engine: Engine, spec: TenantSpec, *, role: Role = Role.CURRENT) -> Container:
    """Return the tenant's new container, prepared and created."""
    await engine.prepare(TENANT_ID, spec)
    return await engine.create(TENANT_ID, spec, generation=3, role=role, serial=1)


async def run(engine: Engine, spec: TenantSpec) -> Container:
    """Return the tenant's new container, started."""
    return await engine.start(await create(engine, spec))


async def eventually(engine: Engine, is_so: Callable[[Container], bool]) -> Container:
    """Return the tenant's one container once it is as wanted."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while True:
        (container,) = await engine.observe(TENANT_ID)
        if is_so(container):
            return container
        assert asyncio.get_running_loop().time() < deadline, container
        await asyncio.sleep(_LOOK_SECONDS)


def has_exited(container: Container) -> bool:
    return container.status is ContainerStatus.EXITED
