"""Structured logs: a constant event phrase and keys, one line for each change of state.

Text on a terminal, JSON otherwise, always to stderr. What libraries log goes the same way. The
password of a URL never passes, whoever logs it. Set up once, by the command line.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Final

import structlog
from structlog.typing import Processor

_CREDENTIALS: Final = re.compile(r"(\w+://[^:@/\s]*):[^@/\s]+@")
_TALKATIVE: Final = ("aio_pika", "aiormq", "aiodocker", "aiohttp", "asyncio", "sqlalchemy")


def configure(*, level: str, form: str) -> None:
    """Set up logging for the process. `form` is auto, text or json."""
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask,
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(is_text=is_text),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _renderers(*, is_text: bool) -> list[Processor]:
    if is_text:
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _mask(
    _logger: object, _method: str, event_dict: MutableMapping[str, object]
) -> Mapping[str, object]:
    for key, value in event_dict.items():
        if isinstance(value, str) and "://" in value:
            event_dict[key] = _CREDENTIALS.sub(r"\1:***@", value)
    return event_dict
