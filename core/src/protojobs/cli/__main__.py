"""`python -m protojobs.cli`, where the script is not on PATH."""

from __future__ import annotations

import sys

from protojobs.cli.entry import main

sys.exit(main())
