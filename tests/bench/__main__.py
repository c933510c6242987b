"""`make bench`: what the consumer costs, measured against the engine and the broker without it.

Each row runs its floor (the same work by a bare script on the same servers) and ours by turns in
one run, so that both meet the same machine; where there is no floor there is a bound. A row is a
module beside this one, listed in `ROWS`.
Prints the table of targets and that of peers, and keeps every sample as JSON and a picture as SVG.
Exit code 1 only when nothing could be measured: a target that was missed is said in the table.
With `--check` also when something got worse, see `guard`; `--profile` looks at where the consumer's
time goes instead, see `profiles`.

All is to be done in ten minutes, and with `--quick` in two, on two cores that do nothing else. What
is named in the targets is kept: 64 tenants, 64 deletions, widths of 1 to 32, 20,000 events, 10,000
tenants. For the time, peers make their burst once; loops that are not among the best two make and
remove theirs once; the flood has three rounds, the replacement sixteen, a death twelve. A quick run
has fewer rounds and smaller bursts and floods, and no minute of rest: no figures of idle CPU.
"""

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from deploy.lab.packages import LabError
from deploy.lab.surroundings import Surroundings, surroundings
from tests.bench import burst, flood, guard, profiles, replacement, scale, startup, truth
from tests.bench.plot import plot
from tests.bench.report import Line, Outcome, Peer, as_json, machine, peers_table, table
from tests.bench.stand import Stand, stand

_RATIOS: Final = Path(__file__).with_name("ratios.json")


class Measurable(Protocol):
    """One or more lines of the table."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    async def measure(self, place: Stand, *, is_quick: bool) -> Outcome:
        """Return the lines, with all their samples."""
        ...


ROWS: Final[tuple[Measurable, ...]] = (
    startup.ROW,
    replacement.ROW,
    truth.ROW,
    burst.Burst(),
    flood.Flood(),
    scale.Scale(),
)


def main() -> int:
    """Measure the chosen rows; return the exit code."""
    chosen = _arguments()
    # What is torn down at the end is nobody's trouble.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL + 1)
    try:
        with (
            surroundings(lambda line: _say(f"==> {line}")) as around,
            tempfile.TemporaryDirectory(prefix="landlord-bench-") as name,
        ):
            _leave_environment()
            folder = Path(name)
            about, outcome = asyncio.run(_measure(around, folder, chosen))
            if chosen.profile:
                place = _dated(chosen.out, "-profile.txt")
                print(f"profile: {profiles.summarise(folder, place)}")
                return 0
    except LabError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    _tell(about, outcome, chosen.out)
    kind = "quick" if chosen.quick else "full"
    if chosen.commit_ratios:
        guard.commit(_RATIOS, kind, about, outcome.lines)
    return 1 if chosen.check and _has_lost(outcome.lines, kind) else 0


def _has_lost(lines: Sequence[Line], kind: str) -> bool:
    """Compare with what is committed, and say so; nothing to compare is a loss too."""
    compared = guard.compare(lines, guard.read(_RATIOS, kind))
    losses = sum(1 for it in compared if it.is_loss)
    print(f"\n{guard.comparison_table(compared)}\n\nclear losses: {losses} of {len(compared)}")
    return losses > 0 or not compared


def _arguments() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--out", type=Path, default=Path(".lab/bench"), help="folder of JSON and picture"
    )
    parser.add_argument(
        "--check", action="store_true", help="fail when a ratio is clearly worse than committed"
    )
    parser.add_argument(
        "--commit-ratios", action="store_true", help=f"write what --check compares with: {_RATIOS}"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="have a profiler watch the consumer, and write what takes its time instead of figures",
    )
    chosen = parser.parse_args()
    chosen.rows = chosen.rows or names
    if unknown := [name for name in chosen.rows if name not in names]:
        parser.error(f"no row {unknown[0]!r}; there are {', '.join(names)}")
    if chosen.profile and (chosen.check or chosen.commit_ratios):
        parser.error("what is under a profiler is slower: its figures are no measure")
    if chosen.check and not guard.read(_RATIOS, "quick" if chosen.quick else "full"):
        parser.error(f"nothing of such a run is in {_RATIOS}: --commit-ratios writes it")
    return chosen


async def _measure(
    around: Surroundings, folder: Path, chosen: argparse.Namespace
) -> tuple[str, Outcome]:
    """Return on what it was measured, and what."""
    lines: list[Line] = []
    peers: list[Peer] = []
    async with stand(around, folder, profiles=folder if chosen.profile else None) as place:
        for row in (row for row in ROWS if row.name in chosen.rows):
            _say(f"==> {row.name}: {row.title}")
            began = time.monotonic()
            outcome = await row.measure(place, is_quick=chosen.quick)
            _say(f"    {time.monotonic() - began:.0f} s")
            lines += outcome.lines
            peers += outcome.peers
        about = await machine(place.docker)
    return about, Outcome(lines, peers)


def _tell(about: str, outcome: Outcome, out: Path) -> None:
    print(f"\n{table(outcome.lines)}\n")
    if outcome.peers:
        print(f"{peers_table(outcome.peers)}\n")
    print(about)
    samples, picture = _dated(out, ".json"), _dated(out, ".svg")
    samples.write_text(as_json(about, outcome))
    picture.write_text(plot(outcome, about))
    print(f"samples: {samples}\npicture: {picture}")


def _dated(folder: Path, ending: str) -> Path:
    """Return a place in the folder, which is made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}{ending}"


def _leave_environment() -> None:
    """Keep the settings of the caller's shell away from the consumer that is measured."""
    for name in list(os.environ):
        if name.startswith(("LANDLORD_", "DOCKER_")):
            del os.environ[name]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
