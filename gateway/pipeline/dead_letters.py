"""Payloads that the backend refused for good, kept on disk for people to look at and replay."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import logging
from pathlib import Path

from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

PAYLOAD_SUFFIX, REASON_SUFFIX = ".otlp", ".json"


class DeadLetterFolder:
    """One file a payload, with a JSON file of the same name beside it that says why.

    Bounded by ``max_bytes``: the oldest go first. The name ends in a hash of the payload, so a
    payload that is given up again after a restart replaces itself.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    async def keep(self, tenant: str, payload: bytes, *, spans: int, reason: str) -> None:
        """Store it; a disk that refuses is logged, since the spans are given up in any case."""
        try:
            await asyncio.to_thread(self._keep, tenant, payload, spans, reason)
        except OSError as error:
            logger.error(  # noqa: TRY400 - the disk's word says it all
                "dead letter not stored", extra=facts(error=str(error), spans=spans)
            )

    def _keep(self, tenant: str, payload: bytes, spans: int, reason: str) -> None:
        if len(payload) > self._max_bytes:
            raise OSError(f"{len(payload)} bytes are more than the folder may hold")
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.sha256(payload).hexdigest()[:16]
        for again in self._directory.glob(f"*-{digest}.*"):
            again.unlink()
        self._make_room(len(payload))
        now = datetime.datetime.now(datetime.UTC)
        name = f"{now:%Y%m%dT%H%M%S.%f}-{digest}"
        facts_of_it = {"tenant": tenant, "spans": spans, "reason": reason, "at": now.isoformat()}
        _write(self._directory / (name + REASON_SUFFIX), json.dumps(facts_of_it).encode())
        _write(self._directory / (name + PAYLOAD_SUFFIX), payload)

    def _make_room(self, size: int) -> None:
        kept = sorted(self._directory.glob("*" + PAYLOAD_SUFFIX))
        total = size + sum(path.stat().st_size for path in kept)
        for path in kept:
            if total <= self._max_bytes:
                return
            total -= path.stat().st_size
            path.unlink()
            path.with_suffix(REASON_SUFFIX).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by the owner only: spans can hold personal data."""
    part = path.with_name(path.name + ".part")
    part.touch(mode=0o600)
    part.write_bytes(data)
    part.replace(path)
