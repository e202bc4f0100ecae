"""Ports that several processes listen on, and nobody else."""

from __future__ import annotations

import contextlib
import socket

import pytest

from gateway.receivers.address import Address, PortTaken
from gateway.workers.ports import ReservedPorts


@contextlib.contextmanager
def reserved(address: Address):
    ports = ReservedPorts()
    try:
        yield ports.reserve(address)
    finally:
        ports.close()


def listener(port: int, *, shared: bool) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), reuse_port=shared)


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=10).close()


def test_a_port_of_0_is_the_same_for_all_workers():
    with reserved(Address("127.0.0.1", 0, 0)) as address:
        assert 0 not in (address.http_port, address.grpc_port)
        for port in (address.http_port, address.grpc_port):
            with listener(port, shared=True), listener(port, shared=True):
                connect(port)


def test_who_holds_a_port_takes_no_connections_itself():
    with reserved(Address("127.0.0.1", 0, 0)) as address:
        with pytest.raises(ConnectionRefusedError):
            connect(address.http_port)
        with listener(address.http_port, shared=True) as worker:
            connect(address.http_port)
            worker.settimeout(10)
            worker.accept()[0].close()


def test_who_does_not_share_cannot_listen_beside_a_worker():
    with (
        reserved(Address("127.0.0.1", 0, 0)) as address,
        listener(address.http_port, shared=True),
        pytest.raises(OSError, match="in use"),
    ):
        listener(address.http_port, shared=False)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "another such gateway"])
@pytest.mark.parametrize("setting", ["PORT", "TCP_GRPC_PORT"])
def test_a_port_that_somebody_listens_on_is_taken(setting, shared):
    with listener(0, shared=shared) as other:
        port = other.getsockname()[1]
        wanted = Address("127.0.0.1", *((port, 0) if setting == "PORT" else (0, port)))
        with pytest.raises(PortTaken, match=f"port {port} .*set {setting}"), reserved(wanted):
            pass


def test_every_address_of_a_name_is_held():
    with reserved(Address("localhost", 0, 0)) as address:
        found = socket.getaddrinfo("localhost", address.http_port, type=socket.SOCK_STREAM)
        for family, _, _, _, where in found:
            with socket.socket(family) as other, pytest.raises(OSError, match="in use"):
                other.bind(where)


def test_a_relay_has_one_port():
    with reserved(Address("127.0.0.1", None, 0, grpc_setting="PORT")) as address:
        assert address.http_port is None


def test_they_are_free_again_afterwards():
    with reserved(Address("127.0.0.1", 0, 0)) as address:
        pass
    listener(address.http_port, shared=False).close()
