"""A cloud's metadata address, played by another network namespace: the operator's rule shuts it."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from deploy.lab.daemon import Daemon
from deploy.lab.docker_cli import DockerCli
from deploy.lab.packages import LabError, find
from deploy.lab.servers import DockerHost
from tests.conftest import WEB

pytestmark = pytest.mark.docker

SECURITY: Final = (Path(__file__).parents[2] / "deploy" / "SECURITY.md").read_text("utf-8")
ADDRESS: Final = "169.254.169.254"
SECONDS: Final = 30


def run(*command: str) -> None:
    """Run it. Raises CalledProcessError."""
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)


@contextmanager
def metadata(host: DockerHost, folder: Path) -> Iterator[None]:
    """Have a web server at the address, which the engine's host has a way to, as in a cloud."""
    ip, name = find("ip"), f"ll-{uuid4().hex[:8]}"
    (folder / "index.html").write_text("credentials")
    run(ip, "netns", "add", name)
    run(ip, "link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}m")
    run(ip, "link", "set", f"{name}h", "netns", host._name)
    run(ip, "link", "set", f"{name}m", "netns", name)
    within = (find("nsenter"), f"--net=/var/run/netns/{name}")
    for command, device, address in (
        (host.inside(ip), f"{name}h", "169.254.169.253/30"),
        ((*within, ip), f"{name}m", f"{ADDRESS}/30"),
    ):
        run(*command, "addr", "add", address, "dev", device)
        run(*command, "link", "set", device, "up")
    server = Daemon(
        "metadata",
        (*within, find("busybox"), "httpd", "-f", "-p", f"{ADDRESS}:80", "-h", str(folder)),
        environment={},
        log=folder / "log",
        is_ready=lambda: True,
    )
    server.start()
    try:
        yield
    finally:
        server.stop()
        run(ip, "netns", "del", name)


def fetch(docker: DockerCli, network: str) -> str:
    """Return what a container on the network gets there; nothing when it gets no connection."""
    ask = f"timeout 5 wget -q -O- http://{ADDRESS}/ || true"
    try:
        return docker.run("run", "--rm", "--network", network, WEB, "sh", "-c", ask)
    except LabError as error:
        return str(error)


def test_the_rule_of_the_page_shuts_the_metadata_address(
    docker_host: DockerHost, docker: DockerCli, tmp_path: Path
) -> None:
    """On a network of tenants and on Docker's own; it holds for whatever tenants run."""
    (rule,) = re.findall(r"(?m)^ *# (iptables -I DOCKER-USER .*)$", SECURITY)
    program, *words = shlex.split(rule, comments=True)
    network = f"ll-net-{uuid4().hex[:8]}"
    docker.run("network", "create", network)
    networks = (network, "bridge")
    with metadata(docker_host, tmp_path):
        before = [fetch(docker, each) for each in networks]
        run(*docker_host.inside(find(program), *words))
        after = [fetch(docker, each) for each in networks]
        run(*docker_host.inside(find(program), "-D", *words[1:]))
    docker.run("network", "rm", network)

    assert before == ["credentials", "credentials"]
    assert after == ["", ""]
