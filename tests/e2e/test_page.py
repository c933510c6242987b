"""The operator's page in a real browser: of a real consumer, and on a stage where anything can be.

One browser serves the module; each test has tenants of its own.
"""

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import pytest

from consumer.errors import EngineUnavailable
from consumer.model import Health, Reason, Setback, State
from tests.browser import Browser, chromium
from tests.e2e.world import World, make_document
from tests.stage import Stage, now, status_of

SOON_SECONDS: Final = 2.0
HOSTILE: Final = '<img src=x onerror="window.hurt = 1"><script>window.hurt = 2</script>'
DASH: Final = "\u2013"
CROWD: Final = 10_000
TOKEN: Final = "s\u00e9same, open"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run a browser."""
    with chromium(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Serve the page of no tenants yet."""
    with Stage(tmp_path_factory.mktemp("stage")).up() as running:
        yield running


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Serve the page of 10,000 tenants, to those who have the token."""
    with Stage(tmp_path_factory.mktemp("crowd"), token=TOKEN).up() as running:
        running.crowd(CROWD)
        yield running


@pytest.fixture
def window(browser: Browser) -> Iterator[Browser]:
    """Give the browser in its usual size; in the end it must have nothing to complain of."""
    browser.resize(1280, 900)
    browser.complaints()
    yield browser
    told = [line for line in browser.complaints() if "Failed to load resource" not in line]
    assert told == []


def row(tenant_id: str) -> str:
    """Return the selector of the tenant's row."""
    return f'#rows tr:has(a[title="{tenant_id}"])'


def shows(window: Browser, tenant_id: str, *words: str) -> bool:
    """Whether the tenant's row has these words."""
    text = window.text(row(tenant_id))
    return bool(text) and all(word in text for word in words)


def open_list(window: Browser, stage: Stage) -> None:
    window.open(stage.url)
    window.until(lambda: window.text("#link") == "live" and "…" not in window.text("#counts"))


# --- a real consumer --------------------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.rabbitmq
async def test_a_failure_is_shown_within_two_seconds(world: World, window: Browser) -> None:
    """A tenant appears by itself; when its container dies, the open page says so, and why."""
    await asyncio.to_thread(window.open, f"http://127.0.0.1:{world.consumer.http_port}/")
    took: list[float] = []
    # A machine that is busy elsewhere may be late once.
    while not took or (min(took) > SOON_SECONDS and len(took) < 3):
        took.append(await live_and_die(world, window, f"dying-{len(took)}"))
    assert min(took) < SOON_SECONDS

    tenant = f"dying-{len(took) - 1}"
    await asyncio.to_thread(look_at_tenant, window, tenant)
    newest, oldest = window.texts("#history tr")
    assert "failed" in newest
    assert "started" in oldest
    assert "no database for ***" in window.text("#tenant-message")
    assert window.text("#log") == "no database for ***"
    assert "hidden-name" not in window.text("body")
    facts = dict(zip(window.texts("#facts dt"), window.texts("#facts dd"), strict=True))
    assert (facts["Wanted"], facts["Exit code"]) == ("running", "3")
    assert facts["Container"] == world.container(tenant)
    await asyncio.to_thread(window.until, lambda: window.text("#starts") != "0")


async def live_and_die(world: World, window: Browser, tenant: str) -> float:
    """Have a tenant run and fail; return how many seconds later the open page shows it."""
    dying = "while [ ! -e /end ]; do sleep 0.05; done; echo no database for $NAME; exit 3"
    document = make_document(
        tenant,
        container={"command": ["/bin/sh", "-c", dying], "env": {"NAME": "hidden-name"}},
        provider_config={"restart_policy": "no"},
    )
    await world.publisher.create(document)
    await asyncio.to_thread(window.until, lambda: shows(window, tenant, "running"))
    note_when_shown(window, tenant)
    await asyncio.to_thread(world.docker.run, "exec", world.container(tenant), "touch", "/end")
    shown_at = await asyncio.to_thread(
        window.until, lambda: window.evaluate("return window.failedAt")
    )
    assert shows(window, tenant, "failed", "exited")
    status = await world.subscriber.expect(tenant, state="failed")
    container = status["container"]
    assert isinstance(container, dict)
    ended_at = datetime.fromisoformat(container["finished_at"])
    return float(str(shown_at)) / 1000 - ended_at.timestamp()


