"""Whether what is sent to a server crosses a network in plain text."""

from __future__ import annotations

import ipaddress

from protojobs.port.diagnosis import Finding, judged

__all__ = ["encryption", "is_local"]


def encryption(host: str, *, is_encrypted: bool, mend: str) -> Finding:
    """Of a connection to this host: an empty one and a folder are those of a socket's file."""
    is_good = is_encrypted or is_local(host)
    if is_encrypted:
        what = "The connection to the server is encrypted."
    elif is_good:
        what = "The connection to the server does not leave this machine."
    else:
        what = f"The connection to {host} is not encrypted."
    return judged(
        "encryption",
        what,
        is_good=is_good,
        why="Whoever sees the network between here and there can read the data of all jobs.",
        mend=mend,
    )


def is_local(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return not host or host.startswith(("/", "@")) or ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
