"""Tempo as a child of the gateway."""

from __future__ import annotations

import logging
from pathlib import Path

from gateway.settings import Settings, child_environment
from gateway.telemetry.logs import facts
from gateway.tempo.child import Program
from gateway.tempo.children import ChildBackend
from gateway.tempo.config import (
    DEFAULT_TENANT,
    FOREIGN_HOLD_S,
    MIB,
    Profile,
    check_own,
    command,
    environment,
    port_variables,
    profile_for,
    wal_of,
)
from gateway.tempo.discards import ReadBack
from gateway.tempo.flushes import FlushLag
from gateway.tempo.ports import Ports
from gateway.tempo.storage import storage_variables
from gateway.tempo.supervisor import Habits
from gateway.tempo.uploads import Uploads
from gateway.tempo.version import read_version
from gateway.tempo.window import Window

logger = logging.getLogger(__name__)


def managed_tempo(settings: Settings, binary: Path, *, container_bytes: int) -> ChildBackend:
    """Raises BinaryError for no Tempo that runs, ConfigError for settings it cannot run with.
    Blocks while the binary tells its version, some 50 ms.
    """
    profile = profile_for(read_version(binary), container_bytes=container_bytes)
    own, data_dir = settings.tempo_config, settings.data_dir / "tempo"
    if own is not None:
        check_own(own, has_tenants=settings.has_tenants)
    variables = environment(
        child_environment(),
        profile,
        data_dir=data_dir,
        retention_s=settings.tempo_retention_s,
        container_bytes=container_bytes,
        has_tenants=settings.has_tenants,
        metrics=settings.tempo_metrics,
    ) | storage_variables(settings)
    default_tenant = DEFAULT_TENANT if settings.has_tenants else ""
    line = command(binary, own or profile.template)

    def program(ports: Ports) -> Program:
        return Program(line, variables | port_variables(ports))

    hold_s = settings.hold_time_s
    if hold_s is None:
        hold_s = profile.hold_s if own is None else FOREIGN_HOLD_S
    in_bucket = settings.tempo_storage == "s3"
    storage = settings.tempo_s3_bucket if in_bucket else data_dir / "blocks"
    _tell(binary, profile, own, hold_s, str(storage) if own is None else None)
    if own is not None:  # nobody knows where it has its WAL, and when it writes to it
        habits = Habits(flushed=profile.flushed, broken=profile.broken)
        return ChildBackend(
            "managed",
            "tempo",
            program,
            hold_s=hold_s,
            habits=habits,
            read_back=ReadBack(),
            default_tenant=default_tenant,
        )
    wal = wal_of(data_dir)
    lag = FlushLag(wal, profile.live_traces)

    def prepare() -> None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        wal.mend()

    return ChildBackend(
        "managed",
        "tempo",
        program,
        hold_s=hold_s,
        habits=Habits(
            prepare,
            lag.keeps_up,
            profile.flushed,
            Uploads(wal, lag).done if in_bucket and not profile.finishes_at_end else None,
            profile.broken,
        ),
        window=Window(profile.window_bytes, profile.hold_s),
        delivered=lag.delivered,
        read_back=ReadBack(),
        max_message_bytes=profile.max_message_mib * MIB,
        default_tenant=default_tenant,
    )


def _tell(
    binary: Path, profile: Profile, own: Path | None, hold_s: float, storage: str | None
) -> None:
    logger.info(
        "tempo found",
        extra=facts(
            path=binary,
            version=profile.version,
            config=own or profile.template,
            hold_s=hold_s,
            max_message_mib=profile.max_message_mib,
            storage=storage,
        ),
    )
    if not profile.tested and own is None:
        logger.warning(
            "tempo version not tested",
            extra=facts(version=profile.version, runs_with=profile.template.name),
        )
