"""Ports that several workers listen on, and nobody else."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from gateway.receivers.address import Address, PortTaken


class ReservedPorts:
    """Holds the ports of a gateway for its workers, without ever listening itself.

    The kernel hands a connection to one of the sockets that listen, so a worker that dies takes
    part no longer, and the port stays taken while there is none.
    """

    def __init__(self) -> None:
        self._held = ExitStack()

    def reserve(self, wanted: Address) -> Address:
        """``wanted`` with the ports that were got for 0. Raises PortTaken."""
        http_port = wanted.http_port
        if http_port is not None:
            http_port = self._hold("PORT", wanted.host, http_port)
        grpc_port = self._hold(wanted.grpc_setting, wanted.host, wanted.grpc_port)
        return wanted._replace(http_port=http_port, grpc_port=grpc_port)

    def _hold(self, setting: str, host: str, port: int) -> int:
        bound = port
        try:
            found = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, protocol, _, address in dict.fromkeys(found):
                sock = self._held.enter_context(socket.socket(family, kind, protocol))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address[0], bound, *address[2:]))
                bound = sock.getsockname()[1]
                # Only now: with it the port of another such gateway could be had as well.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as error:
            raise PortTaken(setting, port, error) from error
        return bound

    def close(self) -> None:
        self._held.close()
