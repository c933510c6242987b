"""`make demo`: one tenant's life, shown step by step on a real broker and a real engine.

Runs the commands a person would type and shows what they answer. Everything it makes has names of
its own (`landlord-demo…`) and is gone afterwards.
"""

import asyncio
import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from deploy.lab.daemon import Daemon
from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names, remove_names
from deploy.lab.packages import LabError, ensure
from deploy.lab.servers import free_port
from deploy.lab.surroundings import Surroundings, surroundings

_EXAMPLE: Final = Path(__file__).parent / "examples" / "web-app.yaml"
_TENANT: Final = "web-app"
_IMAGE: Final = "nginx:alpine"
_LOCAL_IMAGE: Final = "landlord-demo/web:1"
_NOWHERE: Final = "127.0.0.1:1/no-such-image:1"
"""An image that no engine can pull, whatever it can reach."""
_STATUS_SECONDS: Final = 60.0
_PULL_SECONDS: Final = 30.0
_METRICS: Final = (
    "landlord_tenant_startup_seconds_count",
    "landlord_tenant_startup_seconds_sum",
    'landlord_tenant_failures_total{reason="image_pull_failed"}',
    'landlord_tenants{state="running"}',
)


def main() -> int:
    """Show it; return the exit code."""
    began = time.monotonic()
    try:
        with surroundings_told() as around, Stage(around) as stage:
            show(stage)
    except LabError as error:
        print(f"\nmake demo: {error}", file=sys.stderr)
        return 1
    _say(f"everything it made is gone; took {time.monotonic() - began:.0f} s")
    return 0


def show(stage: "Stage") -> None:
    """Take one tenant through its life."""
    _head("3. A service publishes tenant.created")
    document = stage.write_document(stage.image)
    print(_indented(document.read_text()))
    stage.run("publish", "created", str(document))
    stage.expect("running", "started")

    _head("4. The tenant's container serves")
    stage.run_docker("ps", "--format", "{{.Names}}  {{.Image}}  {{.Status}}  {{.Ports}}")
    stage.fetch(stage.tenant_url)

    _head("5. Anybody may ask what became of it")
    stage.fetch(f"{stage.api_url}/tenants/{_TENANT}/compute/status", as_json=True)

    _head("6. An update names an image that cannot be had: the old one serves on")
    stage.run("publish", "updated", str(stage.write_document(_NOWHERE)))
    stage.expect("running", "rolled_back")
    stage.fetch(stage.tenant_url)

    _head("7. What Prometheus would scrape")
    stage.show_metrics()

    _head("8. tenant.deleted takes it away, though the update is still being retried")
    stage.run("publish", "deleted", "--tenant", _TENANT)
    stage.expect("stopped", "deleted")
    left = stage.docker.containers(stage.names.label)
    if left:
        raise LabError(f"containers are left: {left}")
    _say("no container is left")


@contextmanager
def surroundings_told() -> Iterator[Surroundings]:
    """Give broker and engine, saying where they come from."""
    print("landlord-consumer: one tenant's life, from tenant.created to tenant.deleted")
    _head("1. What it needs")
    ensure(("curl",))
    with surroundings(_say) as around:
        yield around
        _head("10. Taking down what was brought up")


