"""Delivers what spools hold whose processes are no more, and then does away with the spools."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from gateway.lifecycle import StartError
from gateway.pipeline.data_directory import DataDirectory
from gateway.pipeline.pipeline import Pipeline
from gateway.pipeline.spool import DiskSpool
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

LOOK_S = 0.5
"""Between two looks at whether all is delivered."""


class Adoptions:
    """One such spool after the other, each with a pipeline that nobody offers anything to."""

    def __init__(
        self,
        names: Sequence[str],
        data: DataDirectory,
        make_pipeline: Callable[[DiskSpool], Pipeline],
        *,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """``done`` is called when there is none left, but for those that had to be given up."""
        self._names = names
        self._data = data
        self._make_pipeline = make_pipeline
        self._done = done
        self._pipeline: Pipeline | None = None

    @property
    def pending_spans(self) -> int:
        """Of the one at hand."""
        return self._pipeline.pending_spans if self._pipeline is not None else 0

    async def run(self) -> None:
        for name in self._names:
            try:
                # Nothing is appended, so its cap does not matter.
                spool = await asyncio.to_thread(self._data.open_spool, name, max_bytes=1)
            except StartError as error:
                logger.error(  # noqa: TRY400 - the disk's word says it all
                    "spool not adopted", extra=facts(spool=name, error=str(error))
                )
                continue
            await self._empty(name, self._make_pipeline(spool))
        self._done()

    async def _empty(self, name: str, pipeline: Pipeline) -> None:
        self._pipeline, told = pipeline, facts(spool=name, spans=pipeline.pending_spans)
        logger.info("spool adopted", extra=told)
        pipeline.start()
        while pipeline.pending_spans:  # noqa: ASYNC110 - a rare wait; an event costs each delivery
            await asyncio.sleep(LOOK_S)
        await pipeline.stop()
        await asyncio.to_thread(self._data.remove_spool, name)
        logger.info("adopted spool delivered", extra=told)

    def backend_ready(self) -> None:
        """Deliver at once instead of after the next delay."""
        if self._pipeline is not None:
            self._pipeline.backend_ready()

    async def stop(self, *, backend_flushed: bool) -> None:
        """Once ``run`` has been ended. What is not released stays for the next start."""
        if self._pipeline is not None:
            self._pipeline.backend_ended(flushed=backend_flushed)
            await self._pipeline.stop()
