"""Ports on loopback for a child."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import NamedTuple

HOST = "127.0.0.1"

LOWEST, _ELSEWHERE = 12_000, 32_000
_KERNEL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def highest_port(kernel_range: Path = _KERNEL_RANGE) -> int:
    """The end of the range that a child's ports are taken from, exclusive: where the ports begin
    that the kernel hands out to outgoing connections.

    Above, a client that keeps on connecting to a dead child can be given the child's own port as
    its source, and so connect to itself (TCP's simultaneous open); the child then cannot bind it.
    """
    try:
        lowest_of_kernel = int(kernel_range.read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return _ELSEWHERE
    # A machine tuned to use nearly all ports for clients leaves no room; take the risk there.
    return lowest_of_kernel if lowest_of_kernel > LOWEST + 1000 else _ELSEWHERE


HIGHEST = highest_port()
ATTEMPTS = 200


class Ports(NamedTuple):
    """What one child listens on."""

    otlp: int
    http: int
    internal: int
    """Tempo's own gRPC; the embedded backend has none."""


def free_ports() -> Ports:
    """Ports nobody listens on now. Raises OSError where there are none."""
    held: list[socket.socket] = []
    try:
        for _ in range(ATTEMPTS):
            if len(held) == len(Ports._fields):
                return Ports(*(sock.getsockname()[1] for sock in held))
            candidate = random.randrange(LOWEST, HIGHEST)  # noqa: S311 - not a secret
            try:
                held.append(socket.create_server((HOST, candidate)))
            except OSError:
                continue
        raise OSError(f"no free ports on {HOST} between {LOWEST} and {HIGHEST}")
    finally:
        for sock in held:
            sock.close()
