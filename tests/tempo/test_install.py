"""The installer against a release server on loopback that misbehaves in each way."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator

import pytest

from gateway.tempo.install import InstallError, install, release_for
from tests.kit.disks import file_size_limit

VERSION = "2.10.8"
ASSET = f"tempo_{VERSION}_linux_amd64.tar.gz"
BINARY = b"#!/bin/sh\necho 'tempo, version 2.10.8'\n"


def archive(**members: bytes | tarfile.TarInfo) -> bytes:
    """A release as GitHub has it, with other files beside the binary."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {"LICENSE": b"AGPL", "tempo-cli": b"no", **members}.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Releases:
    """What the server has, and its bad habits: each entry of ``faults`` spoils one request of
    the archive.
    """

    def __init__(self) -> None:
        self.archive = archive(tempo=BINARY)
        self.checksums: str | None = None
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.url = ""
        self.silent = threading.Event()

    def files(self) -> dict[str, bytes]:
        digest = hashlib.sha256(self.archive).hexdigest()
        sums = self.checksums or f"{'0' * 64}  other.tar.gz\n{digest}  {ASSET}\n"
        return {f"/v{VERSION}/{ASSET}": self.archive, f"/v{VERSION}/SHA256SUMS": sums.encode()}


@pytest.fixture
def releases(monkeypatch) -> Iterator[Releases]:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    server = Releases()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            server.requests.append(self.path)
            path = self.path.removeprefix("/moved")
            body = server.files().get(path)
            fault = server.faults.pop(0) if server.faults and path.endswith(ASSET) else ""
            if body is None or fault == "404":
                self.send_error(404)
                return
            if fault == "503":
                self.send_error(503)
                return
            if fault == "redirect":
                self.send_response(302)
                self.send_header("Location", "/moved" + self.path)
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault == "truncated":
                body = body[: len(body) // 2]
            if fault == "silent":
                server.silent.wait(30)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{web.server_port}"
        yield server
        server.silent.set()
        web.shutdown()
        thread.join()


def run_install(releases: Releases, directory, **options):
    said: list[str] = []
    options = {"base_url": releases.url, "silence_s": 5.0, "first_delay_s": 0.0} | options
    return install(VERSION, directory, say=said.append, **options), said


def test_the_binary_is_installed_and_runs(releases, tmp_path):
    path, said = run_install(releases, tmp_path / "bin")
    assert path == tmp_path / "bin" / "tempo"
    output = subprocess.run([path, "-version"], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "tempo, version 2.10.8"
    assert any("##########" in line for line in said)
    assert sorted(p.name for p in path.parent.iterdir()) == ["tempo", "tempo.version"]


def test_what_is_there_is_not_fetched_again(releases, tmp_path):
    run_install(releases, tmp_path)
    before = len(releases.requests)
    _, said = run_install(releases, tmp_path)
    assert len(releases.requests) == before
    assert "is there" in said[0]


def test_another_version_replaces_what_is_there(releases, tmp_path):
    (tmp_path / "tempo").write_bytes(b"old")
    (tmp_path / "tempo.version").write_text("2.4.0\n")
    path, _ = run_install(releases, tmp_path)
    assert path.read_bytes() == BINARY
    assert (tmp_path / "tempo.version").read_text() == VERSION + "\n"


@pytest.mark.parametrize("fault", ["503", "truncated"])
def test_what_may_pass_is_tried_again(releases, tmp_path, fault):
    releases.faults = [fault, fault]
    path, said = run_install(releases, tmp_path)
    assert path.read_bytes() == BINARY
    assert sum("again in" in line for line in said) == 2


def test_a_redirect_is_followed(releases, tmp_path):
    releases.faults = ["redirect"]
    path, _ = run_install(releases, tmp_path)
    assert path.read_bytes() == BINARY


def test_a_server_that_falls_silent_is_given_up_in_time(releases, tmp_path):
    releases.faults = ["silent"] * 4
    with pytest.raises(InstallError, match="sends nothing"):
        run_install(releases, tmp_path, silence_s=0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_stays_broken_is_named(releases, tmp_path):
    releases.faults = ["truncated"] * 4
    with pytest.raises(InstallError, match=r"ended after \d+ of \d+ bytes"):
        run_install(releases, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_comes_to_an_end_is_given_up(releases, tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.tempo.install.MOST_S", -1.0)
    with pytest.raises(InstallError, match=r"too slow.*TEMPO_DOWNLOAD_URL"):
        run_install(releases, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_told_as_what_it_is(releases, tmp_path):
    (tmp_path / "bin").write_text("a file")
    with pytest.raises(InstallError, match="bin cannot be written"):
        run_install(releases, tmp_path / "bin")


def test_a_full_disk_is_no_fault_of_the_network(releases, tmp_path):
    releases.archive = archive(tempo=os.urandom(100_000))
    with (
        file_size_limit(50_000),
        pytest.raises(InstallError, match=r"cannot be written: .*; is there room"),
    ):
        run_install(releases, tmp_path / "bin")
    assert list((tmp_path / "bin").iterdir()) == []
    assert sum(path.endswith(ASSET) for path in releases.requests) == 1


def test_a_file_of_absurd_size_is_not_unpacked(releases, tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.tempo.install.MOST_BYTES", 2000)
    releases.archive = archive(tempo=bytes(3000))
    assert len(releases.archive) < 2000
    with pytest.raises(InstallError, match="no plain file"):
        run_install(releases, tmp_path)


def test_a_missing_release_is_final_and_says_what_to_check(releases, tmp_path):
    releases.faults = ["404"]
    with pytest.raises(InstallError, match=r"404.*TEMPO_VERSION"):
        run_install(releases, tmp_path)
    assert sum(path.endswith(ASSET) for path in releases.requests) == 1


def test_a_wrong_checksum_installs_nothing_and_leaves_what_was_there(releases, tmp_path):
    (tmp_path / "tempo").write_bytes(b"old")
    releases.checksums = f"{'a' * 64}  {ASSET}\n"
    with pytest.raises(InstallError, match="SHA-256"):
        run_install(releases, tmp_path)
    assert (tmp_path / "tempo").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["tempo"]


def test_an_archive_that_is_not_listed_is_not_installed(releases, tmp_path):
    releases.checksums = f"{'a' * 64}  tempo_{VERSION}_windows_amd64.tar.gz\n"
    with pytest.raises(InstallError, match="does not list"):
        run_install(releases, tmp_path)


def evil_link() -> tarfile.TarInfo:
    link = tarfile.TarInfo("tempo")
    link.type = tarfile.SYMTYPE
    link.linkname = "/etc/passwd"
    return link


@pytest.mark.parametrize(
    "members", [{"../tempo": BINARY}, {"bin/tempo": BINARY}, {"tempo": evil_link()}]
)
def test_nothing_but_a_plain_file_tempo_leaves_the_archive(releases, tmp_path, members):
    releases.archive = archive(**members)
    with pytest.raises(InstallError, match="no plain file"):
        run_install(releases, tmp_path / "bin")
    assert list((tmp_path / "bin").iterdir()) == []
    assert not (tmp_path / "tempo").exists()


def test_a_file_that_is_no_archive_is_an_error_in_words(releases, tmp_path):
    releases.archive = b"<html>sign in first</html>"
    with pytest.raises(InstallError, match="cannot be unpacked"):
        run_install(releases, tmp_path)


def test_nobody_there_says_what_to_do(tmp_path):
    with pytest.raises(InstallError, match="HTTPS_PROXY"):
        install(
            VERSION, tmp_path, base_url="http://127.0.0.1:9", say=lambda _: None, first_delay_s=0
        )


def test_a_proxy_is_used_where_one_is_set(releases, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", releases.url)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(InstallError, match="404"):
        run_install(releases, tmp_path, base_url="http://mirror.invalid/tempo")
    assert releases.requests[0].startswith("http://mirror.invalid/tempo/")


def test_the_binary_is_executable_for_all_and_writable_for_its_owner(releases, tmp_path):
    path, _ = run_install(releases, tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("system", "machine", "asset"),
    [
        ("Linux", "x86_64", "tempo_2.4.0_linux_amd64.tar.gz"),
        ("Linux", "aarch64", "tempo_2.4.0_linux_arm64.tar.gz"),
        ("Darwin", "arm64", "tempo_2.4.0_darwin_arm64.tar.gz"),
    ],
)
def test_the_asset_fits_system_and_processor(system, machine, asset):
    assert release_for("2.4.0", None, system=system, machine=machine).asset == asset


def test_a_machine_without_a_release_is_told_what_else_there_is():
    with pytest.raises(InstallError, match="TEMPO_OTLP_ENDPOINT"):
        release_for("2.4.0", None, system="SunOS", machine="sparc")
