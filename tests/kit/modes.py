"""The gateway's backends as test parameters: embedded always, a real Tempo if there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.backends import find_tempo

BACKENDS = ["embedded", pytest.param("managed", marks=pytest.mark.tempo)]


def backend_env(mode: str) -> dict[str, str]:
    """What to start the gateway with; skips the test where Tempo is wanted and none is there."""
    if mode == "embedded":
        return {"TEMPO_MODE": "embedded"}
    return {"TEMPO_MODE": "managed", "TEMPO_BIN": str(tempo_or_skip())}


def tempo_or_skip() -> Path:
    """The Tempo binary to test with; skips the test where there is none."""
    binary = find_tempo()
    if binary is None:
        pytest.skip("no Tempo binary: set TEMPO_BIN or put one at ./bin/tempo")
    return binary
