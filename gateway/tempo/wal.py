"""Tempo's write-ahead log on disk, seen from outside. Blocking; call it in a thread.

A block of the WAL is a folder ``<id>+<tenant>+vParquet4`` with one file per flush (``0000000001``,
...) and a ``meta.json``. Two things of it matter here:

- The end of a flush can be seen: Tempo then opens the next file, or the next block.
- ``meta.json`` is written anew in place by each flush. A SIGKILL between its truncation and its
  writing leaves it empty, and Tempo, when it starts, removes the whole block ("failed to replay
  block. removing."), with all that it holds since up to 30 s. So a copy of each is kept outside,
  and put back where Tempo's own is torn. Read in, and tried with, 2.4.0, 2.10.8 and 3.0.3.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

META = "meta.json"
WIDEST = datetime.timedelta(hours=48)
"""The time range of a mended block is not known; as far back as the ingestion slack is safe."""


class Wal(NamedTuple):
    """Where a Tempo keeps its WAL, and where the copies are kept."""

    folder: Path
    copies: Path

    def pages(self) -> dict[str, dict[str, int]]:
        """By tenant and block, the number of the newest file. It grows when a flush ends."""
        pages: dict[str, dict[str, int]] = {}
        for block in self._blocks():
            tenant = block.name.split("+", 1)[1].rpartition("+")[0]
            with contextlib.suppress(FileNotFoundError):  # finished and removed meanwhile
                numbers = [int(path.name) for path in block.iterdir() if path.name.isdecimal()]
                pages.setdefault(tenant, {})[block.name] = max(numbers, default=0)
        return pages

    def keep_copies(self) -> None:
        """Copy each block's ``meta.json`` once; forget those of blocks that are gone."""
        present = {block.name for block in self._blocks()}
        kept = {path.name for path in self.copies.iterdir()} if self.copies.is_dir() else set()
        for name in kept - present:
            (self.copies / name).unlink(missing_ok=True)
        for name in present - kept:
            content = _read_meta(self.folder / name / META)
            if content is not None:  # else not written yet, or just being written
                self.copies.mkdir(parents=True, exist_ok=True)
                _write(self.copies / name, content)

    def mend(self) -> None:
        """Put back what is torn; while no Tempo runs. Raises OSError."""
        for block in self._blocks():
            if _read_meta(block / META) is not None:
                continue
            content = _read_meta(self.copies / block.name)
            if content is None:  # younger than the first copy, so younger than any hold time
                continue
            now = datetime.datetime.now(datetime.UTC)
            content["startTime"] = _stamp(now - WIDEST)
            content["endTime"] = _stamp(now)
            _write(block / META, content)
            logger.warning("block of the WAL mended", extra=facts(block=block.name))

    def _blocks(self) -> Iterator[Path]:
        try:
            entries = list(os.scandir(self.folder))
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.name.count("+") >= 2 and entry.is_dir():
                yield Path(entry.path)


def _read_meta(path: Path) -> dict[str, Any] | None:
    """None for a file that is not there or torn."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write(path: Path, content: dict[str, Any]) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content))
    new.chmod(0o600)
    new.replace(path)


def _stamp(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
