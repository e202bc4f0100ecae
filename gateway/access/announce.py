"""Says at start who may do what without a token, and what the certificate is worth."""

from __future__ import annotations

import ipaddress
import logging

from gateway.access.tls import Tls, rehearse
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


def say_tls(tls: Tls, port: int) -> None:
    """One line about the certificate, and a warning where clients will not take it."""
    seen = rehearse(tls)
    if seen.complaint is not None:
        logger.warning(
            "clients will refuse the certificate",
            extra=facts(
                port=port, why=seen.complaint, remedy="renew it, set GATEWAY_TLS_CERT, restart"
            ),
        )
        return
    logger.info(
        "tls",
        extra=facts(
            port=port,
            client_certificates="needed" if tls.client_ca else "not needed",
            expires=seen.expires and seen.expires.isoformat(),
        ),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
