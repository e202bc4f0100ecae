"""The commands of the README, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.gateway import ROOT, eventually


def commands() -> list[str]:
    """The five commands from clone to the first trace."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"test_readme\.py\. -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block[1].strip().splitlines()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def environment() -> dict[str, str]:
    """The caller's, on free ports and with the packages that are installed already."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "TEMPO_"))}
    return clean | {
        "PORT": str(free_port()),
        "TCP_GRPC_PORT": str(free_port()),
        "GATEWAY_HOST": "127.0.0.1",
        "VENV": str(Path(sys.prefix)),
        "PATH": "/usr/local/bin:/usr/bin:/bin",  # no Tempo of the caller's
    }


def test_the_five_commands_lead_from_clone_to_the_first_trace(tmp_path, environment):
    clone, run, post, read, search = commands()
    clone = clone.replace("<this repository>", str(ROOT))
    checkout = tmp_path / "otlp-gateway"
    shell(clone, tmp_path, environment)
    overlay_work_tree(checkout)
    with subprocess.Popen(
        ["bash", "-c", f"exec {run}"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as gateway:
        try:
            here = f"localhost:{environment['PORT']}"
            post, read, search = (c.replace("localhost:3200", here) for c in (post, read, search))
            eventually(lambda: answers(post, checkout, environment), timeout_s=60)
            eventually(lambda: '"checkout"' in shell(read, checkout, environment))
            found = json.loads(shell(search, checkout, environment))
            assert found["traces"][0]["rootServiceName"] == "shop"
        finally:
            os.killpg(gateway.pid, signal.SIGTERM)
            gateway.communicate(timeout=30)


def overlay_work_tree(checkout: Path) -> None:
    """What is not committed yet is a part of what is tested."""
    listed = shell("git ls-files -co --exclude-standard", ROOT, dict(os.environ))
    for name in listed.splitlines():
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)


def answers(post: str, directory: Path, environment: dict[str, str]) -> bool:
    """True once the gateway takes the span; until it listens curl fails."""
    done = subprocess.run(
        ["bash", "-c", post], cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.stdout in ("", "{}")
    return done.stdout == "{}"


def shell(command: str, directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
