"""A Prometheus on the configuration that is shipped, scraping one consumer, and in a hurry."""

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import yaml

from deploy.lab.daemon import Daemon
from deploy.lab.packages import find
from deploy.lab.servers import free_port

SHIPPED: Final = Path(__file__).parents[1] / "prometheus"
JOB: Final = "landlord-consumer"
_EVERY: Final = "2s"
_REQUEST_SECONDS: Final = 10.0


class Prometheus:
    """One server, asked by its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: str) -> object:
        """Return the data of an answer. Raises urllib.error.HTTPError when it is refused."""
        address = f"{self.url}/api/v1/{path}?{urlencode(query)}"
        with urllib.request.urlopen(address, timeout=_REQUEST_SECONDS) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that the expression has now."""
        answer = self.ask("query", query=expression)
        assert isinstance(answer, dict)
        return [(each["metric"], float(each["value"][1])) for each in answer["result"]]


@contextmanager
def prometheus(folder: Path, *, consumer: str) -> Iterator[Prometheus]:
    """Run it for the length of the block; `consumer` is the address that is scraped."""
    port = free_port()
    server = Prometheus(f"http://127.0.0.1:{port}")
    config = folder / "prometheus.yml"
    config.write_text(_hurried(consumer), encoding="utf-8")

    def is_ready() -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"{server.url}/-/ready", timeout=_REQUEST_SECONDS).close()
            return True
        return False

    daemon = Daemon(
        "prometheus",
        (
            find("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ),
        environment=os.environ,
        log=folder / "prometheus.log",
        is_ready=is_ready,
    )
    daemon.start()
    try:
        yield server
    finally:
        daemon.kill()


def _hurried(consumer: str) -> str:
    """Return the shipped configuration for this consumer, with the rules where they lie."""
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {
        "scrape_interval": _EVERY,
        "scrape_timeout": _EVERY,
        "evaluation_interval": _EVERY,
    }
    config["rule_files"] = [str(SHIPPED / name) for name in config["rule_files"]]
    config["scrape_configs"] = [
        job | {"static_configs": [{"targets": [consumer]}]}
        for job in config["scrape_configs"]
        if job["job_name"] == JOB
    ]
    return yaml.safe_dump(config)
