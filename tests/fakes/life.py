"""How a container's state changes on Docker, as values: for every engine that only pretends.

The engine in memory and the one behind a socket share it, so that there is one simulation of a
container's life. Where its ports are bound, and what time it is, is said by the caller.
"""

from dataclasses import replace
from datetime import datetime

from consumer.model import BoundPort, Container, ContainerStatus, Health

Ports = tuple[BoundPort, ...]


def started(container: Container, *, ports: Ports, has_check: bool, at: datetime) -> Container:
    """Return the container, running; a start by the restart policy keeps its count."""
    return replace(
        container,
        status=ContainerStatus.RUNNING,
        started_at=at,
        exit_code=None,
        oom_killed=False,
        health=Health.STARTING if has_check else Health.NONE,
        ports=ports,
    )


def stopped(container: Container, code: int, *, ports: Ports, at: datetime) -> Container:
    """Return the container as somebody's stop leaves it: the restart policy does not undo it."""
    return replace(
        container, status=ContainerStatus.EXITED, exit_code=code, finished_at=at, ports=ports
    )


def ended(container: Container, code: int, *, is_oom: bool, at: datetime) -> Container:
    """Return the container after its process ended by itself; its restart policy says what then."""
    policy, count = container.restart_policy, container.restart_count
    is_restarted = policy.name in ("always", "unless-stopped") or (
        policy.name == "on-failure" and code != 0 and count < (policy.max_retries or count + 1)
    )
    return replace(
        container,
        status=ContainerStatus.RESTARTING if is_restarted else ContainerStatus.EXITED,
        restart_count=count + 1 if is_restarted else count,
        exit_code=code,
        oom_killed=is_oom,
        finished_at=at,
    )
