"""What is written of a profile."""

import cProfile
from pathlib import Path

from tests.bench.profiles import summarise


def test_a_summary_names_what_took_time(tmp_path: Path) -> None:
    """Each consumer that was looked at has its part, by the name of its profile."""
    for name in ("few", "many"):
        profiler = cProfile.Profile()
        profiler.runcall(sorted, range(10))
        profiler.dump_stats(tmp_path / f"{name}.prof")

    text = summarise(tmp_path, tmp_path / "profile.txt").read_text()

    assert text.index("=== few") < text.index("=== many")
    assert text.count("{built-in method builtins.sorted}") == 4
