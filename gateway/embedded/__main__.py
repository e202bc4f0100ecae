"""``python -m gateway.embedded``: the development backend. The gateway starts it."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gateway.embedded.server import Options, serve
from gateway.embedded.store import StoreError
from gateway.settings import parse_duration, parse_size
from gateway.telemetry import logs

logger = logging.getLogger("gateway.embedded")

_LEVELS = ["debug", "info", "warning", "error"]
T = TypeVar("T")


def _kind(read: Callable[[str], T], example: str) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not like {example}") from None

    return convert


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway.embedded",
        description="Development backend: speaks Tempo's ports on 127.0.0.1 over SQLite.",
    )
    duration, size = _kind(parse_duration, "48h or 10s"), _kind(parse_size, "64MiB")
    parser.add_argument("--data-dir", type=Path, required=True, help="where the file is kept")
    parser.add_argument("--otlp-port", type=int, default=0, help="OTLP gRPC; 0 takes any free one")
    parser.add_argument("--http-port", type=int, default=0, help="HTTP API; 0 takes any free one")
    parser.add_argument("--retention", type=duration, default="48h", help="age of a trace")
    parser.add_argument("--max-bytes", type=size, default="1GiB", help="size of the file")
    parser.add_argument("--query-timeout", type=duration, default="20s", help="time of a query")
    parser.add_argument("--log-level", default="info", choices=_LEVELS)
    parser.add_argument("--log-format", default="logfmt", choices=["logfmt", "json"])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    logs.configure(given.log_level, given.log_format)
    options = Options(
        data_dir=given.data_dir,
        otlp_port=given.otlp_port,
        http_port=given.http_port,
        retention_s=given.retention,
        max_bytes=given.max_bytes,
        query_timeout_s=given.query_timeout,
    )
    try:
        asyncio.run(serve(options))
    except (StoreError, OSError) as error:
        logger.error("not started", extra=logs.facts(error=str(error)))  # noqa: TRY400 - no trace
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
