"""Clients that others wrote, each in a process of its own; skipped where they are not installed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from gateway.receivers.headers import EXPORT_METHOD
from tests.kit.receivers import MIB
from tests.kit.spans import make_payload
from tests.receivers.frontdoor.doors import started_door

HERE = Path(__file__).parent
NODE_MODULES = HERE.parents[1] / "e2e" / "node" / "node_modules"


@pytest.fixture
async def door():
    async with started_door() as started:
        yield started


def needs(program: str, *files: Path):
    missing = shutil.which(program) is None or not all(file.exists() for file in files)
    return pytest.mark.skipif(missing, reason=f"{program} or its packages are not installed")


async def run(*command: str) -> str:
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, output.decode()
    return output.decode()


@needs("node", NODE_MODULES / "@grpc" / "grpc-js")
async def test_grpc_js(door):
    script = str(HERE / "grpc_js_client.cjs")
    payload = make_payload().hex()
    output = await run("node", script, str(NODE_MODULES), door.grpc_target, payload)
    told = dict(json.loads(line) for line in output.splitlines())
    fine = {"code": 0, "size": 0}
    assert (told["export"], told["many"], told["gzip"], told["large"]) == (fine, True, fine, fine)
    assert told["too large"]["code"] == 8
    assert "GATEWAY_MAX_REQUEST_BYTES" in told["too large"]["message"]
    assert told["bad"]["code"] == 3
    assert told["unknown"]["code"] == 12
    assert EXPORT_METHOD in told["unknown"]["message"]
    assert told["health"] == {"code": 0, "size": 2}
    assert told["watch"] == {"status": "0801"}
    assert door.intake.spans == 302 + 8000


@needs("curl")
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1, 2000])
async def test_curl_over_http1(door, tmp_path, size, chunked):
    """More than a megabyte makes curl wait for 100 Continue."""
    (tmp_path / "body").write_bytes(make_payload(size) * (4 if size > 1 else 1))
    coding = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    output = await run(
        *("curl", "-sS", "--http1.1", *coding, "-H", "Content-Type: application/x-protobuf"),
        *("--data-binary", f"@{tmp_path / 'body'}", "-w", "%{http_code}", f"{door.url}/v1/traces"),
        *("--next", "-sS", f"{door.url}/ready"),
    )
    assert output == "200ready"
    assert door.intake.spans == size * (4 if size > 1 else 1)


@needs("curl")
async def test_curl_with_prior_knowledge_of_http2_is_told_what_to_do(door):
    output = await run(
        *("curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_code}", f"{door.url}/ready")
    )
    assert "curl --http1.1" in output
    assert output.endswith("505")


@needs("curl")
async def test_curl_speaks_grpc(door, tmp_path):
    payload = make_payload(3)
    (tmp_path / "body").write_bytes(b"\0" + len(payload).to_bytes(4, "big") + payload)
    output = await run(
        *("curl", "-sS", "--http2-prior-knowledge", "-o", "-", "-D", "-"),
        *("-H", "Content-Type: application/grpc", "-H", "TE: trailers"),
        *("--data-binary", f"@{tmp_path / 'body'}", f"http://{door.grpc_target}{EXPORT_METHOD}"),
    )
    assert "grpc-status: 0" in output
    assert door.intake.spans == 3


@needs("curl")
async def test_curl_that_offers_an_upgrade_to_http2_stays_with_http1(door):
    output = await run("curl", "-sS", "--http2", "-w", "%{http_code}", f"{door.url}/ready")
    assert output == "ready200"


@needs("h2load")
@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_h2load(door, tmp_path, protocol):
    payload = make_payload()
    framed = b"\0" + len(payload).to_bytes(4, "big") + payload
    (tmp_path / "body").write_bytes(framed if protocol == "grpc" else payload)
    kind = "application/grpc" if protocol == "grpc" else "application/x-protobuf"
    where = f"http://{door.grpc_target}{EXPORT_METHOD}"
    options = ["-m50"] if protocol == "grpc" else ["--h1"]
    output = await run(
        *("h2load", "-n2000", "-c10", *options, "-d", str(tmp_path / "body")),
        *("-H", f"content-type: {kind}", "-H", "te: trailers" if protocol == "grpc" else "a: b"),
        where if protocol == "grpc" else f"{door.url}/v1/traces",
    )
    assert re.search(r"2000 succeeded, 0 failed, 0 errored", output)
    assert door.intake.spans == 2000


@needs("h2load")
async def test_h2load_with_large_messages(tmp_path):
    payload = make_payload(5000)
    (tmp_path / "body").write_bytes(b"\0" + len(payload).to_bytes(4, "big") + payload)
    async with started_door(max_request_bytes=8 * MIB, batch_bytes=8 * MIB) as door:
        output = await run(
            *("h2load", "-n40", "-c4", "-m5", "-d", str(tmp_path / "body")),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{door.grpc_target}{EXPORT_METHOD}",
        )
        assert re.search(r"40 succeeded, 0 failed, 0 errored", output)
        assert door.intake.spans == 40 * 5000
