"""What a forked child finds of its parent's locks, if a thread held them that did not follow it."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from protojobs.testing.conformance.forking import Told, in_a_fork
from protojobs_sqlalchemy.postgresql.listener import Listener
from protojobs_sqlalchemy.postgresql.notifier import Notifier
from protojobs_sqlalchemy.verbs.lanes import LaneMemory
from protojobs_sqlalchemy.waking.threads import Wakeup

LIMIT_S = 30.0


def unreachable() -> object:
    raise OSError


def test_a_lock_that_another_thread_held_at_the_fork_is_free_in_the_child() -> None:
    wakeup, lanes = Wakeup(), LaneMemory()
    listener, notifier = Listener(wakeup, unreachable), Notifier(lambda _names: None)  # type: ignore[arg-type]
    has_them, may_go = threading.Event(), threading.Event()

    def hold_all() -> None:
        with ExitStack() as stack:
            for lock in (wakeup._changed, lanes._lock, listener._lock, notifier._lock):
                stack.enter_context(lock)
            has_them.set()
            may_go.wait(LIMIT_S)

    def use_all() -> Told:
        wakeup.wake(["q"])
        lanes.read(("q",), 0.0, list)
        listener.want()
        notifier.notify(["q"])
        return {"is_heard": wakeup.wait(0, ["q"], 0)}

    holder = threading.Thread(target=hold_all, daemon=True)
    holder.start()
    assert has_them.wait(LIMIT_S)
    try:
        assert in_a_fork(use_all) == {"is_heard": True}
    finally:
        may_go.set()
        holder.join(LIMIT_S)
