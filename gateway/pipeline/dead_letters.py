"""Payloads that the backend refused for good, kept on disk for people to look at and replay."""

from __future__ import annotations

import asyncio
import datetime
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

PAYLOAD_SUFFIX, REASON_SUFFIX = ".otlp", ".json"

BLOCK_BYTES = 4096
"""What file systems hand out at a time: so much at least takes a file, however small."""


class DeadLetterFolder:
    """One file a payload, with a JSON file of the same name beside it that says why.

    Bounded by ``max_bytes`` of disk: the oldest go first. The name ends in a hash of the payload,
    so a payload that is given up again after a restart replaces itself.
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
        if _footprint(len(payload)) > self._max_bytes:
            raise OSError(f"{len(payload)} bytes are more than the folder may hold")
        digest = hashlib.sha256(payload).hexdigest()[:16]
        now = datetime.datetime.now(datetime.UTC)
        told = {"tenant": tenant, "spans": spans, "reason": reason, "at": now.isoformat()}
        path = self._directory / f"{now:%Y%m%dT%H%M%S.%f}-{digest}{PAYLOAD_SUFFIX}"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self._directory):
            for again in self._directory.glob(f"*-{digest}{PAYLOAD_SUFFIX}"):
                _remove(again)
            self._make_room(_footprint(len(payload)))
            try:
                _write(path.with_suffix(REASON_SUFFIX), json.dumps(told).encode())
                _write(path, payload)
            except OSError:
                _remove(path)
                raise

    def _make_room(self, size: int) -> None:
        kept = [
            (path, _footprint(path.stat().st_size))
            for path in sorted(self._directory.glob("*" + PAYLOAD_SUFFIX))
        ]
        total = size + sum(footprint for _, footprint in kept)
        for path, footprint in kept:
            if total <= self._max_bytes:
                return
            _remove(path)
            total -= footprint


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One letter at a time: deliveries give up side by side, and so do processes."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _footprint(size: int) -> int:
    """Bytes of disk that a payload of this size takes with its reason."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES + BLOCK_BYTES


def _remove(path: Path) -> None:
    """A payload and its reason."""
    path.unlink(missing_ok=True)
    path.with_suffix(REASON_SUFFIX).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by the owner only: spans can hold personal data."""
    part = path.with_name(path.name + ".part")
    try:
        part.touch(mode=0o600)
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
