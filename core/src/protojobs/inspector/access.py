"""Who may do what, and the audit log of what they did: every verb of an Inspector asks here first."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from protojobs.clock import within
from protojobs.entropy import fresh_id
from protojobs.errors import Forbidden, one_line
from protojobs.events import AuditAction
from protojobs.port.observing import ActionNote, Observes

if TYPE_CHECKING:
    from protojobs.queue.queue import JobQueue

__all__ = ["Access", "Role", "Viewer"]

NOTE_S = 5.0  # for the store to take a line; the action is done by then
_log = logging.getLogger("protojobs.audit")


class Role(StrEnum):
    """What a person may do."""

    NONE = "none"
    READ = "read"  # look
    OPERATE = "operate"  # look, and act


class Viewer(Struct, frozen=True):
    """Who is looking. The name and the address stand in the audit log."""

    name: str = ""
    role: Role = Role.OPERATE
    address: str = ""


class Access:
    """The rights of one viewer on one queue's store."""

    def __init__(self, queue: JobQueue, viewer: Viewer) -> None:
        self.viewer = viewer
        self._queue = queue

    def look(self) -> None:
        """Raises Forbidden unless the viewer may look."""
        if self.viewer.role not in (Role.READ, Role.OPERATE):
            raise Forbidden("You may not look at these jobs.", mend=self._mend("read"))

    def act(self, action: str, target: str) -> None:
        """Raises Forbidden unless the viewer may act; the try is noted."""
        if self.viewer.role is not Role.OPERATE:
            self.note(action, target, count=0, detail=f"refused: the role is {self.viewer.role.value}")
            raise Forbidden(f"You may not {action.replace('_', ' ')} here.", mend=self._mend("operate"))

    def note(self, action: str, target: str, *, count: int, detail: str = "") -> None:
        """Write a line of the audit log: in the store where it can, always to the logger, and as an event.

        What was done is done: that the store does not take the note is told to the log only.
        """
        actor, target, detail, address = map(one_line, (self.viewer.name, target, detail, self.viewer.address))
        facts = {"actor": actor, "action": action, "target": target, "count": count, "address": address}
        words = f": {detail}" if detail else ""
        _log.info(
            "%s %s %s (%d)%s", actor or "somebody", action, target, count, words, extra={**facts, "detail": detail}
        )
        driver = self._queue.driver
        if driver.capabilities.observing and isinstance(driver, Observes):
            try:
                with within(NOTE_S):
                    driver.note_action(
                        ActionNote(
                            id=fresh_id(),
                            at=driver.now(),
                            actor=actor,
                            action=action,
                            target=target,
                            count=count,
                            detail=detail,
                            address=address,
                        )
                    )
            except Exception as error:  # noqa: BLE001  (also a driver's mistake: what was done is done)
                _log.error("the audit log of the store misses the line above: %s", error)
        if (hooks := self._queue.hooks).listens(AuditAction.event_name):
            hooks.notify(
                AuditAction(actor=actor, action=action, target=target, count=count, detail=detail, address=address)
            )

    def _mend(self, role: str) -> str:
        return f'It takes the role "{role}"; {self.viewer.name or "an unnamed viewer"} has "{self.viewer.role.value}".'
