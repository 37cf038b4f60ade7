"""`python -m protojobs`: the command line."""

import sys

from protojobs.cli import main

sys.exit(main())
