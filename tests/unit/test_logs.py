"""What a log line looks like, and what never gets into one."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
import structlog
from typing_extensions import override

from consumer.logs import configure


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Give logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for name in ("aio_pika", "aiormq", "aiodocker", "aiohttp", "asyncio", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def written(
    *, level: str = "info", form: str = "json", to: io.StringIO | None = None
) -> io.StringIO:
    """Set up logging with standard error in memory; return what will be written to it."""
    stream = to if to is not None else io.StringIO()
    with redirect_stderr(stream):
        configure(level=level, form=form)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Return the JSON lines written."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("form", ["json", "auto"])
def test_a_line_is_json_where_there_is_no_terminal(form: str) -> None:
    """A log line is one JSON object with phrase, level, UTC time and the keys given."""
    stderr = written(form=form)

    structlog.get_logger("any").info("tenant event recorded", tenant_id="acme", generation=3)

    (line,) = lines(stderr)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "tenant event recorded",
        "level": "info",
        "tenant_id": "acme",
        "generation": 3,
    }


def test_a_line_is_text_where_it_was_asked_for() -> None:
    """Text is written without colours into what is no terminal."""
    stderr = written(form="text")

    structlog.get_logger("any").info("ready", tenant_id="acme")

    assert "ready" in stderr.getvalue()
    assert "tenant_id=acme" in stderr.getvalue()
    assert "\x1b" not in stderr.getvalue()


def test_a_line_is_coloured_text_on_a_terminal() -> None:
    """A terminal gets text with colours without being asked."""
    terminal = written(form="auto", to=Terminal())

    structlog.get_logger("any").info("ready")

    assert "ready" in terminal.getvalue()
    assert "\x1b" in terminal.getvalue()


def test_a_terminal_gets_json_where_it_was_asked_for() -> None:
    """JSON asked for is JSON, terminal or not."""
    terminal = written(to=Terminal())

    structlog.get_logger("any").info("ready")

    assert lines(terminal)[0]["event"] == "ready"


def test_what_is_below_the_level_is_not_written() -> None:
    """The level holds for us and for libraries alike."""
    stderr = written(level="warning")

    structlog.get_logger("any").info("ours, below")
    structlog.get_logger("any").warning("ours")
    logging.getLogger("library").info("theirs, below")
    logging.getLogger("library").warning("theirs")

    assert [line["event"] for line in lines(stderr)] == ["ours", "theirs"]


def test_a_talkative_library_is_held_to_warnings() -> None:
    """What the clients log below a warning is left out even at debug."""
    stderr = written(level="debug")

    logging.getLogger("aiodocker.events").info("chatter")
    logging.getLogger("aiodocker.events").warning("worth knowing")

    assert [line["event"] for line in lines(stderr)] == ["worth knowing"]


def test_the_broker_client_does_not_log_every_try() -> None:
    """That the broker is away is ours to tell, once; its client would at every try."""
    stderr = written(level="debug")

    logging.getLogger("aiormq.connection").error("error when creating transport")

    assert lines(stderr) == []


@pytest.mark.filterwarnings("default")
def test_a_warning_of_a_library_is_a_log_line() -> None:
    """Python's own warnings come as lines of the log, not between them."""
    stderr = written(level="info")

    warnings.warn("look out", RuntimeWarning, stacklevel=1)

    assert ["look out" in str(line["event"]) for line in lines(stderr)] == [True]


def test_a_talkative_library_is_no_louder_than_the_level() -> None:
    """At error, the clients' warnings are left out too."""
    stderr = written(level="error")

    logging.getLogger("aiodocker").warning("chatter")

    assert lines(stderr) == []


def test_context_is_on_every_line() -> None:
    """What is bound to the context is on our lines and on those of libraries."""
    stderr = written()
    structlog.contextvars.bind_contextvars(tenant_id="acme")

    structlog.get_logger("any").info("ours")
    logging.getLogger("library").info("theirs")

    assert [line["tenant_id"] for line in lines(stderr)] == ["acme", "acme"]


