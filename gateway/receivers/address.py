"""Where a gateway listens, and where its clients are."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Any, NamedTuple

from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

_SERVES = {"http": "OTLP/HTTP, query API, metrics, status", "grpc": "OTLP/gRPC"}
"""For people who look into the log for what they are to send where."""


class Address(NamedTuple):
    """Where to listen; a port of 0 takes any free one."""

    host: str
    http_port: int | None
    """None where the other port is the only one."""
    grpc_port: int
    grpc_setting: str = "TCP_GRPC_PORT"
    """The setting that chose ``grpc_port``."""

    def say_listening(self, **more: Any) -> None:
        """One line in the log for each port."""
        for protocol, port in (("http", self.http_port), ("grpc", self.grpc_port)):
            if port is not None:
                told = {"address": self.host, "port": port, "serves": _SERVES[protocol], **more}
                logger.info("listening", extra=facts(protocol=protocol, **told))


class PortTaken(OSError):  # noqa: N818 - reads as what happened
    """``setting`` names the port that cannot be had."""

    def __init__(self, setting: str, port: int, error: OSError) -> None:
        remedy = f"free it or set {setting}"
        host = "GATEWAY_HOST must be an address of this machine"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            remedy = host
        elif error.errno is None:  # grpcio does not say which of the two it is
            remedy += f", and {host}"
        super().__init__(f"cannot listen on port {port} ({error}); {remedy}")


def shown(peer: tuple[str, int]) -> str:
    """Address and port of the other end, for people."""
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