def look_at_tenant(window: Browser, tenant: str) -> None:
    window.click(f"{row(tenant)} a")
    window.until(lambda: len(window.texts("#history tr")) == 2)
    window.until(lambda: "no database" in window.text("#log"))


def note_when_shown(window: Browser, tenant_id: str) -> None:
    """Have the page itself note when it shows that the tenant has failed."""
    window.evaluate(
        """
        window.failedAt = 0;
        const note = () => {
          if (document.querySelector(arguments[0])) window.failedAt ||= Date.now();
        };
        new MutationObserver(note).observe(document.body, {
          subtree: true, childList: true, attributes: true,
        });
        """,
        f'{row(tenant_id)} .state[data-state="failed"]',
    )


# --- what is shown ----------------------------------------------------------------------------


def test_what_happens_is_shown_without_a_reload(window: Browser, stage: Stage) -> None:
    """A line has what its tenant's status tells; it comes, changes and goes by itself."""
    open_list(window, stage)
    before = int(window.text("#counts b"))

    stage.want("lively")
    window.until(lambda: shows(window, "lively", "pending", "nginx:alpine"))
    assert int(window.text("#counts b")) == before + 1

    stage.tell(
        status_of(
            "lively",
            image="registry.example.com/team/app:7",
            health=Health.HEALTHY,
            restart_count=1234,
            startup_seconds=0.25,
        )
    )
    window.until(lambda: shows(window, "lively", "running", "started", "app:7", "8080→80"))
    assert shows(window, "lively", "healthy", "1,234", "s ago")

    stage.tell(
        status_of("lively", State.FAILED, Reason.PORT_CONFLICT, message="8080 is held by other"),
        setback=Setback(2, Reason.PORT_CONFLICT, "", now().replace(year=2100)),
    )
    window.until(lambda: shows(window, "lively", "failed", "port_conflict", "held by other"))
    assert shows(window, "lively", "in ", "days")
    window.until(lambda: window.text("#starts") != "0")
    assert window.text("#p50") == "0.25 s"

    stage.delete("lively")
    window.until(lambda: not window.sees(row("lively")))
    assert int(window.text("#counts b")) == before


def test_what_a_tenant_wrote_is_only_text(window: Browser, stage: Stage) -> None:
    """Nothing of it becomes a part of the page: not in a line, a message, a port or a log."""
    stage.log = HOSTILE
    stage.tell(
        status_of("hostile", State.FAILED, Reason.EXITED, message=HOSTILE, image=f"x/{HOSTILE}:1")
    )
    open_list(window, stage)
    window.until(lambda: shows(window, "hostile", HOSTILE))
    window.click(f"{row('hostile')} a")
    window.until(lambda: window.text("#log") == HOSTILE)

    assert window.text("#tenant-message") == HOSTILE
    assert HOSTILE in window.text("#facts")
    assert HOSTILE in window.text("#history")
    assert window.evaluate("return [window.hurt ?? 0, document.images.length]") == [0, 0]


def test_the_history_goes_on_while_it_is_looked_at(window: Browser, stage: Stage) -> None:
    """A tenant's page is as live as the list."""
    stage.log = "first"
    stage.tell(status_of("watched"))
    window.open(f"{stage.url}#/tenants/watched")
    window.until(lambda: len(window.texts("#history tr")) == 1 and window.text("#log") == "first")

    stage.log = "last"
    stage.tell(status_of("watched", State.FAILED, Reason.OOM_KILLED, message="out of memory"))

    window.until(lambda: len(window.texts("#history tr")) == 2)
    window.until(lambda: "oom_killed" in window.text(".lead") and window.text("#log") == "last")
    assert window.text("#tenant-message") == "out of memory"


def test_an_unknown_tenant_is_told_as_such(window: Browser, stage: Stage) -> None:
    """The address may be of one that was deleted long ago."""
    window.open(f"{stage.url}#/tenants/nobody")

    window.until(lambda: "No such tenant" in window.text("#tenant-fault"))


