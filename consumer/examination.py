"""`check`: everything that has to be right before a start, looked at by itself, nothing changed.

Each check looks (by an adapter), has what it saw judged (by `checkup`), and has a deadline; one
that fails keeps none of the others from being made. They run side by side, so that the whole takes
as long as the slowest. What can only be known from an engine that answers is untried when none
does, and the engine's own line says why.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

from consumer import wiring
from consumer.adapters.compute_api import ask
from consumer.adapters.docker_checkup import DockerCheckup, EngineSight
from consumer.adapters.ledger import (
    ledger_files,
    ledger_folder,
    look_at_containers,
    look_at_ledger,
    recorded_specs,
)
from consumer.adapters.rabbitmq_checkup import BrokerSight, look_at_broker
from consumer.adapters.registries import LoginError
from consumer.adapters.surroundings import (
    free_bytes,
    look_at_file,
    look_at_folder,
    look_at_socket,
    missing_paths,
)
from consumer.belonging import is_left_by_another
from consumer.checkup import (
    ENGINE_SPACE,
    LEDGER_SPACE,
    Examined,
    PolicySight,
    fine,
    judge_address,
    judge_clock,
    judge_dead_letters,
    judge_driver,
    judge_file,
    judge_ledger,
    judge_names,
    judge_network,
    judge_policy,
    judge_recorded,
    judge_rights,
    judge_secrets,
    judge_space,
    judge_strangers,
    untried,
    warning,
    wrong,
)
from consumer.errors import ConsumerError, LoginRefused, SettingsError, VhostRefused
from consumer.policy_volumes import folders
from consumer.settings import FileInUse, Settings

_T = TypeVar("_T")

_CHECK_SECONDS: Final = 25.0
"""Of one check; above the deadlines of the requests that it makes."""
_MEGABYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the checks look at; what several of them need is looked at once."""

    settings: Settings
    origin: str
    """Which setting said where the engine is."""
    config: FileInUse | None
    docker: DockerCheckup
    engine: "asyncio.Task[EngineSight | ConsumerError]"
    broker: "asyncio.Task[BrokerSight | ConsumerError]"


_Check = Callable[[_Ground], Awaitable[list[Examined]]]


async def examine(
    settings: Settings, *, origin: str, config: FileInUse | None = None
) -> list[Examined]:
    """Look everything over; return what each check comes to, in the order of the list."""
    try:
        docker = wiring.docker_checkup(settings)
    except SettingsError as error:
        return [wrong("settings", str(fault)) for fault in error.faults]
    async with docker.opened(), asyncio.TaskGroup() as group:
        ground = _Ground(
            settings,
            origin,
            config,
            docker,
            group.create_task(_outcome(docker.look()), name="engine"),
            group.create_task(_outcome(_look_at_broker(settings)), name="broker"),
        )
        checks = [
            group.create_task(_in_time(name, check(ground)), name=name)
            for name, check in CHECKS.items()
        ]
        done = [await check for check in checks]
    return [examined for found in done for examined in found]


async def _outcome(work: Coroutine[object, object, _T]) -> _T | ConsumerError:
    """Return what the look comes to, be it its failure."""
    try:
        return await work
    except ConsumerError as error:
        return error


async def _in_time(name: str, work: Awaitable[list[Examined]]) -> list[Examined]:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return await work
    except TimeoutError:
        return [wrong(name, f"no answer within {_CHECK_SECONDS:g} s")]


async def _seen(task: "asyncio.Task[_T]") -> _T:
    """Wait for a look that others wait for too; a deadline of ours does not end it."""
    return await asyncio.shield(task)


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Do what may block, on a disk for instance, in a thread that holds up no exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(outcome: _T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(outcome)  # type: ignore[arg-type]  # without an error it is there

    def do() -> None:
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, outcome, None)

    threading.Thread(target=do, daemon=True).start()
    return await done


# --- settings and policy ------------------------------------------------------------------------


async def _settings(ground: _Ground) -> list[Examined]:
    name = "settings"
    try:
        wiring.check_provider_config(ground.settings)
    except SettingsError as error:
        return [wrong(name, str(fault)) for fault in error.faults]
    warnings = ground.settings.warnings()
    return [warning(name, words) for words in warnings] or [fine(name, "valid")]


