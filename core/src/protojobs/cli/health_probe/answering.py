"""While a worker works: whoever asks its probe, and systemd, learn how it is."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from protojobs.cli.health_probe.health import Health
from protojobs.cli.health_probe.probe import Probe
from protojobs.cli.health_probe.systemd import Systemd
from protojobs.stopping import StopToken

__all__ = ["showing"]


@contextmanager
def showing(health: Callable[[], Health], stop: StopToken, host: str, port: int | None) -> Generator[None]:
    """For the time of the block. Raises ConfigurationError when the probe cannot listen on that port."""
    probe = None if port is None else Probe(host, port, health)
    systemd = Systemd.from_environment(health)
    unsubscribe = stop.subscribe(lambda _level: systemd.look()) if systemd is not None else None
    try:
        yield
    finally:
        if unsubscribe is not None:
            unsubscribe()
        for shown in (probe, systemd):
            if shown is not None:
                shown.close()
