"""`python -m consumer` is the same as the command `landlord-consumer`."""

from consumer.cli import main

main()