async def _files(ground: _Ground) -> list[Examined]:
    name, config = "files", ground.config
    looked_at = [("the file of settings", str(config.path), config.has_secrets)] if config else []
    try:
        ledger = ledger_files(ground.settings.ledger.url)
    except ConsumerError as error:
        return [untried(name, str(error))]
    looked_at += [("the ledger", path, True) for path in ledger]
    found = []
    for what, path, has_secrets in looked_at:
        sight = await _in_thread(partial(look_at_file, path))
        if sight is not None:
            found.append(judge_file(name, what, sight, has_secrets=has_secrets))
    return [each for each in found if each] or [fine(name, "not open to other users of this host")]


async def _policy(ground: _Ground) -> list[Examined]:
    policy = ground.settings.compute.policy
    sight = await _seen(ground.engine)
    missing: tuple[str, ...] = ()
    if _is_engine_here(ground):
        missing = await _in_thread(lambda: missing_paths(folders(policy.volumes)))
    return judge_policy(
        "policy",
        PolicySight(
            images=policy.images,
            volumes=policy.volumes,
            missing_volumes=missing,
            is_engine_here=_is_engine_here(ground),
            privileged=policy.privileged,
            host_ports=policy.host_ports,
            unknown_runtimes=_unknown_runtimes(policy.runtimes, sight),
            above_host=_above_host(ground.settings, sight),
        ),
    )


async def _recorded(ground: _Ground) -> list[Examined]:
    name, settings = "recorded tenants", ground.settings
    try:
        recorded = await _in_thread(lambda: recorded_specs(settings.ledger.url))
    except ConsumerError:
        return [untried(name, "the ledger cannot be read")]
    denied = await _in_thread(lambda: wiring.denied(settings, recorded))
    return judge_recorded(name, denied, on_tightened=settings.compute.policy.on_tightened)


def _unknown_runtimes(
    runtimes: tuple[str, ...], sight: EngineSight | ConsumerError
) -> tuple[str, ...]:
    if isinstance(sight, ConsumerError):
        return ()
    return tuple(runtime for runtime in runtimes if runtime not in sight.runtimes)


def _above_host(settings: Settings, sight: EngineSight | ConsumerError) -> tuple[str, ...]:
    if isinstance(sight, ConsumerError):
        return ()
    defaults, policy = settings.compute.docker.defaults, settings.compute.policy
    cpu, memory = sight.cpus * 1000, sight.memory_bytes // _MEGABYTE
    asked = (
        ("compute.docker.defaults.cpu", defaults.cpu, cpu, "millicores"),
        ("compute.docker.defaults.memory", defaults.memory, memory, "megabytes"),
        ("compute.policy.max_cpu", policy.max_cpu, cpu, "millicores"),
        ("compute.policy.max_memory", policy.max_memory, memory, "megabytes"),
    )
    return tuple(
        f"{key} is {value}, and the engine's host has {most} {unit}"
        for key, value, most, unit in asked
        if value is not None and most and value > most
    )


async def _secrets(ground: _Ground) -> list[Examined]:
    folder = ground.settings.compute.docker.secrets_dir
    sight = None if folder is None else await _in_thread(lambda: look_at_folder(str(folder)))
    return [judge_secrets("secrets", sight)]


# --- the engine ---------------------------------------------------------------------------------


def _is_engine_here(ground: _Ground) -> bool:
    return ground.settings.compute.docker.url.startswith("unix:")


async def _address(ground: _Ground) -> list[Examined]:
    url = ground.settings.compute.docker.url
    sight = None
    if _is_engine_here(ground):
        sight = await _in_thread(lambda: look_at_socket(urlsplit(url).path))
    return [judge_address("engine address", url, ground.origin, sight)]


