"""The settings `PROTOJOBS_PROMETHEUS_*`: where a worker serves its metrics."""

from __future__ import annotations

import re

from msgspec import Struct

from protojobs.errors import OptionInvalid, shown

__all__ = ["PrometheusSettings", "parse_ports"]

PORTS_MAX = 1_000  # as many as `worker --processes` takes
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class PrometheusSettings(Struct, frozen=True):
    """Where to serve. `port` is the switch: a number, `0` for any free one, or a range such as `9464-9471`.

    Raises OptionInvalid.
    """

    port: str
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        parse_ports(self.port)
        if not self.host.strip():
            raise OptionInvalid("The metrics' host is empty.", mend="Give 127.0.0.1, or 0.0.0.0 for every address.")


def parse_ports(text: str) -> range:
    """The ports of `9464` or `9464-9471`. Raises OptionInvalid."""
    match = _PORTS.fullmatch(text.strip())
    if match is None:
        raise OptionInvalid(
            f"The metrics' port {shown(text)} is none.", mend="Write 9464, or a range for several workers: 9464-9471."
        )
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if not first <= last <= 65_535 or (first == 0 and last > 0) or last - first >= PORTS_MAX:
        raise OptionInvalid(
            f"The metrics' ports {text} cannot be used.",
            mend=f"They go from 1 to 65535, the lower first, at most {PORTS_MAX:,} of them.",
        )
    return range(first, last + 1)
