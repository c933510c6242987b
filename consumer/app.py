"""The composition root: build the parts, open them in order, run them, drain, close.

The only place that knows concrete classes; `wiring` gives it settings as plain values. Every part
runs as a named task of one group; one that ends unasked is told in one line, which says why, and
ends the process within a second, whatever else hangs.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from typing import Final, NoReturn

import structlog

from consumer import wiring
from consumer.adapters.docker import DockerEngine
from consumer.adapters.ledger import SqlLedger
from consumer.adapters.rabbitmq import RabbitMQ
from consumer.api import Api
from consumer.clock import Clock
from consumer.contract import asyncapi
from consumer.dead_letters import DeadLetters
from consumer.decoding import Decoder
from consumer.dispatcher import Dispatcher
from consumer.ending import end_soon, leave, loudly, on_stray_exception, outcome, until_stopped
from consumer.errors import (
    ConsumerError,
    EngineUnavailable,
    LeaseHeld,
    LedgerError,
    LedgerInUse,
    TaskEnded,
)
from consumer.faults import for_ever, unless_lost
from consumer.feed import Feed, Lines
from consumer.intake import Intake
from consumer.lease import Lease
from consumer.metrics import Metrics
from consumer.model import TenantId, authority
from consumer.outbox import Outbox
from consumer.reconciler import Reconciler
from consumer.remembered import REMEMBERED
from consumer.review import review
from consumer.settings import Settings, tracing_variable
from consumer.tracing import UNTRACED, Traces
from consumer.upkeep import Upkeep
from consumer.watcher import OrphanRule, Watcher

_log: Final = structlog.get_logger(__name__)

DISTRIBUTION: Final = "landlord-consumer"
_READY_LOOK_SECONDS: Final = 0.05
_STANDBY_LOOK_SECONDS: Final = 1.0
_CLOCK: Final = Clock()
"""The one of the process: it knows of every time that the wall clock was set since."""
_LIVE_SECONDS: Final = 60.0
"""The pulse beats every few seconds; a minute without one is no hiccup."""
_CLOSE_SECONDS: Final = 5.0
"""After the drain: what then still hangs on the engine or the broker is left to the next start."""


async def serve(settings: Settings) -> int:
    """Run the consumer until it is told to stop; return the exit code.

    While another consumer owns the ledger, or holds the lease of our instance on the engine, it
    stands by. When a task ended unasked it ends the process. Raises ConsumerError when it cannot
    start: a port taken, a name on the broker that has other arguments.
    """
    asyncio.get_running_loop().set_exception_handler(on_stray_exception)
    try:
        return await _serve(settings)
    except TaskEnded:
        leave()  # it was told when it ended
    except ConsumerError:
        raise
    except Exception as error:  # noqa: BLE001 - of a fault of ours only the place is told
        end_soon("start", error)
        leave()


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    wiring.check_provider_config(settings)
    wiring.check_broker_tls(settings)
    for warning in settings.warnings():
        _log.warning("settings", warning=warning)
    async with AsyncExitStack() as stack:
        ledger = await _own_ledger(settings, stop)
        if ledger is None:
            return 0
        stack.push_async_callback(ledger.close)
        if settings.ledger.adopt_on_empty and await ledger.is_empty():
            await ledger.ask_take_over()
        board = await stack.enter_async_context(wiring.docker_board(settings).opened())
        lease = Lease(board=board, holder=await ledger.identity())
        while await _hold_lease(settings, lease, stop):
            try:
                await _serve_leased(settings, ledger, lease, stop)
            except LeaseHeld as error:
                _log.error("lease lost", error=str(error))
            else:
                break
    _log.info("stopped")
    return 0


async def _serve_leased(
    settings: Settings, ledger: SqlLedger, lease: Lease, stop: asyncio.Event
) -> None:
    """Build the parts and run them until told to stop. Raises LeaseHeld when the lease is lost."""
    async with AsyncExitStack() as stack:
        parts = await _build(settings, ledger, lease, stack)
        try:
            await _run(parts, stop, settings.shutdown.drain_seconds)
        except ExceptionGroup as failures:
            raise outcome(failures) from failures
    with suppress(EngineUnavailable):
        await lease.release()


# --- one consumer for a ledger ----------------------------------------------------------------


async def _own_ledger(settings: Settings, stop: asyncio.Event) -> SqlLedger | None:
    """Open the ledger; stand by while another consumer owns it. None when told to stop."""
    try:
        return await SqlLedger.open(settings.ledger.url, clock=_CLOCK)
    except LedgerInUse as error:
        trouble = f"standing by: {error}"
    _log.warning("standing by", ledger=settings.ledger.url)
    async with _standby_api(settings, "ledger", trouble):
        while not await _is_set_within(stop, _STANDBY_LOOK_SECONDS):
            try:
                ledger = await SqlLedger.open(settings.ledger.url, clock=_CLOCK)
            except LedgerInUse:
                continue
            _log.warning("taking over", ledger=settings.ledger.url)
            return ledger
    _log.info("stopped")
    return None


# --- one consumer for an instance on an engine ------------------------------------------------


async def _hold_lease(settings: Settings, lease: Lease, stop: asyncio.Event) -> bool:
    """Take the lease; stand by while another consumer holds it. False when told to stop."""
    try:
        await lease.ensure()
    except LeaseHeld as error:
        return await _stand_by_for_lease(settings, lease, stop, f"standing by: {error}")
    except EngineUnavailable:
        # Tenant events can be taken all the same; before the engine is asked for anything, the
        # lease is.
        return True
    return True


async def _stand_by_for_lease(
    settings: Settings, lease: Lease, stop: asyncio.Event, trouble: str
) -> bool:
    _log.warning("standing by", instance=settings.instance, error=trouble)
    async with _standby_api(settings, "lease", trouble), asyncio.TaskGroup() as group:
        stopping = group.create_task(stop.wait(), name="stop")
        taking = group.create_task(loudly("take over", lease.take_over()), name="take over")
        await asyncio.wait((stopping, taking), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        taking.cancel()
    if stop.is_set():
        return False
    _log.warning("taking over", instance=settings.instance)
    return True


# --- standing by ------------------------------------------------------------------------------


@asynccontextmanager
async def _standby_api(settings: Settings, part: str, trouble: str) -> AsyncIterator[None]:
    """Say over HTTP, for the length of the block, that this consumer lives and is not ready."""
    ledger = _NotOurs(trouble)
    feed = _feed(settings, ledger, lambda: {part: trouble})
    metrics = Metrics(version=version(DISTRIBUTION))
    metrics.standing_by.set(1)
    api = Api(
        ledger=ledger,
        feed=feed,
        tail=ledger.tail,
        metrics=metrics,
        readiness=lambda: {part: trouble},
        observed_at=lambda _: None,
        is_stale=lambda _: True,
        is_live=lambda: True,
        asyncapi=asyncapi(wiring.broker_names(settings), version=version(DISTRIBUTION)),
        token=settings.http.token,
        hosts=wiring.http_hosts(settings),
        limits=wiring.http_limits(),
    )
    async with api.serve(settings.http.host, settings.http.port):
        _tell_listening(settings.http.host, api.bound_port)
        # No group: what the block raises is to come out as it is.
        telling = asyncio.create_task(loudly("feed", for_ever("feed", feed.run())), name="feed")
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait((telling,))


def _feed(
    settings: Settings, ledger: Lines, readiness: Callable[[], Mapping[str, str | None]]
) -> Feed:
    about = {"version": version(DISTRIBUTION), "instance": settings.instance}
    return Feed(ledger=ledger, readiness=readiness, now=_CLOCK.now, about=about)


class _NotOurs:
    """What is read while another consumer does the work: nothing."""

    def __init__(self, trouble: str) -> None:
        self._trouble = trouble

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise LedgerError(self._trouble)

    read = page = history = lines = lines_of = startups = tail = _refuse


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


# --- the parts and their life -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What is joined here."""

    broker: RabbitMQ
    intake: Intake
    dead_letters: DeadLetters
    dispatcher: Dispatcher
    outbox: Outbox
    watcher: Watcher
    upkeep: Upkeep
    feed: Feed
    lease: Lease
    ledger: SqlLedger
    review: Callable[[], Coroutine[object, object, None]]

    def readiness(self) -> Mapping[str, str | None]:
        """Return what keeps each of the outside parts from being used; None where nothing does."""
        return {
            "broker": self.broker.trouble,
            "engine": self.watcher.trouble,
            "ledger": self.upkeep.trouble,
            "dead_letters": self.dead_letters.trouble,
        }


