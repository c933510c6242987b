"""Pictures of the operator's page, to be looked at: `python -m tests.pictures FOLDER`.

The one called `page.png` is that of the README.
"""

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from consumer.model import Health, Reason, Setback, State
from tests.browser import Browser, chromium
from tests.stage import Stage, now, status_of

_WIDE = (1280, 860)
_FOR_README = (1280, 775)
_PHONE = (390, 844)


def twelve(stage: Stage) -> None:
    """Have twelve tenants, some in trouble."""
    for number, name in enumerate(("acme-corp", "blue-bakery", "cedar-clinic", "delta-freight")):
        told = now() - timedelta(hours=3 * number + 1)
        stage.tell(
            status_of(
                name,
                occurred_at=told,
                startup_seconds=0.31 + number / 9,
                host_port=8080 + number,
                health=(Health.NONE, Health.HEALTHY)[number % 2],
            )
        )
    stage.tell(
        status_of(
            "evergreen-school",
            reason=Reason.RESTARTED,
            occurred_at=now() - timedelta(minutes=6),
            image="registry.example.com/school/portal:2026.11",
            host_port=8090,
            restart_count=2,
        ),
        status_of(
            "fjord-travel",
            reason=Reason.UPDATED,
            occurred_at=now() - timedelta(minutes=48),
            startup_seconds=2.4,
            image="registry.example.com/travel/booking:4.1.0",
            host_port=8091,
        ),
        status_of(
            "granite-works",
            State.STOPPED,
            Reason.SUSPENDED,
            message="suspended: the container is stopped and kept",
            occurred_at=now() - timedelta(days=4),
        ),
    )
    stage.tell(
        status_of(
            "harbour-museum",
            State.FAILED,
            Reason.IMAGE_NOT_FOUND,
            message="failed to pull image: registry.example.com/museum/web:7: manifest unknown",
            image="registry.example.com/museum/web:7",
            occurred_at=now() - timedelta(seconds=40),
        ),
        setback=Setback(5, Reason.IMAGE_NOT_FOUND, "", now() + timedelta(seconds=18)),
    )
    crash = "the container ended with code 1, 4 times within 60 s"
    words = "Traceback (most recent call last):\nConnectionRefusedError: database at 10.0.0.7:5432"
    for state, reason, minutes in (
        (State.RUNNING, Reason.STARTED, 61),
        (State.FAILED, Reason.EXITED, 5),
        (State.RUNNING, Reason.RESTARTED, 4),
        (State.FAILED, Reason.CRASH_LOOP, 3),
    ):
        stage.tell(
            status_of(
                "iris-optics",
                state,
                reason,
                message=f"{crash}\n{words}"
                if state is State.FAILED
                else "the container runs again",
                image="registry.example.com/optics/shop:1.9",
                restart_count=4,
                occurred_at=now() - timedelta(minutes=minutes),
            )
        )
    stage.tell(
        status_of(
            "juniper-press",
            State.FAILED,
            Reason.UNHEALTHY,
            message="the health check of the container fails: wget: server returned HTTP 502",
            health=Health.UNHEALTHY,
            occurred_at=now() - timedelta(minutes=12),
        ),
        status_of("kite-studio", occurred_at=now() - timedelta(days=1, hours=3), host_port=8092),
    )
    stage.want("lumen-energy")
    stage.log = (
        "2026-11-25 10:04:11 INFO  starting shop 1.9\n"
        "2026-11-25 10:04:11 INFO  connecting to postgres://shop:***@10.0.0.7:5432/shop\n"
        "2026-11-25 10:04:12 ERROR cannot connect, giving up\n"
        "Traceback (most recent call last):\n"
        '  File "/app/main.py", line 41, in <module>\n'
        "ConnectionRefusedError: database at 10.0.0.7:5432"
    )


def take(browser: Browser, folder: Path, name: str, *, rows: int | None) -> None:
    """Take the picture once so many tenants are told of."""
    if rows is not None:
        browser.until(lambda: browser.text("#counts b").replace(",", "") == str(rows))
        if rows == 12:
            browser.until(lambda: browser.text("#starts") == "5")
    browser.picture(folder / f"{name}.png")


def main(folder: Path) -> None:
    """Take all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        chromium(Path(place) / "profile") as browser,
    ):
        for name in ("few", "many"):
            (Path(place) / name).mkdir()
        with Stage(Path(place) / "few").up() as stage:
            take_few(browser, folder, stage)
        browser.until(lambda: "not heard" in browser.text("#alarms"))
        take(browser, folder, "not-heard", rows=None)
        with Stage(Path(place) / "many", token="secret").up() as stage:
            stage.crowd(10_000)
            browser.open(stage.url)
            browser.until(lambda: browser.sees("#token"))
            take(browser, folder, "sign-in", rows=None)
            browser.write("#token", "secret")
            browser.press("ENTER")
            take(browser, folder, "crowd", rows=10_000)


def take_few(browser: Browser, folder: Path, stage: Stage) -> None:
    """Take the pictures of none and of twelve tenants."""
    browser.resize(*_WIDE)
    browser.open(stage.url)
    take(browser, folder, "empty", rows=0)
    twelve(stage)
    browser.resize(*_FOR_README)
    take(browser, folder, "page", rows=12)
    browser.resize(*_WIDE, is_dark=True)
    take(browser, folder, "dark", rows=12)
    browser.resize(*_PHONE)
    take(browser, folder, "phone", rows=12)
    browser.resize(*_WIDE)
    browser.open(f"{stage.url}#/tenants/iris-optics")
    browser.until(lambda: "ConnectionRefused" in browser.text("#log"))
    browser.until(lambda: len(browser.texts("#history tr")) == 4)
    take(browser, folder, "tenant", rows=None)
    browser.resize(*_PHONE)
    take(browser, folder, "tenant-phone", rows=None)
    browser.resize(*_WIDE)
    stage.troubles["engine"] = "failed to connect to docker daemon: nothing listens"
    browser.open(stage.url)
    browser.until(lambda: browser.text("#alarms"))
    take(browser, folder, "engine-away", rows=12)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