class Stage:
    """The consumer, running, with a subscriber beside it."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._stack = ExitStack()
        self._heard: queue.SimpleQueue[Mapping[str, object]] = queue.SimpleQueue()
        self.docker = DockerCli(around.docker_host)
        self.names = Names(f"landlord-demo-{os.getpid()}")
        self.image = _LOCAL_IMAGE
        self._port = around.free_port(8080)
        http_port = free_port()
        self.api_url = f"http://127.0.0.1:{http_port}"
        self.tenant_url = f"http://{around.address}:{self._port}/"
        self._environment = os.environ | self.names.environment(
            broker_url=around.broker_url,
            docker_host=around.docker_host,
            folder=around.folder,
            http_port=http_port,
        )
        # It would win over the setting; both name the same engine.
        self._environment["DOCKER_HOST"] = around.docker_host

    def __enter__(self) -> Self:
        try:
            self._choose_image()
            self._start_consumer()
            self._subscribe()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _choose_image(self) -> None:
        if not self._around.has_own_engine and self._can_pull():
            self.image = _IMAGE
            return
        self._stack.enter_context(self.docker.image(_LOCAL_IMAGE, port=80))
        _say(f"no registry can be reached: {_LOCAL_IMAGE}, made here, stands in for {_IMAGE}")

    def _can_pull(self) -> bool:
        if self.docker.has_image(_IMAGE):
            return True
        try:
            self.docker.run("pull", "-q", _IMAGE, seconds=_PULL_SECONDS)
        except (LabError, subprocess.TimeoutExpired):
            return False
        return True

    def _start_consumer(self) -> None:
        _head("2. The consumer")
        log = self._around.folder / "consumer.log"
        consumer = Daemon(
            "landlord-consumer",
            (*_CONSUMER, "run"),
            environment=self._environment,
            log=log,
            is_ready=self._is_ready,
            folder=self._around.folder,
        )
        print("$ landlord-consumer run &")
        began = time.monotonic()
        consumer.start(seconds=30.0)
        _say(f"ready after {time.monotonic() - began:.1f} s")
        self._stack.callback(self._clean_up, consumer)

    def _clean_up(self, consumer: Daemon) -> None:
        _head("9. The consumer drains and stops")
        consumer.stop()
        self.docker.remove_containers(self.names.label)
        self.docker.remove_volumes(self.names.label)
        asyncio.run(remove_names(self._around.broker_url, self.names))

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api_url}/readyz", timeout=2) as answer:
                return int(answer.status) == 200
        except OSError:
            return False

    def _subscribe(self) -> None:
        print("$ landlord-consumer watch --json &")
        watch = subprocess.Popen(
            (*_CONSUMER, "watch", "--json"),
            env=self._environment,
            cwd=self._around.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(watch.wait)
        self._stack.callback(watch.kill)
        if watch.stderr is None or watch.stdout is None:
            raise LabError("watch has no output")
        _say(watch.stderr.readline().strip().removeprefix("landlord-consumer: "))
        threading.Thread(target=self._hear, args=(watch.stdout,), daemon=True).start()

    def _hear(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._heard.put(json.loads(line))

    def write_document(self, image: str) -> Path:
        """Return the path of the example with this image, and a host port that is free."""
        text = _EXAMPLE.read_text().replace(_IMAGE, image)
        path = self._around.folder / "web-app.yaml"
        path.write_text(text.replace("host_port: 8080", f"host_port: {self._port}"))
        return path

    def expect(self, state: str, reason: str) -> None:
        """Show status events as they arrive, up to the one expected."""
        deadline = time.monotonic() + _STATUS_SECONDS
        while True:
            try:
                status = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise LabError(f"no {state}/{reason} within {_STATUS_SECONDS:g} s") from None
            kind = f"tenant.status.{status['state']}"
            print(f"  <- {kind}  reason={status['reason']}  {status['message']}", flush=True)
            if (status["state"], status["reason"]) == (state, reason):
                return

    def run(self, *words: str) -> None:
        """Run a command of ours, as a person would."""
        self._show(("landlord-consumer", *words), (*_CONSUMER, *words))

    def run_docker(self, *words: str) -> None:
        """Run a docker command on our containers alone."""
        words = (words[0], "--filter", f"label={self.names.label}", *words[1:])
        self._show(("docker", *words), ("docker", "-H", self._around.docker_host, *words))

    def fetch(self, url: str, *, as_json: bool = False) -> None:
        """Show what curl gets."""
        # The container runs; the server in it may need another moment before it listens.
        patience = ("--max-time", "10", "--retry", "5", "--retry-connrefused")
        answer = self._output(("curl", "-sS", *patience, url), ("curl", "-sS", url))
        shown = json.dumps(json.loads(answer), indent=2) if as_json else _first_lines(answer)
        print(_indented(shown))

    def show_metrics(self) -> None:
        """Show the lines about startup time and failures."""
        url = f"{self.api_url}/metrics"
        answer = self._output(("curl", "-sS", "--max-time", "10", url), ("curl", "-sS", url))
        lines = [line for line in answer.splitlines() if line.startswith(_METRICS)]
        print(_indented("\n".join(lines)))

    def _show(self, typed: Sequence[str], command: Sequence[str]) -> None:
        print(_indented(self._output(command, typed)))

    def _output(self, command: Sequence[str], typed: Sequence[str]) -> str:
        """Return what the command prints, showing it as typed. Raises LabError when it fails."""
        print(f"$ {' '.join(_quoted(word) for word in typed)}", flush=True)
        outcome = subprocess.run(
            command,
            env=self._environment,
            cwd=self._around.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if outcome.returncode != 0:
            raise LabError(f"{typed[0]} failed: {outcome.stderr.strip()}")
        return outcome.stdout.strip()


_CONSUMER: Final = (sys.executable, "-m", "consumer")


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word or "{" in word else word


def _head(title: str) -> None:
    print(f"\n--- {title}", flush=True)


def _say(line: str) -> None:
    print(f"==> {line}", flush=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


def _first_lines(text: str) -> str:
    lines = text.splitlines()
    return "\n".join(lines[:4]) + ("\n..." if len(lines) > 4 else "")


if __name__ == "__main__":
    sys.exit(main())