async def _engine(ground: _Ground) -> list[Examined]:
    name, url = "engine", ground.settings.compute.docker.url
    sight = await _seen(ground.engine)
    if isinstance(sight, ConsumerError):
        return [wrong(name, str(sight), f"docker -H {url} info   # what does it say?")]
    told = (
        f"{url}, version {sight.version} (API {sight.api_version}), {sight.cpus} CPUs, "
        f"{sight.memory_bytes // _MEGABYTE} MB"
    )
    unlimited = [
        warning(name, f"its kernel cannot limit {what}: tenants can take all of it")
        for what in sight.unlimited
    ]
    return [fine(name, told), *unlimited]


async def _clock(ground: _Ground) -> list[Examined]:
    sight = await _seen(ground.engine)
    if isinstance(sight, ConsumerError) or sight.skew_seconds is None:
        return [untried("clock", "the engine does not tell the time")]
    return [judge_clock("clock", sight.skew_seconds)]


async def _engine_disk(ground: _Ground) -> list[Examined]:
    name = "engine disk"
    sight = await _seen(ground.engine)
    if isinstance(sight, ConsumerError):
        return [untried(name, "the engine does not say where it is")]
    folder = sight.folder
    free = await _in_thread(lambda: free_bytes(folder)) if _is_engine_here(ground) else None
    if free is None:
        return [untried(name, f"{folder} is not to be seen from here; there: df -h {folder}")]
    return [judge_space(name, folder, free, ENGINE_SPACE, "docker system prune")]


async def _network(ground: _Ground) -> list[Examined]:
    name, docker = "network", ground.settings.compute.docker
    sight = await _seen(ground.engine)
    if isinstance(sight, ConsumerError):
        return [untried(name, "the engine cannot be asked")]
    try:
        seen = await ground.docker.look_at_network(docker.network_name, docker.network_driver)
    except ConsumerError as error:
        return [wrong(name, str(error))]
    if not seen.is_there:
        unable = judge_driver(
            name, docker.network_driver, sight.network_drivers, is_swarm=sight.is_swarm
        )
        if unable is not None:
            return [unable]
    return [
        judge_network(
            name,
            docker.network_name,
            docker.network_driver,
            trouble=seen.trouble,
            openness=seen.openness if docker.isolate_tenants else None,
            is_there=seen.is_there,
        )
    ]


async def _registries(ground: _Ground) -> list[Examined]:
    name = "registries"
    logins = wiring.registry_logins(ground.settings)
    try:
        known = await _in_thread(logins.known)
    except LoginError as error:
        return [wrong(name, str(error), "docker login")]
    if not known:
        return [fine(name, "no login is configured")]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_registry(ground, registry)) for registry in known]
    return [task.result() for task in tasks]


async def _registry(ground: _Ground, registry: str) -> Examined:
    name, cure = f"registry {registry}", f"docker login {registry}"
    try:
        login = await _in_thread(lambda: wiring.registry_logins(ground.settings).find(registry))
    except LoginError as error:
        return wrong(name, str(error), cure)
    if login is None:
        return fine(name, "no login is configured")
    if isinstance(await _seen(ground.engine), ConsumerError):
        return untried(name, "the engine cannot be asked to log in")
    try:
        trouble = await ground.docker.try_login(registry, login)
    except ConsumerError as error:
        return wrong(name, str(error), cure)
    if trouble is not None:
        cure = f"{cure} -u {login.username}   # and put the right password where the file has it"
        return wrong(name, f"user {login.username!r} cannot log in: {trouble}", cure)
    return fine(name, f"user {login.username!r} may log in")


# --- the broker ---------------------------------------------------------------------------------


async def _look_at_broker(settings: Settings) -> BrokerSight:
    return await look_at_broker(
        wiring.broker_link(settings),
        wiring.topology(settings),
        is_declaring=settings.broker.declare,
    )


async def _broker(ground: _Ground) -> list[Examined]:
    name, link = "broker", wiring.broker_link(ground.settings)
    user = wiring.broker_user(ground.settings)
    match await _seen(ground.broker):
        case LoginRefused() as error:
            return [wrong(name, str(error), user.cure_of_login())]
        case VhostRefused() as error:
            return [wrong(name, str(error), user.cure_of_vhost())]
        case ConsumerError() as error:
            cure = "systemctl start rabbitmq-server; rabbitmq-diagnostics listeners   # there"
            return [wrong(name, str(error), cure)]
        case _:
            return [fine(name, f"{link.place}, logged in")]


