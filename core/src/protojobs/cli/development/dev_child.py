"""A command that ends when its standard input does: the dashboard of `protojobs dev`.

Started as `python -m protojobs.cli.development.dev_child COMMAND...` by dev, which holds the other end of that pipe,
and writes nothing. However dev ends, by SIGKILL too, its end of the pipe goes with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from protojobs.cli.entry import main
from protojobs.clock import SYSTEM_CLOCK

__all__: list[str] = []

LEAVE_S = 2.0  # to end by SIGTERM, as when dev asks for it


def _end_with_dev(pipe: int) -> None:
    with suppress(OSError):
        while os.read(pipe, 64):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    SYSTEM_CLOCK.sleep(LEAVE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_dev, args=(0,), name="protojobs-dev", daemon=True).start()
    sys.exit(main())
