"""Ports for a child."""

from __future__ import annotations

import socket

import pytest

from gateway.tempo import ports
from gateway.tempo.ports import HOST, LOWEST, free_ports, highest_port


def test_ports_are_free_and_differ():
    picked = free_ports()
    assert len(set(picked)) == 3
    for port in picked:
        socket.create_server((HOST, port)).close()


def test_ports_are_none_that_the_kernel_gives_to_clients():
    picked = [port for _ in range(20) for port in free_ports()]
    assert all(LOWEST <= port < ports.HIGHEST for port in picked)


@pytest.mark.parametrize(
    ("text", "highest"),
    [("32768\t60999\n", 32768), ("20000 60999", 20000), ("1024 65535", 32000), ("", 32000)],
)
def test_the_range_ends_where_the_kernels_begins(tmp_path, text, highest):
    file = tmp_path / "ip_local_port_range"
    file.write_text(text)
    assert highest_port(file) == highest


def test_without_the_kernels_word_a_usual_range_is_taken(tmp_path):
    assert highest_port(tmp_path / "absent") == 32000


def test_a_machine_without_free_ports_is_told(monkeypatch):
    with socket.create_server((HOST, 0)) as taken:
        only = taken.getsockname()[1]
        monkeypatch.setattr(ports, "LOWEST", only)
        monkeypatch.setattr(ports, "HIGHEST", only + 1)
        with pytest.raises(OSError, match="no free ports"):
            free_ports()
