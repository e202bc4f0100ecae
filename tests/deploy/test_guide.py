"""The lines of the guide that the gateway began as, run as docs/deploy.md has them now."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from gateway.settings import Settings
from tests.e2e.test_clients import HERE as CLIENTS
from tests.e2e.test_clients import NODE, assert_found, needs_node
from tests.kit.gateway import ROOT, eventually, running_gateway
from tests.kit.modes import BACKENDS, backend_env

HTTP = "https://poc-trace.osc-fr1.scalingo.io"
GRPC = "http://tcp-1.osc-fr1.scalingo.com:20003"
LOGS = "scalingo --app poc-trace logs"
PAGE = (ROOT / "docs" / "deploy.md").read_text()


class Line(NamedTuple):
    """One row of the table: code of the cells, and the words of the last one."""

    then: str
    now: str
    answer: str

    @property
    def status(self) -> str:
        return self.answer[:3] if self.answer[:3].isdigit() else ""

    @property
    def fragment(self) -> str:
        """What the answer holds."""
        return code(self.answer)


def code(cell: str) -> str:
    match = re.search(r"`([^`]+)`", cell)
    return match[1] if match else ""


def lines() -> list[Line]:
    section = PAGE.partition("## The guide, line by line")[2].partition("\n## ")[0]
    rows = []
    for row in re.findall(r"^\| (.*) \|$", section, re.MULTILINE)[2:]:
        then, now, answer = (
            cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", row)
        )
        rows.append(Line(then, code(now), answer))
    return rows


def those(beginning: str) -> list[Line]:
    found = [line for line in lines() if line.now.startswith(beginning)]
    assert found, beginning
    return found


def only(beginning: str, then: str) -> str:
    """The address in the one line of this kind."""
    (line,) = [line for line in those(beginning) if then in line.then]
    return re.sub(rf"^{beginning}|['\"]", "", line.now).strip()


@pytest.fixture(scope="module", params=BACKENDS)
def gateway(request, tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("data"), backend_env(request.param)) as gateway:
        gateway.wait_until_ready()
        yield gateway
        assert gateway.stop() == 0


def run(command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_curl_of_the_guide_is_answered_as_the_table_says(gateway):
    """In their order: the search finds what was posted before it."""
    for line in those("curl"):
        command = line.now.replace(HTTP, gateway.url) + " -sS -w '\\n%{http_code}'"
        assert gateway.url in command

        def answered(command: str = command, line: Line = line) -> bool:
            body, _, status = run(command).rpartition("\n")
            return status == line.status and line.fragment in body

        eventually(answered)


def test_what_the_guide_looks_for_in_the_log_is_there(gateway, tmp_path):
    log = tmp_path / "log"
    log.write_text(gateway.log)
    for line in those(f"{LOGS} | grep"):
        if line.fragment:
            command = line.now.replace(LOGS, f"cat {shlex.quote(str(log))}")
            assert line.fragment in run(command), line


def test_what_the_guide_looks_for_in_the_configuration_is_there():
    (line,) = those("scalingo --app poc-trace run")
    (command,) = shlex.split(line.now)[4:]
    assert line.fragment in run(command.replace("/app", str(ROOT)))


def test_grep_error_finds_why_nothing_is_delivered(tmp_path):
    (line,) = [line for line in those(f"{LOGS} | grep") if "error" in line.now]
    with running_gateway(tmp_path, {"TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as gateway:
        script = str(CLIENTS / "clients" / "python_sdk.py")
        subprocess.run(
            [sys.executable, script, "grpc", gateway.grpc_address, "shop"], check=True, timeout=60
        )
        gateway.wait_for_line("delivery failed")
        log = tmp_path / "log"
        log.write_text(gateway.log)
        assert "refused" in run(line.now.replace(LOGS, f"cat {shlex.quote(str(log))}"))


def test_the_python_exporter_of_the_guide(gateway):
    assert only("endpoint=", "Python") == GRPC
    found = send(
        [sys.executable, str(CLIENTS / "clients" / "python_sdk.py"), "grpc"], gateway, GRPC
    )
    assert_found(gateway, *found)


@needs_node
@pytest.mark.parametrize(
    ("exporter", "transport", "address"),
    [
        ("exporter-trace-otlp-http", "http-json", f"{HTTP}/v1/traces"),
        ("exporter-trace-otlp-grpc", "grpc", GRPC),
    ],
)
def test_the_node_exporters_of_the_guide(gateway, exporter, transport, address):
    assert only("url: ", exporter) == address
    found = send([NODE, str(CLIENTS / "node" / "send.mjs"), transport], gateway, address)
    assert_found(gateway, *found)


def send(client: list[str], gateway, address: str) -> tuple[str, str]:
    """Run an exporter with the guide's address turned to the gateway; the trace and its service."""
    service = f"guide-{Path(client[1]).stem}-{client[2]}"
    here = address.replace(HTTP, gateway.url).replace(GRPC, f"http://{gateway.grpc_address}")
    done = subprocess.run([*client, here, service], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), service