# --- trouble ----------------------------------------------------------------------------------


def test_a_lost_consumer_is_told_and_found_again(window: Browser, stage: Stage) -> None:
    """What is shown is not shown as fresh; once the consumer is back, neither is it missing."""
    stage.tell(status_of("steady"))
    open_list(window, stage)
    window.until(lambda: shows(window, "steady", "running"))

    stage.end()
    window.until(lambda: "not heard" in window.text("#alarms"))
    assert window.text("#link") == "not live"
    assert window.evaluate("return document.body.classList.contains('stale')")
    assert shows(window, "steady", "running")

    stage.serve()
    stage.tell(status_of("steady", State.STOPPED, Reason.SUSPENDED))
    window.until(lambda: shows(window, "steady", "stopped", "suspended"))
    assert window.text("#alarms") == ""
    assert not window.evaluate("return document.body.classList.contains('stale')")


def test_a_page_that_nobody_looks_at_lets_go(window: Browser, stage: Stage) -> None:
    """The browser keeps a page that was left; shown again, it is live again."""
    stage.tell(status_of("kept"))
    open_list(window, stage)

    window.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide'))")
    window.until(lambda: "in the background" in window.text("#alarms"))
    window.until(lambda: window.evaluate("return feed.isAsleep"))
    stage.tell(status_of("kept", State.FAILED, Reason.EXITED))
    window.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")

    window.until(lambda: shows(window, "kept", "failed") and window.text("#link") == "live")


def test_an_engine_that_is_away_is_told(window: Browser, stage: Stage) -> None:
    """States are those last seen; of a log it is said that the engine does not give it."""
    stage.tell(status_of("unseen"))
    stage.log = "lines of before"
    window.open(f"{stage.url}#/tenants/unseen")
    window.until(lambda: window.text("#log") == "lines of before")
    try:
        stage.troubles["engine"] = "nothing listens"
        stage.log = EngineUnavailable("nothing listens there")
        window.click("#read-log")
        window.until(lambda: "nothing listens there" in window.text("#log-note"))
        assert not window.sees("#log")
        window.until(lambda: "as they were last seen: nothing listens" in window.text("#alarms"))
        assert window.evaluate("return document.body.classList.contains('stale')")
        assert "engine down" in window.text("#parts").replace("\n", " ")
        assert window.text(".lead").startswith("running")

        stage.hangs = True
        window.click("#read-log")
        window.until(lambda: "no answer" in window.text("#log-note"))
    finally:
        stage.troubles["engine"], stage.hangs, stage.log = None, False, None
    window.until(lambda: window.text("#alarms") == "")


# --- many -------------------------------------------------------------------------------------


def sign_in(window: Browser, stage: Stage, token: str = TOKEN) -> None:
    window.until(lambda: window.sees("#token"))
    window.write("#token", token)
    window.press("ENTER")


def test_the_token_opens(window: Browser, crowd: Stage) -> None:
    """Without it there is nothing but the question for it; it is asked for once."""
    window.open(crowd.url)
    sign_in(window, crowd, "wrong")
    window.until(lambda: "not the token" in window.text("#sign-in-fault"))
    assert "tenant-" not in window.text("body")

    sign_in(window, crowd)
    window.until(lambda: window.sees("#rows a"))
    window.reload()
    window.until(lambda: window.sees("#rows a"))
    assert not window.sees("#sign-in")


