"""Commands and exit codes, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway import __version__
from tests.kit.gateway import ROOT


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "TEMPO_"))}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_settings_shows_every_setting_with_the_value_in_force():
    done = run("settings", PORT="8080", TEMPO_OTLP_HEADERS="authorization=hunter2")
    assert done.returncode == 0
    assert "PORT=8080\n" in done.stdout
    assert "TEMPO_OTLP_HEADERS=***\n" in done.stdout
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize("command", ["serve", "settings", "version"])
def test_wrong_settings_are_exit_code_2_with_every_fault(command):
    done = run(command, PORT="http", GATEWAY_BATCH_SPAN="1")
    assert done.returncode == 2
    assert "PORT='http': expected" in done.stderr
    assert "did you mean GATEWAY_BATCH_SPANS?" in done.stderr


def test_a_relay_that_knows_of_no_gateway_is_exit_code_2_with_what_to_set():
    done = run("relay", PORT="0")
    assert done.returncode == 2
    assert "settings: TEMPO_OTLP_ENDPOINT is not set: the relay needs" in done.stderr


def test_a_command_that_is_none_is_exit_code_2():
    assert run("dance").returncode == 2


def test_version_names_what_the_gateway_runs_on():
    done = run("version", PATH="/usr/bin:/bin")
    assert done.returncode == 0
    assert f"gateway {__version__}\n" in done.stdout
    assert "grpcio 1." in done.stdout


def test_version_says_what_is_wrong_with_a_binary_that_is_no_tempo():
    done = run("version", TEMPO_BIN="/bin/true")
    assert done.returncode == 0
    assert "/bin/true does not say that it is Tempo" in done.stdout


def test_install_tempo_fails_with_exit_code_1_and_says_why(tmp_path):
    done = run(
        "install-tempo",
        "--version",
        "9.9.9",
        "--dir",
        str(tmp_path),
        TEMPO_DOWNLOAD_URL="http://[::1]:9",
    )
    assert done.returncode == 1
    assert "install-tempo: http://[::1]:9/v9.9.9/SHA256SUMS cannot be read" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_replay_of_what_is_no_directory_is_exit_code_2(tmp_path):
    assert run("replay", str(tmp_path / "nothing")).returncode == 2


def test_replay_of_an_empty_directory_is_fine(tmp_path):
    done = run("replay", str(tmp_path), "--to", "http://127.0.0.1:9")
    assert done.returncode == 0
    assert done.stdout.startswith("0 sent to http://127.0.0.1:9/v1/traces")