async def _build(
    settings: Settings, ledger: SqlLedger, lease: Lease, stack: AsyncExitStack
) -> _Parts:
    """Build the parts and open what has to be open, in order; the stack closes in reverse."""
    REMEMBERED.limit(wiring.memory_budget(settings).remembered_bytes)
    metrics = Metrics(version=version(DISTRIBUTION))
    admission = wiring.admission(settings)
    traces = await stack.enter_async_context(_tracing())
    docker = wiring.docker_engine(
        settings,
        metrics,
        ledger_id=await ledger.identity(),
        permit=lease.ensure,
        waiting=lambda: dispatcher.waiting(),  # noqa: PLW0108 - it comes below
        traces=traces,
    )
    engine = await stack.enter_async_context(docker.opened())
    broker = wiring.rabbitmq(
        settings, lambda is_up: metrics.broker_up.set(int(is_up)), clock=_CLOCK
    )
    outbox = Outbox(
        ledger=ledger, publisher=traces.publisher(broker), metrics=metrics, clock=_CLOCK
    )
    reconciler = Reconciler(
        ledger=ledger,
        engine=engine,
        metrics=metrics,
        clock=_CLOCK,
        on_commit=outbox.wake,
        rules=wiring.rules(settings),
        backoff=wiring.backoff(settings),
        admits=admission.admits,
        is_stopping_denied=settings.compute.policy.on_tightened == "stop",
    )
    dispatcher = Dispatcher(
        reconcile=traces.reconcile(reconciler.reconcile, ledger.read),
        passes=settings.limits.passes,
    )

    def readiness() -> Mapping[str, str | None]:
        return parts.readiness()

    feed = _feed(settings, ledger, readiness)
    stack.enter_context(ledger.telling(feed.note))
    dead_letters = DeadLetters(
        deliveries=broker,
        publisher=broker,
        metrics=metrics,
        # The other half is for what is being read and recorded meanwhile.
        most_bytes=wiring.memory_budget(settings).in_flight_bytes // 2,
    )
    parts = _Parts(
        broker=broker,
        dead_letters=dead_letters,
        outbox=outbox,
        dispatcher=dispatcher,
        intake=Intake(
            deliveries=broker,
            dead_letter=dead_letters.take,
            ledger=ledger,
            decode=Decoder(traces.decode(admission.admit)).decode,
            wake=dispatcher.wake,
            on_commit=outbox.wake,
            metrics=metrics,
        ),
        watcher=Watcher(
            engine=engine,
            ledger=ledger,
            wake=dispatcher.wake,
            has_seen=reconciler.has_seen,
            metrics=metrics,
            clock=_CLOCK,
            on_facts=admission.learn,
            orphans=OrphanRule(settings.reconcile.orphans),
            times=wiring.watch_times(settings),
        ),
        upkeep=Upkeep(
            ledger=ledger,
            metrics=metrics,
            clock=_CLOCK,
            retention_seconds=settings.ledger.retention_seconds,
        ),
        feed=feed,
        lease=lease,
        ledger=ledger,
        review=partial(review, ledger=ledger, admits=admission.admits, wake=dispatcher.wake),
    )
    await _open_api(settings, stack, parts, _Reading(ledger, engine, metrics, reconciler))
    return parts


