"""`make run`: the consumer in the foreground, with whatever it needs, until Ctrl-C."""

import os
import signal
import subprocess
import sys

from deploy.lab.packages import LabError
from deploy.lab.surroundings import surroundings


def main() -> int:
    """Run the consumer; return its exit code."""
    try:
        with surroundings(lambda line: print(f"==> {line}", flush=True)) as around:
            environment = {
                **os.environ,
                "LANDLORD_BROKER__URL": around.broker_url,
                "DOCKER_HOST": around.docker_host,
            }
            print(f"==> export LANDLORD_BROKER__URL={around.broker_url}")
            print(f"==> export DOCKER_HOST={around.docker_host}")
            print(f"==> published ports answer at {around.address}; Ctrl-C stops", flush=True)
            # Both get the terminal's Ctrl-C; the consumer drains, and we wait for it.
            signal.signal(signal.SIGINT, lambda *_: None)
            process = subprocess.Popen([sys.executable, "-m", "consumer", "run"], env=environment)
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            return process.wait()
    except LabError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