@pytest.mark.tempo
def test_the_grpc_of_tempo_is_on_both_ports(tmp_path):
    (line,) = those("tempopb.StreamingQuerier")
    with running_gateway(tmp_path, backend_env("managed")) as gateway:
        gateway.wait_until_ready()
        for address in (gateway.grpc_address, gateway.url.removeprefix("http://")):
            with grpc.insecure_channel(address) as channel:
                search = channel.unary_stream(f"/{line.now}/Search")
                assert list(search(b"", timeout=20)), "an answer with nothing found"
        assert gateway.stop() == 0


@pytest.mark.tempo
def test_of_the_metrics_of_the_guide_two_exist(tmp_path):
    with running_gateway(tmp_path, backend_env("managed")) as gateway:
        gateway.wait_until_ready()
        client = str(CLIENTS / "clients" / "python_sdk.py")
        found = send([sys.executable, client, "grpc"], gateway, GRPC)
        assert_found(gateway, *found)
        exposition = gateway.get("/metrics")[1]
        assert gateway.stop() == 0
    claimed = {
        code(line.then): line for line in lines() if line.answer in ("exists", "never existed")
    }
    assert len(claimed) == 4
    is_three = "tempo_live_store" in exposition
    for name, line in claimed.items():
        if line.answer == "never existed":
            assert name not in exposition
        elif not (is_three and "ingester" in name):
            assert name in exposition


def test_the_commands_with_tokens(tmp_path):
    """As they stand there; without its token each of them is refused."""
    block = re.search(r"test_guide\.py\. -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    tokens, export, *curls = block[1].strip().splitlines()
    env = dict(pair.split("=", 1) for pair in shlex.split(tokens) if "=" in pair)
    name, value = shlex.split(export)[1].split("=", 1)
    with running_gateway(tmp_path, backend_env("embedded") | env) as gateway:
        gateway.wait_until_ready()
        address = f"{gateway.url}/v1/traces"
        client = [sys.executable, str(CLIENTS / "clients" / "python_sdk.py"), "http-protobuf"]
        assert subprocess.run([*client, address, "shop"], capture_output=True).returncode == 1
        subprocess.run([*client, address, "shop"], env=os.environ | {name: value}, check=True)
        for line in curls:
            command = line.replace(HTTP, gateway.url) + " -sS -o /dev/null -w '%{http_code}'"
            assert run(command) == "200", line
            assert run(re.sub("let-me-read", "let-me-see", command)) == "401", line


def test_each_setting_that_the_page_sets_is_taken():
    """In every command of the page, the table's among them."""
    blocks = [*re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL), *(line.now for line in lines())]
    found = [re.findall(r"(?:env-set|config:set) (.+)", block) for block in blocks]
    assert sum(map(len, found)) >= 5
    for commands in found:
        pairs = [pair for command in commands for pair in shlex.split(command)]
        Settings.load(dict(pair.split("=", 1) for pair in pairs))


def test_each_file_that_the_page_names_is_there():
    for name in re.findall(r"`((?:config|bin|tests)/[\w./-]+)`", PAGE):
        assert (ROOT / name).exists(), name
