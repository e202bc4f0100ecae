"""A deploy on a platform with buildpacks, played from the clean tree to SIGTERM."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.tempo.install import release_for
from tests.e2e.test_clients import HERE as CLIENTS
from tests.kit.backends import find_tempo, tempo_version
from tests.kit.gateway import ROOT, eventually

BOOT_S, KILL_AFTER_S = 60.0, 30.0
"""What Scalingo and Heroku give a process to accept on PORT, and to end after SIGTERM."""

STAND_IN = f"""#!/bin/sh
# Speaks Tempo's ports, where there is no Tempo to test with.
if [ "$1" = -version ]; then echo 'tempo, version {Settings().tempo_version}'; exit; fi
exec python -m gateway.embedded --data-dir "$DATA_DIR" --otlp-port $OTLP_PORT --http-port $HTTP_PORT
"""


class Platform:
    """One app: its tree after the build, and the containers that run it."""

    def __init__(self, directory: Path, mirror: str, version: str) -> None:
        self.app = directory / "app"
        self.python = directory / "python"
        self.config = {
            "TEMPO_DOWNLOAD_URL": mirror,
            "TEMPO_VERSION": version,
            "TCP_GRPC_PORT": str(free_port()),
            "GATEWAY_HANDOVER_URL": "off",  # else the app's public URL, which is somebody's
        }
        """What the user has set for the app; every container has it, and so has the build."""

    @property
    def base(self) -> dict[str, str]:
        return {
            "PATH": f"{self.python / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.app),
            "APP": "poc-trace",
            "LANG": "C.UTF-8",
        }

    def check_out(self) -> None:
        """Only what belongs to the project, as a push brings it."""
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in listed.splitlines():
            if (ROOT / name).is_file():
                (self.app / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.app / name)

    def install_packages(self) -> None:
        """A Python with what requirements.txt pins and nothing else: copied from the environment
        of the tests, since a package index is slow and may be out of reach.
        """
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.python], check=True)
        (site,) = self.python.glob("lib/python*/site-packages")
        for line in (self.app / "requirements.txt").read_text().splitlines():
            name, pinned, version = line.partition("==")
            if not pinned or line.startswith("#"):
                continue
            package = metadata.distribution(name)
            assert package.version == version, f"{name} is not the pinned one; run make venv"
            for file in package.files or ():
                if ".." not in file.parts:  # that would be a script beside the packages
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file.locate(), site / file)  # compiled files go by the time

    def post_compile(self) -> subprocess.CompletedProcess[str]:
        """The last step of the build."""
        return subprocess.run(
            [self.app / "bin" / "post_compile"],
            cwd=self.app,
            env=self.base | self.config | {"SOURCE_VERSION": "0123abc"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    @contextlib.contextmanager
    def container(self, process: str, **changed: str) -> Iterator[Container]:
        """A container of a process of the Procfile, with a disk of its own; it accepts."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        disk = Path(tempfile.mkdtemp(dir=self.app.parent, prefix=f"{process}-"))
        shutil.copytree(self.app, disk, copy_function=os.link, dirs_exist_ok=True)
        container = Container(self, process, port, disk, changed)
        try:
            container.wait_until_accepting()
            yield container
        finally:
            container.kill()


