"""Structured logs: a constant event phrase and keys, one line for each change of state.

Text on a terminal, JSON otherwise, always to stderr. What libraries log goes the same way. The
password of a URL never passes, whoever logs it. A line that comes again and again is folded into
one with a count. Set up once, by the command line.
"""

import logging
import re
import sys
from typing import Final

import structlog
from structlog.typing import EventDict, Processor

from consumer.folding import FoldingHandler
from consumer.harmless import harmless, in_one_line

_CREDENTIALS: Final = re.compile(r"(://[^:@/\s]*):[^/\s]+@")
_OF_LINES: Final = frozenset({"event", "exception", "stack"})
_PLAIN: Final = (bool, int, float, type(None))
_TALKATIVE: Final = ("aiodocker", "aiohttp", "asyncio", "sqlalchemy")
_REPETITIVE: Final = ("aio_pika", "aiormq")
"""They log every try of a broker that is away; we tell of its loss and its return, once each."""


def configure(*, level: str, form: str) -> None:
    """Set up logging for the process. `form` is auto, text or json."""
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = FoldingHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *((_as_harmless,) if is_text else ()),
                _renderer(is_text=is_text),
                _mask,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in _REPETITIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)


def _as_harmless(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Write out control characters: who reads text may read it on a terminal. JSON does by itself.

    Line ends are kept in what is of several lines, tracebacks and the words of libraries.
    """
    return {
        in_one_line(key): _harmless_value(value, has_lines=key in _OF_LINES)
        for key, value in line.items()
    }


def _harmless_value(value: object, *, has_lines: bool) -> object:
    if isinstance(value, str):
        return harmless(value) if has_lines else in_one_line(value)
    return value if isinstance(value, _PLAIN) else in_one_line(repr(value))


def _renderer(*, is_text: bool) -> Processor:
    if is_text:
        # The default would print local variables with a traceback, and so tenants' environments.
        return structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.processors.JSONRenderer()


def _mask(_logger: object, _method: str, line: object) -> str:
    """Take passwords out of the finished line: then nothing in it can have hidden one."""
    return _CREDENTIALS.sub(r"\1:***@", str(line))