@asynccontextmanager
async def _tracing() -> AsyncIterator[Traces]:
    """Trace for the length of the block, if OpenTelemetry's variables ask for it."""
    variable = tracing_variable()
    if variable is None:
        yield UNTRACED
        return
    try:
        # Only here, so that nobody pays for it who does not use it.
        from consumer.adapters.open_telemetry import over_http  # noqa: PLC0415
    except ImportError:
        _log.warning("not tracing", variable=variable, error="opentelemetry is not installed")
        yield UNTRACED
        return
    spans = over_http(version=version(DISTRIBUTION))
    _log.info("tracing", variable=variable)
    try:
        yield Traces(spans)
    finally:
        await asyncio.to_thread(spans.close)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the API reads from."""

    ledger: SqlLedger
    engine: DockerEngine
    metrics: Metrics
    reconciler: Reconciler


async def _open_api(
    settings: Settings, stack: AsyncExitStack, parts: _Parts, reading: _Reading
) -> None:
    def observed_at(tenant_id: TenantId) -> datetime | None:
        looks = (reading.reconciler.observed_at(tenant_id), parts.watcher.resynced_at)
        return min((at for at in looks if at is not None), key=_CLOCK.seconds_since, default=None)

    api = Api(
        ledger=reading.ledger,
        feed=parts.feed,
        tail=reading.engine.tail,
        metrics=reading.metrics,
        readiness=parts.readiness,
        observed_at=observed_at,
        is_stale=lambda _: parts.watcher.trouble is not None,
        is_live=lambda: parts.upkeep.idle_seconds < _LIVE_SECONDS,
        asyncapi=asyncapi(wiring.broker_names(settings), version=version(DISTRIBUTION)),
        token=settings.http.token,
        hosts=wiring.http_hosts(settings),
        limits=wiring.http_limits(),
    )
    await stack.enter_async_context(api.serve(settings.http.host, settings.http.port))
    _tell_listening(settings.http.host, api.bound_port)


def _tell_listening(host: str, port: int) -> None:
    _log.info("listening", http_host=host, http_port=port, url=f"http://{authority(host, port)}")


async def _run(parts: _Parts, stop: asyncio.Event, drain_seconds: float) -> None:
    async with asyncio.TaskGroup() as group:

        def start(name: str, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
            return group.create_task(loudly(name, for_ever(name, coroutine)), name=name)

        tasks = [
            start("broker", parts.broker.run()),
            start("watcher", parts.watcher.run()),
            start("dispatcher", parts.dispatcher.run()),
            start("outbox", parts.outbox.run()),
            start("dead letters", parts.dead_letters.run()),
            start("upkeep", parts.upkeep.run()),
            start("feed", parts.feed.run()),
            start("lease", parts.lease.keep()),
            start("ledger writer", parts.ledger.watch_writer()),
        ]
        taking = until_stopped("intake", parts.intake.run(), stop)
        intake = group.create_task(loudly("intake", taking), name="intake")

        def start_once(name: str, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
            return group.create_task(loudly(name, unless_lost(name, coroutine)), name=name)

        announcing = start_once("ready", _announce_ready(parts))
        reviewing = start_once("policy review", parts.review())
        await stop.wait()
        announcing.cancel()
        reviewing.cancel()
        await _drain(parts, intake, drain_seconds)
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, _leave_behind)
        for task in (intake, *tasks):
            task.cancel()


async def _announce_ready(parts: _Parts) -> None:
    # Readiness is made of three parts' states; an event in each would only serve this line.
    while any(parts.readiness().values()):  # noqa: ASYNC110 - see above
        await asyncio.sleep(_READY_LOOK_SECONDS)
    _log.info("ready")


async def _drain(parts: _Parts, intake: asyncio.Task[None], drain_seconds: float) -> None:
    """Stop taking, settle what was taken, let passes finish, flush the outbox."""
    _log.info("draining", seconds=drain_seconds)
    deadline = asyncio.get_running_loop().time() + drain_seconds

    async def by_the_deadline(step: str, awaitable: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await awaitable
        except TimeoutError:
            _log.warning("drain deadline passed", step=step)

    await by_the_deadline("stop taking", parts.broker.stop_taking())
    await by_the_deadline("intake", asyncio.wait((intake,)))
    await by_the_deadline("dead letters", parts.dead_letters.drain())
    await by_the_deadline("passes", parts.dispatcher.drain())
    await by_the_deadline("outbox", parts.outbox.drain())


def _leave_behind() -> None:
    """End the process though something hangs: a kill at any instant loses nothing."""
    _log.warning("stopped, leaving behind what hangs")
    os._exit(0)


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` at the first SIGTERM or SIGINT, exit at once at the second."""

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
