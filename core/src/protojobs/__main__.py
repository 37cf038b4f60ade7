"""`python -m protojobs`: the command line.

A command of another program that runs this module (`runpy`) puts into `sys.argv[0]` what people type to come here, such
as `python manage.py protojobs`: then usage and hints say that. Such a program also gives `--app`.
"""

import sys

from protojobs.cli import main

_typed = sys.argv[0]
sys.exit(main(program="protojobs" if _typed.endswith("__main__.py") else _typed))
