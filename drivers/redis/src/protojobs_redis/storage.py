"""The namespace as a whole: made, removed, and left alone."""

from __future__ import annotations

import re

from protojobs_redis.handle import Handle

__all__ = ["Storage"]

SCAN_COUNT = 1_000  # keys that the server looks at in one round


class Storage(Handle):
    """The verbs of `protojobs.port.driver.Driver` that concern the storage; their promises are written there."""

    def setup(self) -> None:
        """Mark the namespace with the version of its layout; there is nothing else to make. See Driver.setup."""
        self._connections.check_layout()

    def teardown(self) -> None:
        """Delete the keys of the namespace. See Driver.teardown."""
        with self._connections.translating():
            server, cursor = self._connections.server(), 0
            pattern = re.sub(r"([\\*?\[\]^-])", r"\\\1", self._connections.prefix) + "*"
            while True:
                cursor, keys = server.scan(cursor, match=pattern, count=SCAN_COUNT)
                if keys:
                    server.unlink(*keys)
                if not cursor:
                    return

    def close(self) -> None:
        """Give back connections; the next verb opens new ones."""
        self._doorbell.close()
        self._connections.close()
