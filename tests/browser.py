"""A real browser without a window: what it shows as text, and a person's hands."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from deploy.lab.packages import find

T = TypeVar("T")

_LOOK_SECONDS: Final = 0.02
_SECONDS: Final = 20.0

_COLOURS: Final = """
    let node = document.querySelector(arguments[0]);
    const colour = getComputedStyle(node).color;
    while (getComputedStyle(node).backgroundColor === 'rgba(0, 0, 0, 0)') node = node.parentElement;
    return [colour, getComputedStyle(node).backgroundColor];
"""


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class Browser:
    """One window; selectors are CSS."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    # --- looking

    def text(self, selector: str) -> str:
        """Return the text of the first that is so; empty when there is none."""
        return self._first(selector, "innerText")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all that are so."""
        found = self.evaluate(
            "return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText)",
            selector,
        )
        assert isinstance(found, list)
        return [str(text) for text in found]

    def _first(self, selector: str, what: str) -> str:
        script = "return document.querySelector(arguments[0])?.[arguments[1]] ?? ''"
        return str(self.evaluate(script, selector, what))

    def sees(self, selector: str) -> bool:
        """Whether it is there and shown."""
        try:
            return bool(self._driver.find_element(By.CSS_SELECTOR, selector).is_displayed())
        except (NoSuchElementException, StaleElementReferenceException):
            return False

    @property
    def focused(self) -> str:
        """What has the focus: its id, or its text."""
        return str(
            self.evaluate("return document.activeElement.id || document.activeElement.innerText")
        )

    def evaluate(self, script: str, *arguments: object) -> object:
        """Return what a script in the page returns."""
        result: object = self._driver.execute_script(script, *arguments)
        return result

    def roles(self) -> list[tuple[str, str]]:
        """Return role and name of all that a screen reader meets."""
        tree = self._driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
        return [
            (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")))
            for node in tree["nodes"]
            if not node.get("ignored")
        ]

    def contrast(self, selector: str) -> float:
        """Return by how much the colour of the text differs from what is behind it (WCAG)."""
        colours = self.evaluate(_COLOURS, selector)
        assert isinstance(colours, list)
        light, dark = sorted((_luminance(str(colour)) for colour in colours), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    def complaints(self) -> list[str]:
        """Return what the browser wrote to its console since it was asked last."""
        lines = self._driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own
        return [str(line["message"]) for line in lines]

    def until(self, is_so: Callable[[], T], *, seconds: float = _SECONDS) -> T:
        """Wait until it is so, and return what it then is; fail with what the page shows."""
        deadline = time.monotonic() + seconds
        while not (answer := is_so()):
            assert time.monotonic() < deadline, self.text("body")
            time.sleep(_LOOK_SECONDS)
        return answer

    # --- doing

    def open(self, url: str) -> None:
        """Go there, in a tab that keeps nothing of the one before."""
        self._driver.get("about:blank")
        self._driver.get(url)

    def reload(self) -> None:
        self._driver.refresh()

    def click(self, selector: str) -> None:
        self._driver.find_element(By.CSS_SELECTOR, selector).click()

    def write(self, selector: str, text: str) -> None:
        """Write into a field, in the place of what is in it."""
        field = self._driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def press(self, *keys: str) -> None:
        """Press keys where the focus is; see selenium's `Keys` for the special ones."""
        actions = webdriver.ActionChains(self._driver)
        for key in keys:
            actions.send_keys(getattr(Keys, key, key))
        actions.perform()

    def resize(self, width: int, height: int, *, is_dark: bool = False) -> None:
        """Have a window of this size, for someone who likes it light or dark."""
        self._driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self, path: Path) -> None:
        """Write what is seen as PNG."""
        assert self._driver.save_screenshot(str(path))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run a browser that has nothing but what is in the folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = find("chromium")
    for switch in (
        "headless=new",
        "no-sandbox",  # the tests are root
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        f"user-data-dir={folder}",
        "window-size=1280,900",
        "lang=en",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(find("chromedriver")))
    try:
        driver.set_script_timeout(_SECONDS)
        yield Browser(driver)
    finally:
        driver.quit()
