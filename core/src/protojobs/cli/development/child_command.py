"""Runs one command of `protojobs`, and ends it when `protojobs dev`, which started it, has ended.

Call: python -m protojobs.cli.development.child_command COMMAND... Standard input is a pipe, and `dev` has the other
end, and never writes to it. However `dev` ends, by SIGKILL too, that end closes, and the command is told to stop.
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
