"""Says at start who may do what without a token."""

from __future__ import annotations

import ipaddress
import logging

from gateway.access.tokens import Gates
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)


def say_open(gates: Gates, host: str) -> None:
    """One line if a gate is open: a warning where others than this machine can reach ``host``."""
    found = [gate for gate in gates if gate.is_open]
    if not found:
        return
    say = logger.info if _is_loopback(host) else logger.warning
    say(
        "open to everybody",
        extra=facts(
            address=host,
            what=" and ".join(gate.purpose for gate in found),
            remedy="set " + " and ".join(gate.setting for gate in found),
        ),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
