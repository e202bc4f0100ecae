"""Which backend the settings ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.tempo import backends
from gateway.tempo.backends import Backend, find_binary
from gateway.tempo.client import MAX_MESSAGE_BYTES
from gateway.tempo.clock import HOLD_S
from gateway.tempo.config import FOREIGN_HOLD_S, MIB, ConfigError
from gateway.tempo.version import BinaryError

DEADLINE_S = 20.0


@pytest.fixture
def tempo(tmp_path):
    """A program that says that it is Tempo, and no more."""
    binary = tmp_path / "tempo-binary"
    binary.write_text("#!/bin/sh\necho 'tempo, version 2.10.8 (branch: HEAD)'\n")
    binary.chmod(0o755)
    return binary


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A place without a Tempo."""
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))


async def make_backend(settings: Settings) -> Backend:
    """In a thread, since it looks for files and asks a program."""
    return await asyncio.to_thread(backends.make_backend, settings)


def settings(tmp_path: Path, **environ: str) -> Settings:
    return Settings.load({"GATEWAY_DATA_DIR": str(tmp_path / "data"), **environ})


def test_the_binary_is_the_one_named_else_in_bin_else_on_the_path(
    tmp_path, tempo, nowhere, monkeypatch
):
    assert find_binary(settings(tmp_path)) is None
    assert find_binary(settings(tmp_path, TEMPO_BIN="/x/tempo")) == Path("/x/tempo")
    (tmp_path / "on-path").mkdir()
    on_path = tempo.rename(tmp_path / "on-path" / "tempo")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_binary(settings(tmp_path)) == on_path
    Path("bin").mkdir()
    in_bin = Path("bin/tempo")
    in_bin.write_bytes(on_path.read_bytes())
    in_bin.chmod(0o755)
    assert find_binary(settings(tmp_path)) == in_bin.absolute()


@pytest.mark.parametrize(
    ("environ", "has_binary", "mode"),
    [
        ({}, False, "embedded"),
        ({}, True, "managed"),
        ({"TEMPO_STORAGE": "s3", "TEMPO_S3_BUCKET": "b"}, True, "managed"),
        ({"TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, True, "external"),
        ({"TEMPO_MODE": "embedded"}, True, "embedded"),
        ({"TEMPO_MODE": "managed", "TEMPO_OTLP_ENDPOINT": "http://x:1"}, True, "managed"),
    ],
)
async def test_the_mode(tmp_path, tempo, nowhere, environ, has_binary, mode):
    if has_binary:
        environ = environ | {"TEMPO_BIN": str(tempo)}
    backend = await make_backend(settings(tmp_path, **environ))
    assert backend.mode == mode
    assert backend.hold_s == (HOLD_S if mode == "managed" else 0.0)
    assert await backend.stop(1.0)


async def test_a_managed_tempo_without_a_binary_is_a_fault_with_its_remedy(tmp_path, nowhere):
    with pytest.raises(BinaryError, match="install-tempo"):
        await make_backend(settings(tmp_path, TEMPO_MODE="managed"))


async def test_the_largest_delivery_follows_the_container_where_tempo_is_ours(tmp_path, tempo):
    ours = settings(tmp_path, TEMPO_BIN=str(tempo), CONTAINER_MEMORY=str(512 * MIB))
    assert (await make_backend(ours)).max_message_bytes == 10 * MIB
    theirs = settings(tmp_path, TEMPO_OTLP_ENDPOINT="http://127.0.0.1:1")
    backend = await make_backend(theirs)
    assert backend.max_message_bytes == MAX_MESSAGE_BYTES
    await backend.stop(1.0)


async def test_a_bucket_is_never_left_aside_for_want_of_a_tempo(tmp_path, nowhere):
    with pytest.raises(BinaryError, match="install-tempo"):
        await make_backend(settings(tmp_path, TEMPO_STORAGE="s3", TEMPO_S3_BUCKET="b"))


async def test_the_hold_time_can_be_set(tmp_path, tempo):
    found = settings(tmp_path, TEMPO_BIN=str(tempo), GATEWAY_HOLD_TIME="3s")
    assert (await make_backend(found)).hold_s == 3.0
    found = settings(tmp_path, TEMPO_OTLP_ENDPOINT="http://127.0.0.1:1", GATEWAY_HOLD_TIME="9s")
    backend = await make_backend(found)
    assert backend.hold_s == 9.0
    await backend.stop(1.0)


async def test_a_configuration_of_ones_own_is_checked_and_trusted_less(tmp_path, tempo):
    own = tmp_path / "own.yaml"
    found = settings(tmp_path, TEMPO_BIN=str(tempo), TEMPO_CONFIG=str(own))
    with pytest.raises(ConfigError, match="TEMPO_CONFIG"):
        await make_backend(found)
    own.write_text("${HTTP_PORT} ${GRPC_PORT} ${OTLP_PORT}")
    assert (await make_backend(found)).hold_s == FOREIGN_HOLD_S


async def test_the_embedded_backend_lives_and_stops_in_good_order(tmp_path):
    backend = await make_backend(settings(tmp_path, TEMPO_MODE="embedded"))
    ready = asyncio.Event()
    backend.start(lambda: ready.set() if backend.state == "ready" else None)
    async with asyncio.timeout(DEADLINE_S):
        await ready.wait()
    assert backend.base_url is not None
    assert backend.streaming_url == f"http://127.0.0.1:{backend.ports.otlp}"
    assert await backend.stop(DEADLINE_S)
    assert backend.state == "stopped"


def test_the_embedded_share_of_secrets_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_INGEST_TOKENS", "secret")
    monkeypatch.setenv("DATABASE_URL", "secret")
    program = backends._embedded_program(settings(tmp_path))(backends.Ports(1, 2, 3))
    assert "secret" not in str(program)
