"""How a version of Tempo is run: which file of ``config/`` it reads, and with what environment.

Nothing is rendered: the files in ``config/`` are what Tempo reads, and Tempo fills in what varies
from its environment (``-config.expand-env=true``). Pure but for where the files are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.tempo.version import Version

CONFIG = Path(__file__).resolve().parents[2] / "config"

HOLD_S = 10.0
"""From an OK of Tempo's until what it stands for is in its WAL, with a wide margin. With these
files a trace is cut after 1 s (idle or not) by a sweep of each second, so it takes 2 s and the
time of the write; killed with SIGKILL, no version lost anything older than that."""

GO_SHARE = 0.4
LEAST_GO_BYTES = 128 * 2**20
"""Part of the container's memory that Tempo's garbage collector keeps below as long as it can."""


class Profile(NamedTuple):
    """What is known of one version."""

    template: Path
    hold_s: float = HOLD_S


def profile_for(version: Version) -> Profile:
    """The nearest known version's, for one that is not known."""
    if version.major >= 3:
        name = "tempo-3.yaml"
    elif (version.major, version.minor) >= (2, 10):
        name = "tempo-2.10.yaml"
    else:
        name = "tempo-2.4.yaml"
    return Profile(CONFIG / name)


def command(binary: Path, config: Path) -> list[str]:
    """Both flags in the only form that every version takes."""
    return [str(binary), f"-config.file={config}", "-config.expand-env=true"]


def environment(
    *, data_dir: Path, ports: tuple[int, int, int], retention_s: float, container_bytes: int
) -> Mapping[str, str]:
    """What the files in ``config/`` name; ``ports`` are OTLP, HTTP and internal gRPC.

    Nothing of the gateway's own environment goes along: it may hold secrets.
    """
    otlp, http, internal = ports
    return {
        "OTLP_PORT": str(otlp),
        "HTTP_PORT": str(http),
        "GRPC_PORT": str(internal),
        "DATA_DIR": str(data_dir.absolute()),
        "RETENTION": f"{retention_s:.0f}s",
        "GOMEMLIMIT": f"{max(LEAST_GO_BYTES, int(container_bytes * GO_SHARE))}B",
        "HOME": str(data_dir.absolute()),
    }
