"""Where the consumer's time goes: runs it under cProfile, and sums up what was seen.

Only its main thread is looked at, which is where its loop turns; time within the ledger's and the
library's threads shows as waiting. What is under a profiler is slower: its figures are no measure.
"""

import pstats
import sys
from pathlib import Path
from typing import Final

_LINES: Final = 50
_PROJECT: Final = f"{Path(__file__).parents[2]}/"


def command(folder: Path | None, name: str) -> tuple[str, ...]:
    """Return what starts a consumer; with a folder, under a profiler that writes there."""
    if folder is None:
        return (sys.executable, "-m", "consumer")
    script = Path(__file__).with_name("profiled.py")
    return (sys.executable, str(script), str(folder / f"{name}.prof"))


def summarise(folder: Path, place: Path) -> Path:
    """Write what takes longest in each profile of the folder, by itself and with what it calls."""
    with place.open("w") as text:
        for profile in sorted(folder.glob("*.prof")):
            text.write(f"=== {profile.stem}\n")
            stats = pstats.Stats(str(profile), stream=text)
            stats.sort_stats("tottime").print_stats(_LINES)
            stats.sort_stats("cumulative").print_stats(_LINES)
    place.write_text(place.read_text().replace(_PROJECT, ""))
    return place
