"""Where a gateway listens."""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """Where to listen; a port of 0 takes any free one."""

    host: str
    http_port: int | None
    """None where the other port is the only one."""
    grpc_port: int
    grpc_setting: str = "TCP_GRPC_PORT"
    """The setting that chose ``grpc_port``."""


class PortTaken(OSError):  # noqa: N818 - reads as what happened
    """``setting`` names the port that cannot be had."""

    def __init__(self, setting: str, port: int, error: OSError) -> None:
        super().__init__(f"cannot listen on port {port} ({error}); free it or set {setting}")
