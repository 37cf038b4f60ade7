"""`python -m protojobs`: the command line."""

from protojobs.cli import main

main()