def test_ten_thousand_are_found_by_state_and_words(window: Browser, crowd: Stage) -> None:
    """They come quickly, a hundred at a time; what is chosen stays in the address."""
    window.open(crowd.url)
    window.until(lambda: window.sees("#rows a") or window.sees("#token"))
    if window.sees("#token"):
        sign_in(window, crowd)
    began = time.monotonic()
    window.until(lambda: window.text("#counts b") == "10,000")
    assert time.monotonic() - began < 15  # a second, where nothing else keeps the machine busy
    assert len(window.texts("#rows tr")) == 100
    assert window.texts("#rows .state")[0] == "failed"
    assert window.text("#place") == f"1{DASH}100 of 10,000"

    window.click("#on")
    window.until(lambda: window.text("#place") == f"101{DASH}200 of 10,000")
    window.click('#counts [data-state="failed"]')
    window.until(lambda: window.text("#found") == "200 of 10,000 tenants")
    window.write("#wanted", "SHOP 03")
    window.until(lambda: window.text("#found").startswith("11 of"))
    chosen = window.texts("#rows a")
    assert chosen == sorted(name for name in chosen if "03" in name)
    assert set(window.texts("#rows td:nth-child(5) span")) == {"web:2.4.1"}

    window.reload()
    window.until(lambda: window.texts("#rows a") == chosen)
    window.write("#wanted", "nothing is like that")
    window.until(lambda: window.text("#empty") == "No tenant is like that.")
    assert window.texts("#rows tr") == []

    window.open(f"{crowd.url}#/?sort=since")
    window.until(lambda: window.text("#counts b") == "10,000")
    since = window.evaluate(
        "return [...document.querySelectorAll('#rows time')].map((time) => time.dateTime)"
    )
    assert isinstance(since, list)
    assert since == sorted(since, reverse=True)


# --- everybody --------------------------------------------------------------------------------


def test_it_can_be_used_by_keyboard(window: Browser, stage: Stage) -> None:
    """Search, go from row to row, open one and come back to where one was."""
    for name in ("key-one", "key-two"):
        stage.tell(status_of(name))
    open_list(window, stage)
    window.until(lambda: window.sees(row("key-two")))

    window.press("/")
    assert window.focused == "wanted"
    window.press(*"key-")
    window.until(lambda: window.texts("#rows a") == ["key-one", "key-two"])
    while window.focused != "key-one":
        window.press("TAB")
        assert window.focused != "BODY"
    window.press("ARROW_DOWN")
    assert window.focused == "key-two"
    stage.tell(status_of("key-two", State.FAILED, Reason.EXITED))  # it moves to the first place
    window.until(lambda: window.texts("#rows a") == ["key-two", "key-one"])
    assert window.focused == "key-two"
    window.press("ENTER")
    window.until(lambda: window.text("#tenant-title") == "key-two")
    assert window.focused == "tenant-title"
    window.press("ESCAPE")
    window.until(lambda: window.focused == "key-two")
    assert window.texts("#rows a") == ["key-two", "key-one"]


def test_everything_has_a_name_for_those_who_hear_it(window: Browser, stage: Stage) -> None:
    """Whatever can be used says what it is; the table is one for those who hear it, too."""
    stage.tell(status_of("heard"))
    open_list(window, stage)
    window.until(lambda: window.sees(row("heard")))
    on_list = window.roles()
    window.click(f"{row('heard')} a")
    window.until(lambda: window.sees("#facts div"))
    on_tenant = window.roles()

    for role, name in (*on_list, *on_tenant):
        if role in {"button", "link", "searchbox", "textbox", "combobox", "table", "columnheader"}:
            assert name, role
    assert ("searchbox", "Search by tenant, image, reason or message") in on_list
    assert ("table", "Tenants") in on_list
    assert ("columnheader", "State") in on_list
    assert ("link", "heard") in on_list
    assert ("heading", "heard") in on_tenant
    assert ("table", "History") in on_tenant


@pytest.mark.parametrize("is_dark", [False, True])
def test_it_fits_a_phone_by_day_and_by_night(window: Browser, stage: Stage, is_dark: bool) -> None:
    """Nothing is wider than the window, and the words stand out from what is behind them."""
    stage.tell(
        status_of(
            "narrow-" + "x" * 100,
            State.FAILED,
            Reason.EXITED,
            message="w" * 180,
            image="registry.example.com/" + "y" * 100,
        )
    )
    window.resize(360, 740, is_dark=is_dark)
    open_list(window, stage)
    window.until(lambda: window.sees("#rows tr"))
    assert window.evaluate("return document.documentElement.scrollWidth <= 360")
    assert window.contrast("#rows small") > 4.5
    assert window.contrast("#rows .state") > 4.5
    window.click(f"{row('narrow-' + 'x' * 100)} a")
    window.until(lambda: window.sees("#facts div"))
    assert window.evaluate("return document.documentElement.scrollWidth <= 360")
    assert window.contrast("#facts dt") > 4.5
