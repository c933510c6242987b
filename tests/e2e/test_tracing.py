"""A tenant event, the passes for it, their requests and the status are one trace, sent by OTLP."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from typing_extensions import override

from deploy.lab.servers import Broker, DockerHost, free_port
from tests.e2e.world import World, make_document, own_world, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDER = "00f067aa0ba902b7"
PATIENT = {"start_period_seconds": 300}


class Collector:
    """What was sent to an OTLP receiver: spans, and who sent them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        """Keep what one request has."""
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for sent in request.resource_spans:
            for attribute in sent.resource.attributes:
                if attribute.key == "service.name":
                    self.services.add(attribute.value.string_value)
            for scope in sent.scope_spans:
                self.spans.extend(scope.spans)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def receiver(collector: Collector) -> Iterator[str]:
    """Take OTLP over HTTP for the length of the block; give the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, name="otlp")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def collector() -> Collector:
    """Give what is sent."""
    return Collector()


@pytest.fixture
async def world(
    collector: Collector,
    broker: Broker,
    docker_host: DockerHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    """Give a consumer that is told by OpenTelemetry's own variables where traces go."""
    with receiver(collector) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "landlord-of-the-test")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        async with own_world(broker, docker_host, tmp_path) as around:
            yield around


async def test_event_pass_request_and_status_are_one_trace(
    world: World, collector: Collector
) -> None:
    """Each span is below the one that caused it, and the status event carries the trace on."""
    await world.publisher.publish(
        "created",
        make_document("traced"),
        headers={"traceparent": f"00-{TRACE}-{SENDER}-01"},
    )
    heard = await world.subscriber.expect_message("traced", state="running")
    await until(lambda: bool(collector.named("send tenant.status.running")), seconds=60)
    code = await asyncio.to_thread(world.consumer.terminate)

    (receipt,) = collector.named("receive tenant.created")
    (sent,) = collector.named("send tenant.status.running")
    passes = {span.span_id for span in collector.named("pass")}
    starts = collector.named("engine start")
    assert code == 0
    assert collector.services == {"landlord-of-the-test"}
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert receipt.parent_span_id.hex() == SENDER
    assert {span.parent_span_id for span in collector.named("pass")} == {receipt.span_id}
    assert starts
    assert {span.parent_span_id for span in starts} <= passes
    assert sent.parent_span_id == receipt.span_id
    assert heard.message.headers["traceparent"] == f"00-{TRACE}-{sent.span_id.hex()}-01"


async def test_a_trace_goes_on_after_a_kill(world: World, collector: Collector) -> None:
    """What was recorded before a `kill -9` is answered in the same trace by the next process."""
    # Healthy, and so running, once the test says so; until then failures do not count.
    check = {"test": ["CMD", "test", "-e", "/go"], "interval_seconds": 1, **PATIENT}
    await world.publisher.publish(
        "created",
        make_document("survivor", container={"healthcheck": check}),
        headers={"traceparent": f"00-{TRACE}-{SENDER}-01"},
    )
    await until(lambda: bool(world.containers("survivor")), seconds=60)

    await asyncio.to_thread(world.consumer.restart)
    await until(lambda: world.serves("survivor"), seconds=60)
    world.docker.run("exec", world.container("survivor"), "touch", "/go")
    heard = await world.subscriber.expect_message("survivor", state="running", timeout=60)

    traceparent = str(heard.message.headers["traceparent"])
    await until(lambda: bool(collector.named("send tenant.status.running")), seconds=60)
    (sent,) = collector.named("send tenant.status.running")
    assert traceparent == f"00-{TRACE}-{sent.span_id.hex()}-01"


async def test_a_collector_that_is_away_holds_up_nothing(
    broker: Broker, docker_host: DockerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tenants start, and the consumer stops in order, though nobody takes its spans."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    async with own_world(broker, docker_host, tmp_path) as world:
        await world.run_tenant("untold")
        code = await asyncio.to_thread(world.consumer.terminate)

    assert code == 0
