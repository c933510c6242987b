"""Servers for the whole run, and an environment that nothing of the surroundings leaks into.

The servers are always the run's own, whatever else can be reached: tests stop and kill them. When
one cannot be had, the tests that need it fail; none is skipped.
"""

import asyncio
import os
from collections.abc import Iterator

import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import Broker, DockerHost, EngineHost

WEB: str = "landlord-test/web:1"
"""Serves `/www` on $PORT; see `deploy.lab.docker_cli`."""


@pytest.fixture(scope="session", autouse=True)
def bare_environment() -> Iterator[None]:
    """Take every setting of ours and of Docker's out of the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("LANDLORD_", "DOCKER_")):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_stray_loop() -> None:
    """Have no event loop made by asking for one, as looptime does in every test without one."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Run a RabbitMQ node."""
    server = Broker(tmp_path_factory.mktemp("broker") / "node")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """Run a Docker Engine on a host of its own, with an image to start from."""
    server = DockerHost(tmp_path_factory.mktemp("docker") / "host")
    server.start()
    import_web_image(server)
    yield server
    server.close()


def import_web_image(server: EngineHost) -> None:
    """Have the image that most tests start from."""
    DockerCli(server.url).import_image(WEB, ('CMD ["/start.sh"]', "ENV PORT=8080"))


@pytest.fixture
def docker(docker_host: DockerHost) -> DockerCli:
    """Give the docker command on the run's own engine."""
    return DockerCli(docker_host.url)