def test_configuring_again_does_not_double_lines() -> None:
    """A second set-up takes the place of the first."""
    before, stderr = written(), written()

    structlog.get_logger("any").info("once")

    assert before.getvalue() == ""
    assert [line["event"] for line in lines(stderr)] == ["once"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_is_written_with_its_traceback(form: str) -> None:
    """A failure is told with its traceback."""
    stderr = written(form=form)

    try:
        fail(ValueError("no such thing"))
    except ValueError:
        structlog.get_logger("any").exception("pass failed")

    assert "pass failed" in stderr.getvalue()
    assert "Traceback" in stderr.getvalue()
    assert "ValueError: no such thing" in stderr.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_does_not_show_what_variables_held(form: str) -> None:
    """Local variables of the failing frame are in no log: they may hold a tenant's environment."""
    stderr = written(form=form)
    env = {"TOKEN": "s3cret"}

    try:
        fail(ValueError(len(env)))
    except ValueError:
        structlog.get_logger("any").exception("pass failed")

    assert "s3cret" not in stderr.getvalue()


@pytest.mark.parametrize("value", ["\x1b[2J\n2026 [info] forged", ["\x1b[2J\n"], {"\x1b[2J\n": 1}])
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_value_rewrites_the_terminal(form: str, value: object) -> None:
    """Control characters are written out, and a value is no line of its own."""
    stderr = written(form=form)

    structlog.get_logger("any").info("recorded", event_id=value, **{"key\x1b": 1})
    logging.getLogger("library").warning("got %s", "\x1b[2J")

    assert "\x1b" not in stderr.getvalue()
    assert len(stderr.getvalue().splitlines()) == 2
    assert "2J" in stderr.getvalue()


class Address:
    """Something that shows its URL when it is printed."""

    @override
    def __repr__(self) -> str:
        return "Address(amqp://landlord:s3cret@broker/)"


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("amqp://landlord:s3cret@broker:5672/", id="the value"),
        pytest.param("cannot reach amqps://landlord:s3cret@broker", id="in a sentence"),
        pytest.param("postgresql+psycopg://landlord:s3cret@db/landlord", id="with a driver"),
        pytest.param("redis://:s3cret@cache/0", id="without a user"),
        pytest.param("amqp://landlord:at@s3cret@broker/", id="with an at sign in it"),
        pytest.param("amqp://a:s3cret@one/ amqp://b:s3cret@two/", id="two URLs"),
        pytest.param({"broker": ["amqp://landlord:s3cret@broker/"]}, id="inside a map"),
        pytest.param(Address(), id="shown by an object"),
    ],
)
def test_the_password_of_a_url_is_masked(value: object, form: str) -> None:
    """A URL is written without its password wherever it stands in a line."""
    stderr = written(form=form)

    structlog.get_logger("any").info("connected", url=value)

    assert "s3cret" not in stderr.getvalue()
    assert ":***@" in stderr.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_library_cannot_tell_a_password(form: str) -> None:
    """What libraries log is masked as well, with its arguments and its traceback."""
    stderr = written(form=form)

    url = "amqp://landlord:s3cret@broker/"
    try:
        fail(OSError(url))
    except OSError:
        logging.getLogger("library").exception("lost %s", url)

    assert "s3cret" not in stderr.getvalue()
    assert stderr.getvalue().count(":***@") == 2


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("amqp://broker:5672/", id="port"),
        pytest.param("https://registry:5000/v2/app@sha256:0a", id="digest after a port"),
        pytest.param("https://user@host/", id="user alone"),
    ],
)
def test_a_url_without_password_is_left_alone(url: str) -> None:
    """A URL that holds no password is written as it is."""
    stderr = written()

    structlog.get_logger("any").info("asked", url=url)

    assert lines(stderr)[0]["url"] == url


@pytest.mark.timeout(10)
def test_a_long_value_is_written_in_no_time() -> None:
    """The search for passwords takes time by the length of a line, not by its square."""
    stderr = written()

    structlog.get_logger("any").info("refused", field="a" * 300_000)

    assert lines(stderr)[0]["field"] == "a" * 300_000
