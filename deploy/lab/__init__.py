"""Real servers on a bare Debian machine, for the demo, `make run` and the tests.

A broker and a Docker host of our own, from Debian's packages alone: no image registry, no init
system. What is brought up lives in one folder and one network namespace of the run, and is taken
down with it, by its own pid; nothing that was there before is touched.
"""
