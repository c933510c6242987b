"""Spans by OpenTelemetry, sent by OTLP over HTTP; set up by its own variables (`OTEL_…`).

Imported only when it is asked for. Spans leave in a thread of the library's own: no pass waits for
them, and where nobody takes them they are dropped.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from consumer.tracing import Side, Spans

_NAME: Final = "landlord-consumer"
_KINDS: Final = {
    Side.RECEIVES: SpanKind.CONSUMER,
    Side.WITHIN: SpanKind.INTERNAL,
    Side.SENDS: SpanKind.PRODUCER,
}
_W3C: Final = TraceContextTextMapPropagator()


class OpenTelemetry(Spans):
    """Where spans go: a provider of our own, never the library's global one."""

    def __init__(self, processor: SpanProcessor, *, version: str) -> None:
        ours = Resource({"service.name": _NAME, "service.version": version})
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_NAME, version)

    @override
    @contextmanager
    def span(
        self, name: str, *, side: Side, parent: str | None, **attributes: str
    ) -> Iterator[str | None]:
        # Never below a span of this task: what is told later has its parent in the ledger.
        above = _W3C.extract({"traceparent": parent} if parent else {}, Context())
        with self._tracer.start_as_current_span(
            name, above, kind=_KINDS[side], attributes=_ours(attributes)
        ):
            carrier: dict[str, str] = {}
            _W3C.inject(carrier)
            yield carrier.get("traceparent")

    @override
    def past(self, name: str, seconds: float, **attributes: str) -> None:
        if not trace.get_current_span().is_recording():
            return
        ended = time.time_ns()
        began = ended - int(seconds * 1e9)
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=_ours(attributes), start_time=began
        )
        span.end(ended)

    def close(self) -> None:
        """Send what is left. May take as long as the exporter's own deadline."""
        self._provider.shutdown()


def over_http(*, version: str) -> OpenTelemetry:
    """Return spans that go where `OTEL_EXPORTER_OTLP_…` says."""
    return OpenTelemetry(BatchSpanProcessor(OTLPSpanExporter()), version=version)


def _ours(attributes: dict[str, str]) -> dict[str, str]:
    return {f"landlord.{name}": value for name, value in attributes.items() if value}
