"""`python -m tests.simulated --socket PATH`: a simulated engine as a process of its own.

So what it costs does not count as its client's. Says `ready` once it listens; ends with SIGTERM.
"""

import argparse
import asyncio
import gc
import signal
from pathlib import Path

from consumer.adapters.docker_spec import Naming
from tests.simulated.host import SimulatedHost
from tests.simulated.population import settle
from tests.simulated.server import serving


async def _main() -> None:
    chosen = _arguments()
    host = SimulatedHost(latencies=dict(chosen.latency))
    settle(host, Naming(chosen.prefix, chosen.instance), chosen.containers)
    # What is there stays: without this, every collection would walk over all of it.
    gc.collect()
    gc.freeze()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(host, chosen.socket):
        print("ready", flush=True)
        await stop.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulated", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--containers", type=int, default=0, help="running from the beginning")
    parser.add_argument("--prefix", default="landlord", help="of their labels")
    parser.add_argument("--instance", default="default", help="of the consumer they belong to")
    parser.add_argument(
        "--latency",
        type=_latency,
        action="append",
        default=[],
        metavar="OPERATION=SECONDS",
        help="how long an operation (create, start, list, …) takes",
    )
    return parser.parse_args()


def _latency(text: str) -> tuple[str, float]:
    operation, _, seconds = text.partition("=")
    return operation, float(seconds)


if __name__ == "__main__":
    asyncio.run(_main())
