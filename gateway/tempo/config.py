"""How a version of Tempo is run: which file it reads, with what environment, and what follows.

Nothing is rendered: the files in ``config/`` are what Tempo reads, and Tempo fills in what varies
from its environment (``-config.expand-env=true``), secrets among it, so that none is on disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.tempo.clock import HOLD_S
from gateway.tempo.ports import Ports
from gateway.tempo.version import Version
from gateway.tempo.wal import Wal

CONFIG = Path(__file__).resolve().parents[2] / "config"
MIB = 2**20

MOST_MESSAGE_MIB, LEAST_MESSAGE_MIB = 16, 4
MESSAGE_SHARE = 48
"""A container of this many times the size of a message can digest it: in 280 MiB of memory one
span of 8 MiB took Tempo to 170 (2.4.0), 235 (2.10.8) and 231 MiB (3.0.3), and to 340 when it was
read; of 16 MiB up to 858 MiB (3.0.3). Answers above 16 MiB fail in Tempo whatever its memory."""

TRACE_SPARE_BYTES = MIB
"""A trace that fills a message is some bytes larger in Tempo, and would be dropped after an OK."""

GO_SHARE = 0.4
LEAST_GO_BYTES = 128 * MIB
"""Part of the container's memory that Go's garbage collector keeps Tempo's heap below, as long as
it can. The rest is the gateway's, and Tempo's program itself (40 MiB)."""

MOST_LIVE_BYTES = 250_000_000
"""Of traces that Tempo 3 keeps in memory before pushes have to wait; its own default."""

ROOMY_BYTES = 2**30
"""From this size of a container on, Tempo need not save memory (docs/performance.md)."""

WINDOW_SHARE = 32
LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES = 8 * MIB, 256 * MIB
"""Part of the container's memory that spans may fill which Tempo has not brought to its disk; in
memory they take ten times that and more. With the hold time it is also the most that Tempo is
given per second: 16 MiB make 2.7 MB/s, some 10,000 spans/s."""

DEFAULT_LIVE_S = 30.0
"""``trace_live_period`` where the file does not set it."""
FOREIGN_HOLD_S = 60.0
"""With a configuration of the user's own: Tempo's defaults come to 45 s."""

DEFAULT_TENANT = "single-tenant"
"""Where Tempo keeps everything as long as it knows no tenants. Once it does, what is of no tenant
goes on living there."""

VARIABLES = ("HTTP_PORT", "GRPC_PORT", "OTLP_PORT")
"""What a configuration of the user's own has to leave to the gateway, as ``${HTTP_PORT}``."""


_KEEPS_TENANTS = re.compile(
    r"^(multitenancy_enabled|auth_enabled): *(true|\$\{MULTITENANCY\b)", re.MULTILINE
)


class ConfigError(Exception):
    """Tempo cannot be run with what is set; the text says what to change."""


class Profile(NamedTuple):
    """What is known of one version, run with its file in ``config/``."""

    version: Version
    template: Path
    tested: bool
    """False where the nearest known version's file is used."""
    hold_s: float
    """After this time of its life clock (``clock``), an OK of Tempo's is on its disk."""
    max_message_mib: int
    """Largest delivery that its receiver takes, and largest trace that it does not drop."""
    window_bytes: int
    """Most that it is given before it has brought it to its disk."""
    live_traces: str
    """Metric by tenant: traces that are in memory only."""
    flushed: re.Pattern[str]
    """What it logs after SIGTERM, once its memory is on its disk."""
    finishes_at_end: bool
    """Whether it can also be told to bring it to its storage before that (FLUSH_ON_STOP)."""
    broken: re.Pattern[str] = re.compile(r'msg="failed to cut ')
    """What it logs when its disk is full. From then on it loses what it goes on to say OK to, also
    when there is room again, until it is restarted (tried with 2.4.0, 2.10.8 and 3.0.3)."""