class Container:
    """What the platform starts and what it tells it."""

    def __init__(
        self, app: Platform, process: str, port: int, disk: Path, changed: dict[str, str]
    ) -> None:
        commands = dict(
            line.split(": ", 1) for line in (disk / "Procfile").read_text().splitlines()
        )
        self.port = port
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {commands[process]}"],
            cwd=disk,
            env=app.base
            | {
                "PORT": str(port),
                "CONTAINER": f"{process}-1",
                "CONTAINER_VERSION": "0123abc",
                "CONTAINER_SIZE": "M",
                "CONTAINER_MEMORY": str(512 * 2**20),
                "SCALINGO_APPLICATION_ID": "ap-a71da13f-7c70-4c00-a644-eee8558d8053",
                "HOSTNAME": f"poc-trace-{process}-1",
                "STACK": "scalingo-22",
                "REGION_NAME": "osc-fr1",
                "TCP_URL": "tcp://tcp-1.osc-fr1.scalingo.com:20003",
                "DYNO_RAM": "512",
                "WEB_CONCURRENCY": "2",
                "WEB_CONCURRENCY_SET_BY": "scalingo/python",
            }
            | app.config
            | changed,
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def wait_until_accepting(self) -> None:
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.05)
        raise AssertionError(f"does not accept in {BOOT_S:.0f} s:\n{''.join(self.log)}")

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as got:
                return got.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def stop(self) -> int:
        """SIGTERM, and the exit code if it comes before SIGKILL would."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=KILL_AFTER_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(timeout=5)
        self.process.stderr.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


class Releases(http.server.ThreadingHTTPServer):
    """GitHub's releases of Tempo: one archive with a binary, and its checksum."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ReleaseFiles)
        binary = find_tempo()
        self.version = (
            ".".join(map(str, tempo_version(binary))) if binary else Settings().tempo_version
        )
        release = release_for(
            self.version, None, system=platform.system(), machine=platform.machine()
        )
        archive = pack(binary.read_bytes() if binary else STAND_IN.encode())
        sums = f"{hashlib.sha256(archive).hexdigest()}  {release.asset}\n".encode()
        self.files = {
            f"/v{self.version}/{release.asset}": archive,
            f"/v{self.version}/SHA256SUMS": sums,
            # a mirror that is not sound
            f"/bad/v{self.version}/{release.asset}": archive[:-1] + b"x",
            f"/bad/v{self.version}/SHA256SUMS": sums,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class ReleaseFiles(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Releases)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def pack(binary: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in {"LICENSE": b"AGPL", "tempo": binary, "tempo-cli": b"no"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def releases():
    with Releases() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def built(tmp_path_factory, releases) -> Platform:
    """The app after a build that went well."""
    app = Platform(tmp_path_factory.mktemp("platform"), releases.url, releases.version)
    app.check_out()
    app.install_packages()
    done = app.post_compile()
    assert done.returncode == 0, done.stdout + done.stderr
    return app


def test_the_build_has_installed_tempo(built):
    done = subprocess.run([built.app / "bin/tempo", "-version"], capture_output=True, text=True)
    assert f"version {built.config['TEMPO_VERSION']}" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("mirror", "reason"), [("/nowhere", "404"), ("/bad", "SHA-256")], ids=["missing", "changed"]
)
def test_a_failed_install_fails_the_build(built, releases, tmp_path, mirror, reason):
    """And says why; the platform then leaves the running release alone."""
    other = Platform(tmp_path, releases.url + mirror, releases.version)
    other.python = built.python
    other.check_out()
    done = other.post_compile()
    assert done.returncode != 0
    assert reason in done.stderr
    assert not (other.app / "bin" / "tempo").exists()


def test_a_gateway_in_front_of_a_tempo_elsewhere_installs_none(built, tmp_path):
    other = Platform(tmp_path, "http://127.0.0.1:9", "2.10.8")
    other.python = built.python
    other.config["TEMPO_OTLP_ENDPOINT"] = "http://tempo:4317"
    other.check_out()
    done = other.post_compile()
    assert done.returncode == 0, done.stderr
    assert not (other.app / "bin" / "tempo").exists()


def send(transport: str, endpoint: str, service: str) -> str:
    """A trace by the SDK for Python; its id."""
    script = CLIENTS / "clients" / "python_sdk.py"
    done = subprocess.run(
        [sys.executable, script, transport, endpoint, service],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_both_processes_of_the_procfile_serve_from_start_to_sigterm(built):
    """Spans by HTTP to ``web`` and by gRPC to ``tcp`` are found at ``web``; both end with 0."""
    # No private network here: its name for the containers of ``web`` is loopback's.
    web_grpc = f"http://127.0.0.1:{built.config['TCP_GRPC_PORT']}"
    with (
        built.container("web") as web,
        built.container("tcp", TEMPO_OTLP_ENDPOINT=web_grpc) as tcp,
    ):
        traces = [
            send("http-protobuf", f"http://127.0.0.1:{web.port}/v1/traces", "by-http"),
            send("grpc", f"127.0.0.1:{tcp.port}", "by-grpc"),
        ]
        for trace in traces:
            eventually(lambda trace=trace: web.status(f"/api/traces/{trace}") == 200)
        eventually(lambda: web.status("/ready") == 200)
        assert tcp.stop() == 0
        assert web.stop() == 0
    assert any("tempo found" in line for line in web.log)
    assert sum("spool open" in line for line in web.log) == 1, "a guessed number of workers"
    assert any("spans_left_in_spool=0" in line for line in tcp.log)