async def _broker_rights(ground: _Ground) -> list[Examined]:
    name = "broker rights"
    match await _seen(ground.broker):
        case BrokerSight(denied=denied):
            return [judge_rights(name, denied, wiring.broker_user(ground.settings))]
        case _:
            return [untried(name, "the broker cannot be asked")]


async def _broker_names(ground: _Ground) -> list[Examined]:
    name = "broker names"
    match await _seen(ground.broker):
        case BrokerSight() as sight:
            return judge_names(
                name,
                missing=sight.missing,
                unseen=sight.unseen,
                mismatched=sight.mismatched,
                user=wiring.broker_user(ground.settings),
                is_declaring=ground.settings.broker.declare,
            )
        case _:
            return [untried(name, "the broker cannot be asked")]


async def _dead_letters(ground: _Ground) -> list[Examined]:
    name = "dead letters"
    match await _seen(ground.broker):
        case BrokerSight(dead_letters=count):
            trouble = await _trouble_with_dead_letters(ground.settings)
            return [judge_dead_letters(name, trouble=trouble, count=count)]
        case _:
            return [untried(name, "the broker cannot be asked")]


async def _trouble_with_dead_letters(settings: Settings) -> str | None:
    """Return what the consumer says of them; only a publish would show it from outside."""
    try:
        _, document = await ask(wiring.http_url(settings), "/readyz", token=None)
    except ConsumerError:
        return None  # it need not run now
    parts = document.get("components")
    told = parts.get("dead_letters", "ok") if isinstance(parts, dict) else "ok"
    return None if told == "ok" else str(told)


# --- the ledger ---------------------------------------------------------------------------------


async def _ledger(ground: _Ground) -> list[Examined]:
    name = "ledger"
    try:
        sight = await _in_thread(lambda: look_at_ledger(ground.settings.ledger.url))
    except ConsumerError as error:
        return [wrong(name, str(error))]
    return [judge_ledger(name, sight)]


async def _ledger_disk(ground: _Ground) -> list[Examined]:
    name = "ledger disk"
    try:
        folder = await _in_thread(lambda: ledger_folder(ground.settings.ledger.url))
    except ConsumerError as error:
        return [untried(name, str(error))]
    free = await _in_thread(lambda: free_bytes(folder))
    if free is None:
        return [untried(name, f"{folder} cannot be looked at")]
    return [judge_space(name, folder, free, LEDGER_SPACE, f"df -h {folder}   # and make room")]


async def _containers(ground: _Ground) -> list[Examined]:
    name = "containers"
    if isinstance(await _seen(ground.engine), ConsumerError):
        return [untried(name, "the engine cannot be asked")]
    try:
        recorded = await _in_thread(lambda: look_at_containers(ground.settings.ledger.url))
    except ConsumerError as error:
        return [untried(name, str(error))]
    naming = wiring.naming(ground.settings, recorded.ledger_id)
    try:
        seen = await ground.docker.look_at_containers(naming)
    except ConsumerError as error:
        return [wrong(name, str(error))]
    strangers = [it for it in seen if not recorded.has(it)]
    return judge_strangers(
        name,
        ours=len(seen) - len(strangers),
        left_of=[it.tenant_id for it in strangers if is_left_by_another(it)],
        copies=[it.container_id[:12] for it in strangers if not is_left_by_another(it)],
    )


CHECKS: Final[dict[str, _Check]] = {
    "settings": _settings,
    "files": _files,
    "policy": _policy,
    "recorded tenants": _recorded,
    "secrets": _secrets,
    "engine address": _address,
    "engine": _engine,
    "engine disk": _engine_disk,
    "clock": _clock,
    "network": _network,
    "registries": _registries,
    "broker": _broker,
    "broker rights": _broker_rights,
    "broker names": _broker_names,
    "dead letters": _dead_letters,
    "ledger": _ledger,
    "ledger disk": _ledger_disk,
    "containers": _containers,
}
"""By the names that they are told under, in the order in which a person would look."""