def profile_for(version: Version, *, container_bytes: int) -> Profile:
    """The nearest known version's, for one that is not known."""
    line = (version.major, version.minor)
    tested = line in {(2, 4), (2, 10), (3, 0)}
    message_mib = min(
        MOST_MESSAGE_MIB, max(LEAST_MESSAGE_MIB, container_bytes // MESSAGE_SHARE // MIB)
    )
    window = min(MOST_WINDOW_BYTES, max(LEAST_WINDOW_BYTES, container_bytes // WINDOW_SHARE))
    if version.major >= 3:
        return Profile(
            version,
            CONFIG / "tempo-3.yaml",
            tested,
            HOLD_S,
            message_mib,
            window,
            "tempo_live_store_live_traces",
            re.compile(r'msg="module stopped" module=live-store$'),
            finishes_at_end=False,
        )
    has_live_period = line >= (2, 10)
    return Profile(
        version,
        CONFIG / ("tempo-2.10.yaml" if has_live_period else "tempo-2.4.yaml"),
        tested,
        HOLD_S if has_live_period or line <= (2, 4) else HOLD_S + DEFAULT_LIVE_S,
        message_mib,
        window,
        "tempo_ingester_live_traces",
        re.compile(r'msg="module stopped" module=ingester$'),
        finishes_at_end=True,
    )


def wal_of(data_dir: Path) -> Wal:
    """Where every file of ``config/`` has the WAL."""
    return Wal(data_dir / "wal", data_dir / "wal-copies")


def command(binary: Path, config: Path) -> list[str]:
    """Both flags in the only form that every version takes."""
    return [str(binary), f"-config.file={config}", "-config.expand-env=true"]


def environment(
    inherited: Mapping[str, str],
    profile: Profile,
    *,
    data_dir: Path,
    retention_s: float,
    container_bytes: int,
    has_tenants: bool,
    metrics: str = "auto",
) -> dict[str, str]:
    """What the files in ``config/`` name, but for the ports. Raises ConfigError for a path that
    they cannot hold.
    """
    path = str(data_dir.absolute())
    if re.search(r'["\\$\n]', path):
        raise ConfigError(
            f"GATEWAY_DATA_DIR={path!r}: Tempo's configuration cannot hold a path with quotes,"
            " backslashes, dollar signs or line breaks"
        )
    small = container_bytes < ROOMY_BYTES
    has_metrics = metrics == "on" or (metrics == "auto" and not small)
    go_bytes = max(LEAST_GO_BYTES, int(container_bytes * GO_SHARE))
    return {
        "GOMEMLIMIT": f"{go_bytes}B",  # an operator's own goes first
        **inherited,
        "DATA_DIR": path,
        "MULTITENANCY": "true" if has_tenants else "false",
        "RETENTION": f"{retention_s:.0f}s",
        "MAX_MESSAGE_MIB": str(profile.max_message_mib),
        "MAX_TRACE_BYTES": str(profile.max_message_mib * MIB + TRACE_SPARE_BYTES),
        "ROW_GROUP_BYTES": str(10_000_000 if small else 30_000_000),
        "BLOCK_DURATION": "15s" if small else "30s",
        "LIVE_BLOCK_DURATION": "15s" if small else "30s",
        "METRICS_PROCESSORS": "local-blocks" if has_metrics else "",
        "METRICS_DIR": f"{path}/generator" if has_metrics else "",
        "MAX_LIVE_BYTES": str(min(MOST_LIVE_BYTES, go_bytes // 2)),
    }


def port_variables(ports: Ports) -> dict[str, str]:
    numbers = (ports.http, ports.internal, ports.otlp)
    return dict(zip(VARIABLES, map(str, numbers), strict=True))


def check_own(path: Path, *, has_tenants: bool) -> None:
    """Raises ConfigError for a configuration of the user's own that the gateway cannot work with:
    it has to know where Tempo listens, so it picks the ports; and tenants that tokens tell apart
    must not be one in Tempo.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"TEMPO_CONFIG={path}: cannot be read: {error}") from error
    missing = [name for name in VARIABLES if "${" + name not in text]
    if missing:
        wanted = ", ".join("${" + name + "}" for name in missing)
        raise ConfigError(
            f"TEMPO_CONFIG={path}: the gateway picks Tempo's ports, so the file has to name them"
            f" by variables; missing: {wanted} (see config/tempo-2.10.yaml)"
        )
    if has_tenants and not _KEEPS_TENANTS.search(text):
        raise ConfigError(
            f"TEMPO_CONFIG={path}: tokens stand for tenants, and Tempo would not keep them apart;"
            " add the line multitenancy_enabled: true"
        )
