"""The consumer under a profiler, which writes to the file named first as the consumer ends.

A script, because the consumer is started in a folder of its own, from where no test is imported.
"""

import cProfile
import sys

import consumer.app  # noqa: F401 - loading it is not what is looked at
from consumer.cli import main

place = sys.argv.pop(1)
profiler = cProfile.Profile()
try:
    profiler.runcall(main)
finally:
    profiler.dump_stats(place)
